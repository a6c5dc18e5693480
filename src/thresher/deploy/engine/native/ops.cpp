// What each operation does on its share of the work.
#include <cstring>
#include "program.h"

namespace thr {

namespace {

struct View {
    const Tensor *t;
    float *at;  // position 0 of plane 0
    float *spot(int image, int64_t c, int y, int lanes) const {
        const int picture = lanes > 1 ? 0 : image;
        return at + c * t->plane + picture * t->image + y * t->row + (lanes > 1 ? image : 0);
    }
};

View view(const Program &p, Arena &arena, int64_t index) {
    const Tensor &t = p.tensors[index];
    return {&t, arena.floats + t.base + t.lead};
}

// 16 x 16 at a time, so that both sides are read and written by whole cache lines.
typedef float v4 __attribute__((vector_size(16)));
typedef float v4u __attribute__((vector_size(16), aligned(4), may_alias));

// Columns of four rows of four become rows.
inline void turn(v4 &a, v4 &b, v4 &c, v4 &d) {
#if defined(__clang__)
#define THR_MIX(x, y, i, j, k, l) __builtin_shufflevector(x, y, i, j, k, l)
#else
    typedef int32_t i4 __attribute__((vector_size(16)));
#define THR_MIX(x, y, i, j, k, l) __builtin_shuffle(x, y, i4{i, j, k, l})
#endif
    const v4 low = THR_MIX(a, b, 0, 4, 1, 5), high = THR_MIX(a, b, 2, 6, 3, 7);
    const v4 lower = THR_MIX(c, d, 0, 4, 1, 5), higher = THR_MIX(c, d, 2, 6, 3, 7);
    a = THR_MIX(low, lower, 0, 1, 4, 5);
    b = THR_MIX(low, lower, 2, 3, 6, 7);
    c = THR_MIX(high, higher, 0, 1, 4, 5);
    d = THR_MIX(high, higher, 2, 3, 6, 7);
#undef THR_MIX
}

// y[j * rows_of_y + i] = x[i * rows_of_x + j] for i < n, j < m, a cache line of each row of y at a time.
void transpose(const float *x, int64_t rows_of_x, float *y, int64_t rows_of_y, int n, int m) {
    const int whole = m / 4 * 4;
    for (int i0 = 0; i0 < n; i0 += 16) {
        const int end = i0 + 16 < n ? i0 + 16 : n, even = i0 + (end - i0) / 4 * 4;
        for (int j = 0; j < whole; j += 4)
            for (int i = i0; i < even; i += 4) {
                v4 rows[4];
                for (int k = 0; k < 4; ++k) rows[k] = *reinterpret_cast<const v4u *>(x + (i + k) * rows_of_x + j);
                turn(rows[0], rows[1], rows[2], rows[3]);
                for (int k = 0; k < 4; ++k) *reinterpret_cast<v4u *>(y + (j + k) * rows_of_y + i) = rows[k];
            }
        for (int j = 0; j < m; ++j)
            for (int i = j < whole ? even : i0; i < end; ++i) y[j * rows_of_y + i] = x[i * rows_of_x + j];
    }
}

void input(const Program &p, const Op &op, Arena &arena, const Call &call, int part, int parts) {
    const View y = view(p, arena, op.ints[0]);
    const float *source = static_cast<const float *>(call.inputs[op.ints[1]]);
    const int64_t *stride = call.input_strides + 4 * op.ints[1];
    const int from = static_cast<int>(share(y.t->c, part, parts)), to = static_cast<int>(share(y.t->c, part + 1, parts));
    const int L = p.lanes, all = p.images * L;
    for (int image = 0; image < all; ++image) {
        const float *x = source + (call.first_image + image) * stride[0];
        const bool there = image < call.count;
        if (there && L == 1 && stride[1] == 1 && stride[3] != 1) {
            for (int row = 0; row < y.t->h; ++row)
                transpose(x + from + row * stride[2], stride[3], y.spot(image, from, row, L), y.t->plane, y.t->w, to - from);
            continue;
        }
        for (int c = from; c < to; ++c)
            for (int row = 0; row < y.t->h; ++row) {
                float *out = y.spot(image, c, row, L);
                const float *in = x + c * stride[1] + row * stride[2];
                if (!there)
                    for (int i = 0; i < y.t->w; ++i) out[i * L] = 0.0f;
                else if (L == 1 && stride[3] == 1) std::memcpy(out, in, sizeof(float) * y.t->w);
                else
                    for (int i = 0; i < y.t->w; ++i) out[i * L] = in[i * stride[3]];
            }
    }
}

void output(const Program &p, const Op &op, Arena &arena, const Call &call, int part, int parts) {
    const View x = view(p, arena, op.ints[0]);
    float *target = static_cast<float *>(call.outputs[op.ints[1]]);
    const int64_t *stride = call.output_strides + 4 * op.ints[1];
    const int from = static_cast<int>(share(x.t->c, part, parts)), to = static_cast<int>(share(x.t->c, part + 1, parts));
    const int L = p.lanes;
    for (int image = 0; image < call.count; ++image) {
        float *y = target + (call.first_image + image) * stride[0];
        if (L == 1 && stride[1] == 1) {
            for (int row = 0; row < x.t->h; ++row)
                transpose(x.spot(image, from, row, L), x.t->plane, y + from + row * stride[2], stride[3], to - from, x.t->w);
            continue;
        }
        for (int c = from; c < to; ++c)
            for (int row = 0; row < x.t->h; ++row) {
                const float *in = x.spot(image, c, row, L);
                float *out = y + c * stride[1] + row * stride[2];
                if (L == 1 && stride[3] == 1) std::memcpy(out, in, sizeof(float) * x.t->w);
                else
                    for (int i = 0; i < x.t->w; ++i) out[i * stride[3]] = in[i * L];
            }
    }
}

int64_t cut(const std::vector<int64_t> &load, int part, int parts) {
    const int64_t goal = share(load.back(), part, parts);
    int64_t low = 0, high = static_cast<int64_t>(load.size()) - 1;
    if (part == parts) return high;
    while (low < high) {
        const int64_t middle = (low + high) / 2;
        if (load[middle] < goal) low = middle + 1;
        else high = middle;
    }
    return low;
}

constexpr int64_t FAR = 1 << 20;  // floats of activations that a second-level cache of today does not hold

ConvCall conv_call(const Program &p, const Op &op, Arena &arena, int64_t first, int64_t last) {
    const View x = view(p, arena, op.ints[0]), y = view(p, arena, op.ints[1]);
    ConvCall c{};
    c.x = x.at;
    c.y = y.at;
    if (op.ints[2] >= 0) {
        const View residual = view(p, arena, op.ints[2]);
        c.residual = residual.at;
        c.residual_plane = residual.t->plane;
    }
    c.low = op.floats[0];
    c.high = op.floats[1];
    c.bias = &op.floats[2];
    c.entries = op.entries.data();
    c.shorts = op.shorts.empty() ? nullptr : op.shorts.data();
    c.bases = op.bases.data();
    c.offsets = op.offsets.data();
    c.values = op.values.data();
    c.starts = op.starts.data();
    c.mask = y.t->mask;
    c.y_plane = y.t->plane;
    c.rows = static_cast<int>(op.ints[4]);
    c.blocks = op.blocks;
    c.tile = op.tile;
    c.row_group = op.row_group;
    c.tile_group = op.tile_group;
    c.activation = static_cast<int>(op.ints[3]);
    c.far = p.arena_floats > FAR;
    c.first_vector = first;
    c.last_vector = last;
    c.first_row = 0;
    c.last_row = c.rows;
    return c;
}

void multiply(const Program &p, const Op &op, Arena &arena, int part, int parts, int64_t first, int64_t last) {
    const ConvCall c = conv_call(p, op, arena, first, last);
    const Tensor &y = p.tensors[op.ints[1]];
    MaskCall m{};
    m.x = c.x;
    m.y = c.y;
    m.residual = c.residual;
    m.bias = c.bias;
    m.masks = reinterpret_cast<const uint64_t *>(op.packed.get());
    m.values = op.packed.get() + op.values_at;
    m.starts = op.value_starts.data();
    const bool flat = is_flat(p, op);
    m.x_plane = flat ? 1 : p.tensors[op.ints[0]].plane;
    m.y_plane = flat ? 1 : c.y_plane;
    m.residual_plane = flat ? 1 : c.residual_plane;
    m.columns = static_cast<int>(op.columns);
    m.words = static_cast<int>((op.columns + 63) / 64);
    m.positions = first < last ? flat ? 1 : p.images * y.h * y.w : 0;
    m.bfloat16 = op.value_bytes == 2;
    m.by_words = op.tile > 1;
    m.activation = c.activation;
    m.low = c.low;
    m.high = c.high;
    m.first_row = static_cast<int>(cut(op.load, part, parts));
    m.last_row = static_cast<int>(cut(op.load, part + 1, parts));
    auto &scratch = arena.scratch[part];
    const size_t need = 256 * static_cast<size_t>(m.words) + 16;
    if (scratch.size() < need) scratch.resize(need);
    m.scratch = scratch.data() + (64 - reinterpret_cast<uintptr_t>(scratch.data()) % 64) % 64 / 4;
    p.kernels->bitmask(m);
}

void convolve(const Program &p, const Op &op, Arena &arena, int part, int parts, int64_t first, int64_t last) {
    if (op.kernel == BITMASK) return multiply(p, op, arena, part, parts, first, last);
    ConvCall c = conv_call(p, op, arena, first, last);
    if (op.split == ROWS && parts > 1) {
        const int unit = op.kernel == SPARSE ? 1 : 4;
        c.first_row = static_cast<int>(cut(op.load, part, parts)) * unit;
        const int64_t end = cut(op.load, part + 1, parts) * unit;
        c.last_row = end < c.rows ? static_cast<int>(end) : c.rows;
    }
    p.kernels->conv(c, op.kernel);
}

// POINT ints: a, b or -1, y, multiply, activation, affine; floats: low, high, scale, shift.
void pointwise(const Program &p, const Op &op, Arena &arena, int64_t first, int64_t last) {
    const View a = view(p, arena, op.ints[0]), y = view(p, arena, op.ints[2]);
    PointCall c{};
    c.a = a.at;
    c.y = y.at;
    c.a_plane = a.t->plane;
    c.y_plane = y.t->plane;
    if (op.ints[1] >= 0) {
        const View b = view(p, arena, op.ints[1]);
        c.b = b.at;
        c.b_plane = b.t->plane;
    }
    c.multiply = static_cast<int>(op.ints[3]);
    c.activation = static_cast<int>(op.ints[4]);
    c.low = op.floats[0];
    c.high = op.floats[1];
    c.channels = y.t->c;
    if (op.ints[5]) {
        c.scale = &op.floats[2];
        c.shift = &op.floats[2 + y.t->c];
    }
    c.mask = y.t->mask;
    c.first_vector = first;
    c.last_vector = last;
    p.kernels->point(c);
}

// NORM ints: x, y, root mean square only; floats: epsilon, weight, bias.
void normalize(const Program &p, const Op &op, Arena &arena, int64_t first, int64_t last) {
    const View x = view(p, arena, op.ints[0]), y = view(p, arena, op.ints[1]);
    p.kernels->norm({x.at, y.at, y.t->mask, &op.floats[1], &op.floats[1 + y.t->c], x.t->plane, y.t->plane, y.t->c,
                     static_cast<int>(op.ints[2]), op.floats[0], first, last});
}

// ATTENTION ints: q, k, v, y, heads, key-value heads; floats: scale, then queries x keys of bias, or none.
void attend(const Program &p, const Op &op, Arena &arena, int part, int parts) {
    const View q = view(p, arena, op.ints[0]), k = view(p, arena, op.ints[1]), v = view(p, arena, op.ints[2]);
    const View y = view(p, arena, op.ints[3]);
    const int heads = static_cast<int>(op.ints[4]), kv_heads = static_cast<int>(op.ints[5]), depth = q.t->c / heads;
    auto &scratch = arena.scratch[part];
    const size_t need = static_cast<size_t>(k.t->w + 1 + depth + 4) * 16;
    if (scratch.size() < need) scratch.resize(need);
    const int64_t work = static_cast<int64_t>(heads) * p.images;
    for (int64_t i = share(work, part, parts); i < share(work, part + 1, parts); ++i) {
        const int image = static_cast<int>(i / heads), head = static_cast<int>(i % heads), kv = head / (heads / kv_heads);
        AttentionCall c{q.spot(image, head * depth, 0, 1), k.spot(image, kv * depth, 0, 1), v.spot(image, kv * depth, 0, 1),
                        y.spot(image, head * depth, 0, 1), scratch.data(), op.floats.size() > 1 ? &op.floats[1] : nullptr,
                        q.t->plane, k.t->plane, v.t->plane, y.t->plane, q.t->w, k.t->w, depth, op.floats[0]};
        p.kernels->attention(c);
    }
}

// POOL ints: x, y, kh, kw, sh, sw, ph, pw, average, include_pad.
void pool(const Program &p, const Op &op, Arena &arena, int part, int parts) {
    const View x = view(p, arena, op.ints[0]), y = view(p, arena, op.ints[1]);
    auto i = [&](int n) { return static_cast<int>(op.ints[n]); };
    auto &scratch = arena.scratch[part];
    const size_t need = static_cast<size_t>(x.t->w + 2 * i(7) + i(3) + 40) * p.lanes;
    if (scratch.size() < need) scratch.resize(need);
    const int64_t work = static_cast<int64_t>(y.t->c) * p.images;
    for (int64_t n = share(work, part, parts); n < share(work, part + 1, parts); ++n) {
        const int64_t c = n % y.t->c;
        const int64_t image = n / y.t->c;
        p.kernels->pool({x.at + c * x.t->plane + image * x.t->image, y.at + c * y.t->plane + image * y.t->image, scratch.data(),
                         x.t->row, y.t->row, x.t->h, x.t->w, y.t->h, y.t->w, i(2), i(3), i(4), i(5), i(6), i(7), p.lanes,
                         i(8), i(9)});
    }
}

// MEAN ints: x, y: over all positions of each picture.
void mean(const Program &p, const Op &op, Arena &arena, int part, int parts) {
    const View x = view(p, arena, op.ints[0]), y = view(p, arena, op.ints[1]);
    const int L = p.lanes, width = x.t->w * L;
    const float scale = 1.0f / (static_cast<float>(x.t->h) * x.t->w);
    for (int64_t c = share(y.t->c, part, parts); c < share(y.t->c, part + 1, parts); ++c)
        for (int image = 0; image < p.images; ++image) {
            float sums[16] = {};
            for (int row = 0; row < x.t->h; ++row) {
                const float *in = x.at + c * x.t->plane + image * x.t->image + row * x.t->row;
                int i = 0;
                for (; i + 16 <= width; i += 16)
                    for (int l = 0; l < 16; ++l) sums[l] += in[i + l];
                for (int l = 0; i + l < width; ++l) sums[l] += in[i + l];
            }
            float *out = y.at + c * y.t->plane + image * y.t->image;
            if (L == 16) {
                for (int l = 0; l < 16; ++l) out[l] = sums[l] * scale;
            } else {
                float total = 0.0f;
                for (float sum : sums) total += sum;
                out[0] = total * scale;
            }
        }
}

// PHASES ints: x, y, sh, sw, number, then row and column of each phase. Plane c * number + i of y is every sh-th row and
// sw-th column of plane c of x from phase i on. Planes from..to-1; `out` is where plane `from` goes.
void phases_of(const Program &p, const Op &op, Arena &arena, int64_t from, int64_t to, float *out) {
    const View x = view(p, arena, op.ints[0]);
    const Tensor &y = p.tensors[op.ints[1]];
    const int sh = static_cast<int>(op.ints[2]), sw = static_cast<int>(op.ints[3]), n = static_cast<int>(op.ints[4]);
    for (int64_t c = from; c < to; ++c, out += y.plane) {
        const int py = static_cast<int>(op.ints[5 + 2 * (c % n)]), px = static_cast<int>(op.ints[6 + 2 * (c % n)]);
        const int wide = (x.t->w - px + sw - 1) / sw, width = wide < y.w ? wide : y.w;
        const int high = (x.t->h - py + sh - 1) / sh;
        for (int image = 0; image < p.images; ++image)
            p.kernels->phase({x.at + (c / n) * x.t->plane + image * x.t->image + py * x.t->row + px * p.lanes,
                              out + image * y.image, sh * x.t->row, y.row, high, y.h, width, y.w, sw, p.lanes});
    }
}

void phases(const Program &p, const Op &op, Arena &arena, int part, int parts) {
    const View y = view(p, arena, op.ints[1]);
    const int64_t from = share(y.t->c, part, parts);
    phases_of(p, op, arena, from, share(y.t->c, part + 1, parts), y.at + from * y.t->plane);
}

// COPY ints: x, y, first channel, row, column in x, the same in y, then how many of each.
void copy(const Program &p, const Op &op, Arena &arena, int part, int parts) {
    const View x = view(p, arena, op.ints[0]), y = view(p, arena, op.ints[1]);
    const int64_t *i = op.ints.data();
    for (int64_t c = share(i[8], part, parts); c < share(i[8], part + 1, parts); ++c)
        for (int image = 0; image < p.images; ++image)
            for (int64_t row = 0; row < i[9]; ++row)
                std::memcpy(y.at + (i[5] + c) * y.t->plane + image * y.t->image + (i[6] + row) * y.t->row + i[7] * p.lanes,
                            x.at + (i[2] + c) * x.t->plane + image * x.t->image + (i[3] + row) * x.t->row + i[4] * p.lanes,
                            sizeof(float) * i[10] * p.lanes);
}

// RESHAPE ints: x, y: the same numbers in the order channel, row, column, under another shape.
void reshape(const Program &p, const Op &op, Arena &arena, int part, int parts) {
    const View x = view(p, arena, op.ints[0]), y = view(p, arena, op.ints[1]);
    const int64_t row_y = y.t->w, plane_y = row_y * y.t->h;
    for (int64_t c = share(x.t->c, part, parts); c < share(x.t->c, part + 1, parts); ++c)
        for (int image = 0; image < p.images; ++image)
            for (int row = 0; row < x.t->h; ++row) {
                const float *in = x.at + c * x.t->plane + image * x.t->image + row * x.t->row;
                int64_t at = (c * x.t->h + row) * x.t->w;
                for (int i = 0; i < x.t->w;) {
                    const int64_t column = at % row_y;
                    const int n = static_cast<int>(row_y - column < x.t->w - i ? row_y - column : x.t->w - i);
                    std::memcpy(y.at + at / plane_y * y.t->plane + image * y.t->image + at % plane_y / row_y * y.t->row +
                                    column * p.lanes,
                                in + static_cast<int64_t>(i) * p.lanes, sizeof(float) * n * p.lanes);
                    at += n;
                    i += n;
                }
            }
}

// SCALE ints: x, s, y: y = x s, with one number of s for each channel of each picture.
void scale(const Program &p, const Op &op, Arena &arena, int part, int parts) {
    const View x = view(p, arena, op.ints[0]), s = view(p, arena, op.ints[1]), y = view(p, arena, op.ints[2]);
    const int L = p.lanes;
    for (int64_t c = share(y.t->c, part, parts); c < share(y.t->c, part + 1, parts); ++c)
        for (int image = 0; image < p.images; ++image) {
            const float *factor = s.at + c * s.t->plane + image * s.t->image;
            for (int row = 0; row < y.t->h; ++row) {
                const float *in = x.at + c * x.t->plane + image * x.t->image + row * x.t->row;
                float *out = y.at + c * y.t->plane + image * y.t->image + row * y.t->row;
                if (L == 1)
                    for (int i = 0; i < y.t->w; ++i) out[i] = in[i] * factor[0];
                else
                    for (int i = 0; i < y.t->w * 16; ++i) out[i] = in[i] * factor[i & 15];
            }
        }
}

}  // namespace

bool is_depthwise_pair(const Program &p, const Op &phases, const Op &conv) {
    return phases.kind == PHASES && conv.kind == CONV && conv.ints[0] == phases.ints[1] && conv.kernel == SPARSE &&
           conv.blocks == 1 && conv.ints[5] == 1 && conv.ints[4] == conv.ints[6] &&
           p.tensors[phases.ints[1]].c == conv.ints[4] * phases.ints[4];
}

void run_depthwise_pair(const Program &p, const Op &phases, const Op &conv, Arena &arena, int part, int parts) {
    constexpr int64_t AT_ONCE = 4;
    const Tensor &t = p.tensors[phases.ints[1]];
    const int64_t n = phases.ints[4];
    std::vector<float> *ring;
    {
        std::lock_guard<std::mutex> guard(arena.mutex);
        ring = &arena.rings[{&phases, part}];
    }
    // Zero from the start, and only pictures are written: the pads stay zero.
    if (ring->empty()) ring->assign(static_cast<size_t>(AT_ONCE * n * t.plane + 2 * t.lead + 96), 0.0f);
    float *start = ring->data() + (64 - reinterpret_cast<uintptr_t>(ring->data()) % 64) % 64 / 4 + t.lead;
    ConvCall c = conv_call(p, conv, arena, 0, vectors_of(p, conv));
    const int64_t from = share(c.rows, part, parts), to = share(c.rows, part + 1, parts);
    for (int64_t row = from; row < to; row += AT_ONCE) {
        const int64_t end = row + AT_ONCE < to ? row + AT_ONCE : to;
        phases_of(p, phases, arena, row * n, end * n, start);
        for (int64_t r = row; r < end; ++r) {
            // Offsets of row r count from plane 0 of the whole tensor; its first plane is plane (r - row) n of the ring.
            c.x = reinterpret_cast<const float *>(reinterpret_cast<uintptr_t>(start) -
                                                  static_cast<uintptr_t>(4 * row * n * t.plane));
            c.first_row = static_cast<int>(r);
            c.last_row = static_cast<int>(r) + 1;
            c.row_group = 1;
            c.tile_group = 1 << 20;
            p.kernels->conv(c, conv.kernel);
        }
    }
}

bool works_on_ranges(const Op &op) { return op.kind == CONV || op.kind == POINT || op.kind == NORM; }

int64_t vectors_of(const Program &p, const Op &op) {
    return p.tensors[op.kind == POINT ? op.ints[2] : op.ints[1]].vectors;
}

void run_op(const Program &p, const Op &op, Arena &arena, const Call &call, int part, int parts, int64_t first, int64_t last) {
    switch (op.kind) {
        case INPUT: return input(p, op, arena, call, part, parts);
        case OUTPUT: return output(p, op, arena, call, part, parts);
        case CONV: return convolve(p, op, arena, part, parts, first, last);
        case POINT: return pointwise(p, op, arena, first, last);
        case NORM: return normalize(p, op, arena, first, last);
        case ATTENTION: return attend(p, op, arena, part, parts);
        case POOL: return pool(p, op, arena, part, parts);
        case MEAN: return mean(p, op, arena, part, parts);
        case PHASES: return phases(p, op, arena, part, parts);
        case COPY: return copy(p, op, arena, part, parts);
        case RESHAPE: return reshape(p, op, arena, part, parts);
        case SCALE: return scale(p, op, arena, part, parts);
    }
}

}  // namespace thr
