// Random convolutions, pools, copies and attentions through the C interface against plain loops; built with sanitizers.
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <random>
#include <thread>
#include <vector>

#include "engine.h"

namespace {

std::mt19937 generator(7);
int pick(int low, int high) { return low + static_cast<int>(generator() % static_cast<unsigned>(high - low + 1)); }
std::vector<float> numbers(int64_t n) {
    std::vector<float> found(n);
    for (float &x : found) x = static_cast<float>(pick(-1000, 1000)) / 1000.0f;
    return found;
}
int failures = 0;
void check(float got, double right, const char *what) {
    if (!(std::fabs(got - right) <= 1e-4 * (1 + std::fabs(right)))) {
        if (++failures < 10) std::printf("%s: %g, not %g\n", what, got, right);
    }
}

struct Built {
    void *program;
    int x, y;
};

// One tensor in, one operation, one tensor out.
Built build(int isa, int images, int lanes, const int (&in)[3], const int (&out)[3], int gap, int top, int kind,
            std::vector<int64_t> ints, const std::vector<float> &floats) {
    void *p = thr_new(isa, images, lanes);
    const int out_gap = in[2] + gap - out[2], out_top = in[1] + top - out[1];
    const int64_t first = thr_tensor_size(images, lanes, in[0], in[1], in[2], gap, top);
    const int64_t second = thr_tensor_size(images, lanes, out[0], out[1], out[2], out_gap, out_top);
    const int x = thr_add_tensor(p, in[0], in[1], in[2], gap, top, 0);
    const int y = thr_add_tensor(p, out[0], out[1], out[2], out_gap, out_top, first);
    thr_set_arena(p, first + second);
    const int64_t read[2] = {x, 0}, write[2] = {y, 0};
    thr_add_op(p, 0, read, 2, nullptr, 0);
    thr_add_op(p, kind, ints.data(), static_cast<int>(ints.size()), floats.data(), static_cast<int64_t>(floats.size()));
    thr_add_op(p, 1, write, 2, nullptr, 0);
    const int64_t groups[9] = {0, 1, 0, 1, 2, kind == 2 ? pick(0, 3) : 0, 2, 3, 0};
    thr_set_groups(p, groups, 3);
    return {p, x, y};
}

std::vector<float> run(const Built &built, const std::vector<float> &x, int batch, const int (&in)[3], const int (&out)[3],
                       int threads, int mode) {
    std::vector<float> y(static_cast<size_t>(batch) * out[0] * out[1] * out[2]);
    const void *inputs[1] = {x.data()};
    void *outputs[1] = {y.data()};
    const int64_t from[4] = {static_cast<int64_t>(in[0]) * in[1] * in[2], static_cast<int64_t>(in[1]) * in[2], in[2], 1};
    const int64_t to[4] = {static_cast<int64_t>(out[0]) * out[1] * out[2], static_cast<int64_t>(out[1]) * out[2], out[2], 1};
    if (thr_run(built.program, inputs, from, outputs, to, batch, threads, mode)) ++failures;
    return y;
}

void convolution(int isa) {
    const int groups = pick(0, 3) ? 1 : 2, channels = pick(1, 6), rows = groups * pick(1, 9), kh = pick(1, 3), kw = pick(1, 4);
    const int pad = pick(0, 2), h = pick(kh, 9), w = pick(kw, 40), batch = pick(1, 5);
    const int in[3] = {groups * channels, h, w};
    const int out[3] = {rows, h + 2 * pad - kh + 1, w + 2 * pad - kw + 1};
    if (out[1] < 1 || out[2] < 1) return;
    const int lanes = pick(0, 3) ? 1 : 16, images = lanes > 1 ? 1 : pick(1, 3);
    const int gap = std::max(kw, pad) + std::max(0, out[2] - w), top = std::max(kh, pad) + std::max(0, out[1] - h);
    std::vector<float> weight = numbers(static_cast<int64_t>(rows) * channels * kh * kw), floats = {0.0f, 6.0f};
    const int keep = pick(0, 3);
    for (float &v : weight)
        if (keep == 0 || pick(0, keep) != 0) v = 0.0f;
    const auto bias = numbers(rows);
    floats.insert(floats.end(), bias.begin(), bias.end());
    const int activation = pick(0, 1) * thr::RELU;
    std::vector<int64_t> ints = {0, 1, -1, activation, rows, channels, groups, kh * kw, 1};
    for (int y = 0; y < kh; ++y)
        for (int x = 0; x < kw; ++x) ints.insert(ints.end(), {0, y - pad, x - pad});
    const Built built = build(isa, images, lanes, in, out, gap, top, 2, ints, floats);
    const int kernel = rows / groups % 4 && groups > 1 ? 0 : pick(0, 1);
    thr_pack(built.program, 1, weight.data(), kernel, pick(1, 15), pick(0, 4), pick(0, 5), pick(0, 2), pick(0, 1));
    std::vector<float> back(weight.size());
    thr_unpack(built.program, 1, back.data());
    if (back != weight) ++failures;
    const auto x = numbers(static_cast<int64_t>(batch) * in[0] * h * w);
    const auto got = run(built, x, batch, in, out, pick(1, 3), pick(0, 1));
    size_t at = 0;
    for (int n = 0; n < batch; ++n)
        for (int r = 0; r < rows; ++r)
            for (int oy = 0; oy < out[1]; ++oy)
                for (int ox = 0; ox < out[2]; ++ox, ++at) {
                    double sum = bias[r];
                    for (int c = 0; c < channels; ++c)
                        for (int y = 0; y < kh; ++y)
                            for (int z = 0; z < kw; ++z) {
                                const int iy = oy + y - pad, ix = ox + z - pad;
                                if (iy < 0 || ix < 0 || iy >= h || ix >= w) continue;
                                const int channel = r / (rows / groups) * channels + c;
                                sum += static_cast<double>(weight[((static_cast<size_t>(r) * channels + c) * kh + y) * kw + z]) *
                                       x[((static_cast<size_t>(n) * in[0] + channel) * h + iy) * w + ix];
                            }
                    check(got[at], activation ? std::max(sum, 0.0) : sum, "convolution");
                }
    thr_time(built.program, 1, 2, 2, 1, 1);
    thr_free(built.program);
}

// The bitmask kernel: few positions, values as bfloat16 or float.
void product(int isa) {
    const bool large = pick(0, 19) == 0;  // on pages of its own
    const int rows = large ? 600 : pick(1, 40), columns = large ? 1000 : pick(2, 200), batch = large ? 1 : pick(1, 4);
    const int w = pick(1, 5), images = pick(1, 3);
    const int in[3] = {columns, 1, w}, out[3] = {rows, 1, w};
    const int keep = pick(0, 3), half = pick(0, 1);
    std::vector<float> weight(static_cast<size_t>(rows) * columns), floats = {0.0f, 6.0f};
    for (float &v : weight)
        if (keep == 1 || (keep > 1 && pick(1, keep) == 1)) v = static_cast<float>(pick(-64, 64)) / (half ? 64.0f : 63.0f);
    const auto bias = numbers(rows);
    floats.insert(floats.end(), bias.begin(), bias.end());
    const Built built = build(isa, images, 1, in, out, 0, 0, 2, {0, 1, -1, 0, rows, columns, 1, 1, 1, 0, 0, 0}, floats);
    if (thr_pack(built.program, 1, weight.data(), thr::BITMASK, pick(1, 2), 0, 0, 0, 0)) ++failures;
    if (half && thr_value_bytes(built.program, 1) != 2) ++failures;
    std::vector<float> back(weight.size());
    thr_unpack(built.program, 1, back.data());
    if (back != weight) ++failures;
    const auto x = numbers(static_cast<int64_t>(batch) * columns * w);
    const auto got = run(built, x, batch, in, out, pick(1, 3), pick(0, 1));
    size_t at = 0;
    for (int n = 0; n < batch; ++n)
        for (int r = 0; r < rows; ++r)
            for (int i = 0; i < w; ++i, ++at) {
                double sum = bias[r];
                for (int c = 0; c < columns; ++c)
                    sum += static_cast<double>(weight[static_cast<size_t>(r) * columns + c]) *
                           x[(static_cast<size_t>(n) * columns + c) * w + i];
                check(got[at], sum, "product");
            }
    thr_free(built.program);
}

void pooling(int isa) {
    const int k = pick(1, 4), s = pick(1, 3), pad = pick(0, k - 1), c = pick(1, 3), h = pick(k, 9), w = pick(k, 30);
    const int in[3] = {c, h, w};
    const int out[3] = {c, (h + 2 * pad - k) / s + 1, (w + 2 * pad - k) / s + 1};
    const int lanes = pick(0, 1) ? 1 : 16, batch = pick(1, 3);
    const Built built = build(isa, 1, lanes, in, out, std::max(0, out[2] - w), std::max(0, out[1] - h), 6,
                              {0, 1, k, k, s, s, pad, pad, 0, 1}, {});
    const auto x = numbers(static_cast<int64_t>(batch) * c * h * w);
    const auto got = run(built, x, batch, in, out, 2, 0);
    size_t at = 0;
    for (int n = 0; n < batch * c; ++n)
        for (int oy = 0; oy < out[1]; ++oy)
            for (int ox = 0; ox < out[2]; ++ox, ++at) {
                double most = -1e30;
                for (int y = std::max(0, oy * s - pad); y < std::min(h, oy * s - pad + k); ++y)
                    for (int z = std::max(0, ox * s - pad); z < std::min(w, ox * s - pad + k); ++z)
                        most = std::max(most, static_cast<double>(x[(static_cast<size_t>(n) * h + y) * w + z]));
                check(got[at], most, "pool");
            }
    thr_free(built.program);
}

void reshaping(int isa) {
    const int c = pick(1, 5), h = pick(1, 6), w = pick(1, 20), batch = pick(1, 3);
    const int in[3] = {c, h, w}, out[3] = {c * h * w, 1, 1};
    const Built built = build(isa, pick(1, 2), 1, in, out, 0, 0, 10, {0, 1}, {});
    const auto x = numbers(static_cast<int64_t>(batch) * c * h * w);
    const auto got = run(built, x, batch, in, out, 2, 0);
    if (got != x) ++failures;
    thr_free(built.program);
}

void attending(int isa) {
    const int heads = pick(1, 3), depth = pick(1, 9), t = pick(1, 40);
    const int in[3] = {heads * depth, 1, t};
    const Built built = build(isa, 1, 1, in, in, 0, 0, 5, {0, 0, 0, 1, heads, heads}, {0.5f});
    const auto x = numbers(static_cast<int64_t>(in[0]) * t);
    const auto got = run(built, x, 1, in, in, 2, 0);
    for (int head = 0; head < heads; ++head)
        for (int q = 0; q < t; ++q) {
            const float *base = x.data() + static_cast<size_t>(head) * depth * t;
            std::vector<double> e(t);
            double total = 0.0;
            for (int k = 0; k < t; ++k) {
                double dot = 0.0;
                for (int d = 0; d < depth; ++d) dot += static_cast<double>(base[d * t + q]) * base[d * t + k];
                total += e[k] = std::exp(0.5 * dot);
            }
            for (int d = 0; d < depth; ++d) {
                double sum = 0.0;
                for (int k = 0; k < t; ++k) sum += e[k] / total * base[d * t + k];
                check(got[(static_cast<size_t>(head) * depth + d) * t + q], sum, "attention");
            }
        }
    thr_free(built.program);
}

}  // namespace

int main(int count, char **arguments) {
    const int trials = count > 1 ? std::atoi(arguments[1]) : 60;
    for (int isa = 0; isa < 3; ++isa) {
        if (!thr_has_isa(isa)) continue;
        for (int i = 0; i < trials; ++i) {
            convolution(isa);
            product(isa);
            if (i % 3 == 0) pooling(isa);
            if (i % 3 == 1) reshaping(isa);
            if (i % 3 == 2) attending(isa);
        }
    }
    std::printf("%d failures\n", failures);
    return failures != 0;
}
