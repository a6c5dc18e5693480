// Everything that is not a convolution: elementwise, layer norm, attention, pooling.
#pragma once
#include "vectors.h"

namespace {

void point(const thr::PointCall &c) {
    const int64_t begin = c.first_vector * 16 / VL, end = c.last_vector * 16 / VL;
    for (int channel = 0; channel < c.channels; ++channel) {
        const float *a = c.a + channel * c.a_plane;
        const float *b = c.b ? c.b + channel * c.b_plane : nullptr;
        float *y = c.y + channel * c.y_plane;
        const vf scale = splat(c.scale ? c.scale[channel] : 1.0f), shift = splat(c.shift ? c.shift[channel] : 0.0f);
        for (int64_t v = begin; v < end; ++v) {
            vf value = load(a + v * VL);
            if (b) value = c.multiply ? value * load(b + v * VL) : value + load(b + v * VL);
            if (c.scale) value = value * scale + shift;
            if (c.activation != thr::NONE) value = activate(value, c.activation, c.low, c.high);
            store(y + v * VL, masked(value, c.mask, v));
        }
    }
}

// Mean and variance over the channels of each position; two passes, as the shifted one pass loses digits.
void norm(const thr::NormCall &c) {
    const int64_t begin = c.first_vector * 16 / VL, end = c.last_vector * 16 / VL;
    const float share = 1.0f / c.channels;
    for (int64_t v = begin; v < end; ++v) {
        const float *x = c.x + v * VL;
        float *y = c.y + v * VL;
        vf sum[4] = {};
        int k = 0;
        vf mean = {};
        if (!c.rms) {
            for (; k + 4 <= c.channels; k += 4)
                for (int u = 0; u < 4; ++u) sum[u] += load(x + (k + u) * c.x_plane);
            for (; k < c.channels; ++k) sum[0] += load(x + k * c.x_plane);
            mean = (sum[0] + sum[1] + sum[2] + sum[3]) * share;
        }
        vf square[4] = {};
        for (k = 0; k + 4 <= c.channels; k += 4)
            for (int u = 0; u < 4; ++u) {
                const vf d = load(x + (k + u) * c.x_plane) - mean;
                square[u] += d * d;
            }
        for (; k < c.channels; ++k) {
            const vf d = load(x + k * c.x_plane) - mean;
            square[0] += d * d;
        }
        const vf variance = (square[0] + square[1] + square[2] + square[3]) * share + c.epsilon;
        vf scale;
        for (int i = 0; i < VL; ++i) scale[i] = 1.0f / __builtin_sqrtf(variance[i]);
        for (k = 0; k < c.channels; ++k) {
            const vf value = (load(x + k * c.x_plane) - mean) * scale * c.weight[k] + c.bias[k];
            store(y + k * c.y_plane, masked(value, c.mask, v));
        }
    }
}

// 16 queries at a time in the lanes; keys four at a time, so that one load of a query serves four.
void attention(const thr::AttentionCall &c) {
    constexpr int Q = 16 / VL;
    float *scores = c.scratch;                     // keys x 16
    float *queries = scores + (c.keys + 1) * 16;   // depth x 16, and later the output
    for (int first = 0; first < c.queries; first += 16) {
        const int count = c.queries - first < 16 ? c.queries - first : 16;
        for (int d = 0; d < c.depth; ++d) {
            for (int i = 0; i < 16; ++i) queries[d * 16 + i] = i < count ? c.q[d * c.q_plane + first + i] * c.scale : 0.0f;
        }
        vf top[Q];
        for (int h = 0; h < Q; ++h) top[h] = splat(-3.0e38f);
        for (int key = 0; key < c.keys; key += 4) {
            const int now = c.keys - key < 4 ? c.keys - key : 4;
            vf sum[4][Q] = {};
            const float *k = c.k + key;
            for (int d = 0; d < c.depth; ++d, k += c.k_plane)
                for (int r = 0; r < 4; ++r) {
                    const vf w = splat(k[r < now ? r : 0]);
                    for (int h = 0; h < Q; ++h) sum[r][h] += w * load(queries + d * 16 + h * VL);
                }
            for (int r = 0; r < now; ++r)
                for (int h = 0; h < Q; ++h) {
                    if (c.bias)
                        for (int i = 0; i < VL; ++i)
                            if (h * VL + i < count)
                                sum[r][h][i] += c.bias[static_cast<int64_t>(first + h * VL + i) * c.keys + key + r];
                    store(scores + (key + r) * 16 + h * VL, sum[r][h]);
                    top[h] = sum[r][h] > top[h] ? sum[r][h] : top[h];
                }
        }
        vf total[Q] = {};
        for (int key = 0; key < c.keys; ++key)
            for (int h = 0; h < Q; ++h) {
                const vf e = exponential(load(scores + key * 16 + h * VL) - top[h]);
                store(scores + key * 16 + h * VL, e);
                total[h] += e;
            }
        for (int h = 0; h < Q; ++h) total[h] = 1.0f / total[h];
        for (int d = 0; d < c.depth; d += 4) {
            const int now = c.depth - d < 4 ? c.depth - d : 4;
            vf sum[4][Q] = {};
            for (int key = 0; key < c.keys; ++key)
                for (int r = 0; r < 4; ++r) {
                    const vf w = splat(c.v[(d + (r < now ? r : 0)) * c.v_plane + key]);
                    for (int h = 0; h < Q; ++h) sum[r][h] += w * load(scores + key * 16 + h * VL);
                }
            for (int r = 0; r < now; ++r)
                for (int h = 0; h < Q; ++h) store(queries + (d + r) * 16 + h * VL, sum[r][h] * total[h]);
        }
        for (int d = 0; d < c.depth; ++d)
            std::memcpy(c.y + d * c.y_plane + first, queries + d * 16, sizeof(float) * count);
    }
}

#if THR_VL == 16
#define THR_EVEN 0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30
#elif THR_VL == 8
#define THR_EVEN 0, 2, 4, 6, 8, 10, 12, 14
#else
#define THR_EVEN 0, 2, 4, 6
#endif

// Every second float of two vectors in a row.
THR_INLINE vf evens(vf low, vf high) {
#if defined(__clang__)
    return __builtin_shufflevector(low, high, THR_EVEN);
#else
    return __builtin_shuffle(low, high, vi{THR_EVEN});
#endif
}

THR_INLINE vf evens(const float *p) { return evens(load(p), load(p + VL)); }

// The first n lanes of `v`, VL at most.
THR_INLINE void store_some(float *p, vf v, int n) {
#if defined(THR_AVX512)
    _mm512_mask_storeu_ps(p, static_cast<__mmask16>((1u << n) - 1), v);
#else
    for (int i = 0; i < n; ++i) p[i] = v[i];
#endif
}

// p[0], p[2], ..., p[2n - 2] to y, n from 1 to VL; nothing behind them is read.
THR_INLINE void some_evens(const float *p, float *y, int n) {
#if defined(THR_AVX512)
    const uint32_t span = (1u << (2 * n - 1)) - 1;
    const vf low = _mm512_maskz_loadu_ps(static_cast<__mmask16>(span), p);
    const vf high = _mm512_maskz_loadu_ps(static_cast<__mmask16>(span >> 16), p + VL);
    store_some(y, evens(low, high), n);
#else
    for (int i = 0; i < n; ++i) y[i] = p[2 * i];
#endif
}

THR_INLINE void gather(const float *x, float *y, int n, int step, int lanes) {
    if (step == 1) {
        std::memcpy(y, x, sizeof(float) * n * lanes);
    } else if (lanes == 16) {
        for (int i = 0; i < n; ++i) std::memcpy(y + i * 16, x + static_cast<int64_t>(i) * step * 16, 64);
    } else if (step == 2) {
        int i = 0;
        for (; i + VL <= n - 1; i += VL) store(y + i, evens(x + 2 * i));
        for (; i < n; i += VL) some_evens(x + 2 * i, y + i, n - i < VL ? n - i : VL);
    } else {
        for (int i = 0; i < n; ++i) y[i] = x[i * step];
    }
}

void phase(const thr::PhaseCall &c) {
    for (int row = 0; row < c.h; ++row) {
        float *y = c.y + row * c.y_row;
        const int there = row < c.rows ? c.columns : 0;
        if (there > 0) gather(c.x + row * c.x_row, y, there, c.step, c.lanes);
        for (int i = there * c.lanes; i < c.w * c.lanes; ++i) y[i] = 0.0f;
    }
}

THR_INLINE vf larger(vf a, vf b) { return ((b > a) | (b != b)) ? b : a; }  // NaN stays

// One plane: first down the columns into a padded row, then along the row.
void pool(const thr::PoolCall &c) {
    const int lanes = c.lanes, width = c.w * lanes, padded = (c.w + 2 * c.pw + c.kw + 36) * lanes;  // and what a vector reads past the end
    const float outside = c.average ? 0.0f : -__builtin_inff();
    float *const row = c.buffer + c.pw * lanes;
    for (int i = 0; i < padded; ++i) c.buffer[i] = outside;
    for (int oy = 0; oy < c.oh; ++oy) {
        const int top = oy * c.sh - c.ph;
        const int first = top < 0 ? 0 : top, last = top + c.kh < c.h ? top + c.kh : c.h;
        for (int y = first; y < last; ++y) {
            const float *x = c.x + y * c.x_row;
            if (y == first) std::memcpy(row, x, sizeof(float) * width);
            else if (c.average)
                for (int i = 0; i < width; ++i) row[i] += x[i];
            else {
                int i = 0;
                for (; i + VL <= width; i += VL) store(row + i, larger(load(row + i), load(x + i)));
                for (; i < width; ++i) row[i] = x[i] > row[i] || x[i] != x[i] ? x[i] : row[i];
            }
        }
        if (first >= last) for (int i = 0; i < width; ++i) row[i] = outside;
        float *out = c.y + oy * c.y_row;
        const int high = top + c.kh < c.h + c.ph ? top + c.kh : c.h + c.ph;  // rows that count when pads do
        for (int l = 0; l < lanes; ++l) {
            const float *in = c.buffer + l;
            if (!c.average && c.kw == 3 && c.sw == 2 && lanes == 1) {
                for (int ox = 0; ox < c.ow; ox += VL) {
                    const float *p = in + 2 * ox;
                    const vf most = larger(larger(evens(p), evens(p + 1)), evens(p + 2));
                    if (ox + VL <= c.ow) store(out + ox, most);
                    else store_some(out + ox, most, c.ow - ox);
                }
                continue;
            }
            for (int ox = 0; ox < c.ow; ++ox) {
                const int left = ox * c.sw - c.pw;
                float value = in[(left + c.pw) * lanes];
                for (int k = 1; k < c.kw; ++k) {
                    const float next = in[(left + c.pw + k) * lanes];
                    if (c.average) value += next;
                    else value = next > value || next != next ? next : value;
                }
                if (c.average) {
                    const int x0 = left < 0 ? 0 : left, x1 = left + c.kw < c.w ? left + c.kw : c.w;
                    const int wide = left + c.kw < c.w + c.pw ? left + c.kw : c.w + c.pw;
                    value /= c.include_pad ? (high - top) * (wide - left) : (last - first) * (x1 - x0);
                }
                out[ox * lanes + l] = value;
            }
        }
    }
}

}  // namespace
