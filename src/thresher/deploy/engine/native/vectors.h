// Vectors of VL floats through compiler extensions, and the activation functions on them.
#pragma once
#include <cstring>
#if defined(__AVX2__)
#include <immintrin.h>
#endif
// By the width of a vector, too: a compiler may have these instructions switched on for the narrow copies as well.
#if THR_VL == 16 && defined(__AVX512F__)
#define THR_AVX512
#elif THR_VL == 8 && defined(__AVX2__)
#define THR_AVX2
#endif
#include "engine.h"

namespace {

constexpr int VL = THR_VL;
typedef float vf __attribute__((vector_size(THR_VL * 4)));
typedef int32_t vi __attribute__((vector_size(THR_VL * 4)));
typedef float vfu __attribute__((vector_size(THR_VL * 4), aligned(4), may_alias));

#define THR_INLINE static inline __attribute__((always_inline))
#define THR_INLINE_MEMBER inline __attribute__((always_inline))

THR_INLINE vf load(const float *p) { return *reinterpret_cast<const vfu *>(p); }
THR_INLINE void store(float *p, vf v) { *reinterpret_cast<vfu *>(p) = v; }
THR_INLINE vf splat(float s) { return s - vf{}; }
THR_INLINE vi splat_int(int32_t s) { return s - vi{}; }

#if THR_VL == 16
constexpr vi LANE_BITS = {1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384, 32768};
#elif THR_VL == 8
constexpr vi LANE_BITS = {1, 2, 4, 8, 16, 32, 64, 128};
#else
constexpr vi LANE_BITS = {1, 2, 4, 8};
#endif

// `v` where the mask of its position has a bit, 0 in the pads (bitwise, so that NaN in a pad is 0 too).
THR_INLINE vf masked(vf v, const uint16_t *mask, int64_t vector) {
#if defined(THR_AVX512)
    return _mm512_maskz_mov_ps(mask[vector], v);
#else
    const int64_t lane = vector * VL;
    const int32_t bits = mask[lane >> 4] >> (lane & 15);
    const vi keep = (splat_int(bits) & LANE_BITS) != 0;
    return reinterpret_cast<vf>(reinterpret_cast<vi>(v) & keep);
#endif
}

THR_INLINE vf relu(vf v) {  // NaN stays
#if defined(THR_AVX512)
    return _mm512_max_ps(vf{}, v);
#elif defined(THR_AVX2)
    return _mm256_max_ps(vf{}, v);
#else
    return v < vf{} ? vf{} : v;
#endif
}

THR_INLINE vf clamp(vf v, float low, float high) {  // NaN stays
    v = v < splat(low) ? splat(low) : v;
    return v > splat(high) ? splat(high) : v;
}

// e^v for v in [-87, 88]; beyond, the value at the end. Taylor to degree 7 after taking out powers of two.
THR_INLINE vf exponential(vf v) {
    v = clamp(v, -87.0f, 88.0f);
    const float magic = 12582912.0f;  // 1.5 * 2^23: adding it rounds to a whole number in the low bits
    const vf t = v * 1.44269504f + magic;
    const vi n = reinterpret_cast<vi>(t) - 0x4b400000;
    const vf whole = t - magic;
    vf r = v - whole * 0.693359375f;
    r = r - whole * -2.12194440e-4f;
    vf p = splat(1.0f / 5040);
    p = p * r + 1.0f / 720;
    p = p * r + 1.0f / 120;
    p = p * r + 1.0f / 24;
    p = p * r + 1.0f / 6;
    p = p * r + 0.5f;
    p = p * r + 1.0f;
    p = p * r + 1.0f;
    return p * reinterpret_cast<vf>((n + 127) << 23);
}

THR_INLINE vf sigmoid(vf v) { return 1.0f / (1.0f + exponential(-v)); }

#include "gelu.h"

THR_INLINE vf activate(vf v, int activation, float low, float high) {
    switch (activation) {
        case thr::RELU: return relu(v);
        case thr::CLAMP: return clamp(v, low, high);
        case thr::SILU: return v * sigmoid(v);
        case thr::GELU: return gelu(v);
        case thr::GELU_TANH: return v * sigmoid(v * (1.5957691216f + 0.07135481283f * v * v));
        case thr::HARDSWISH: return v * clamp(v * (1.0f / 6) + 0.5f, 0.0f, 1.0f);
        case thr::HARDSIGMOID: return clamp(v * (1.0f / 6) + 0.5f, 0.0f, 1.0f);
        case thr::SIGMOID: return sigmoid(v);
        case thr::TANH: return 2.0f * sigmoid(v * 2.0f) - 1.0f;
        default: return v;
    }
}

}  // namespace
