// The product for few positions, such as decoding token by token: bound by memory, so the weight is a bit for each entry
// and the nonzero values, read once from front to back; values are spread to their lanes in registers.
#pragma once
#include "vectors.h"
#if THR_VL >= 8
#include <immintrin.h>
#endif

namespace {

using thr::MaskCall;

typedef float Sums[16];  // of 16 rows, for one position

THR_INLINE float number(float v) { return v; }
THR_INLINE float number(uint16_t v) {  // bfloat16: the upper half of a float
    const uint32_t bits = static_cast<uint32_t>(v) << 16;
    float found;
    std::memcpy(&found, &bits, 4);
    return found;
}

// The processor's own prefetching stops at each page; without this one core reads a quarter (50 % zeros) to two fifths
// (80 %) slower.
THR_INLINE void ahead(const void *values, const void *mask) {
    __builtin_prefetch(static_cast<const char *>(values) + 3072);
    __builtin_prefetch(static_cast<const char *>(mask) + 1024);
}

#if THR_VL == 16

THR_INLINE __m512 spread(uint32_t mask, const float *v) {
    return _mm512_maskz_expand_ps(static_cast<__mmask16>(mask), _mm512_loadu_ps(v));
}
THR_INLINE __m512 spread(uint32_t mask, const uint16_t *v) {
    const __m512i wide = _mm512_cvtepu16_epi32(_mm256_loadu_si256(reinterpret_cast<const __m256i *>(v)));
    return _mm512_castsi512_ps(_mm512_maskz_expand_epi32(static_cast<__mmask16>(mask), _mm512_slli_epi32(wide, 16)));
}

template <int P, typename V>
void rows_of(const MaskCall &c, const float *x, int64_t stride, int first, int last, Sums *sums) {
    for (int row = first; row < last; ++row) {
        const uint64_t *mask = c.masks + static_cast<int64_t>(row) * c.words;
        const V *v = static_cast<const V *>(c.values) + c.starts[row];
        __m512 sum[P][2] = {};
        for (int w = 0; w < c.words; ++w) {
            const uint64_t bits = mask[w];
            ahead(v, mask + w);
#pragma GCC unroll 4
            for (int q = 0; q < 4; ++q) {
                const uint32_t part = static_cast<uint32_t>(bits >> (16 * q)) & 0xffff;
                const __m512 value = spread(part, v);
                v += __builtin_popcount(part);
#pragma GCC unroll 4
                for (int p = 0; p < P; ++p)
                    sum[p][q & 1] = _mm512_fmadd_ps(value, _mm512_loadu_ps(x + p * stride + 64 * w + 16 * q), sum[p][q & 1]);
            }
        }
        for (int p = 0; p < P; ++p) sums[p][row - first] = _mm512_reduce_add_ps(_mm512_add_ps(sum[p][0], sum[p][1]));
    }
}

// 32 words at once; the even ones come out in the lower halves of 32-bit lanes, the odd ones in the upper.
template <int P>
__attribute__((target("avx512vbmi2"))) void rows_by_words(const MaskCall &c, const float *x, int64_t stride, int first,
                                                          int last, Sums *sums) {
    const __m512i upper = _mm512_set1_epi32(static_cast<int>(0xffff0000u));
    for (int row = first; row < last; ++row) {
        const uint64_t *mask = c.masks + static_cast<int64_t>(row) * c.words;
        const uint16_t *v = static_cast<const uint16_t *>(c.values) + c.starts[row];
        __m512 sum[P][2] = {};
        for (int w = 0; w < c.words; ++w) {
            const uint64_t bits = mask[w];
            ahead(v, mask + w);
#pragma GCC unroll 2
            for (int q = 0; q < 2; ++q) {
                const uint32_t part = static_cast<uint32_t>(bits >> (32 * q));
                const __m512i both = _mm512_maskz_expand_epi16(part, _mm512_loadu_si512(v));
                const __m512 even = _mm512_castsi512_ps(_mm512_slli_epi32(both, 16));
                const __m512 odd = _mm512_castsi512_ps(_mm512_and_si512(both, upper));
                v += __builtin_popcount(part);
#pragma GCC unroll 4
                for (int p = 0; p < P; ++p) {
                    const float *at = x + p * stride + 64 * w + 32 * q;
                    sum[p][0] = _mm512_fmadd_ps(even, _mm512_loadu_ps(at), sum[p][0]);
                    sum[p][1] = _mm512_fmadd_ps(odd, _mm512_loadu_ps(at + 16), sum[p][1]);
                }
            }
        }
        for (int p = 0; p < P; ++p) sums[p][row - first] = _mm512_reduce_add_ps(_mm512_add_ps(sum[p][0], sum[p][1]));
    }
}

bool has_words() {
    static const bool has = __builtin_cpu_supports("avx512vbmi2");
    return has;
}

#elif THR_VL == 8

// Where the values of 8 entries go: byte shuffles for 16-bit values, lane numbers (negative: none) for floats.
struct Spread {
    uint8_t bytes[256][32];
    int8_t lanes[256][8];
};
constexpr Spread spreads() {
    Spread s{};
    for (int mask = 0; mask < 256; ++mask) {
        int rank = 0;
        for (int i = 0; i < 8; ++i) {
            const bool there = mask >> i & 1;
            s.lanes[mask][i] = static_cast<int8_t>(there ? rank : -128);
            for (int b = 0; b < 4; ++b)
                s.bytes[mask][4 * i + b] = static_cast<uint8_t>(there && b >= 2 ? 2 * rank + b - 2 : 128);
            rank += there;
        }
    }
    return s;
}
constexpr Spread SPREADS = spreads();

THR_INLINE __m256 spread(uint32_t mask, const uint16_t *v) {
    const __m256i eight = _mm256_broadcastsi128_si256(_mm_loadu_si128(reinterpret_cast<const __m128i *>(v)));
    const __m256i order = _mm256_loadu_si256(reinterpret_cast<const __m256i *>(SPREADS.bytes[mask]));
    return _mm256_castsi256_ps(_mm256_shuffle_epi8(eight, order));
}
THR_INLINE __m256 spread(uint32_t mask, const float *v) {
    const __m256i lanes = _mm256_cvtepi8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i *>(SPREADS.lanes[mask])));
    const __m256 moved = _mm256_permutevar8x32_ps(_mm256_loadu_ps(v), lanes);
    return _mm256_blendv_ps(moved, _mm256_setzero_ps(), _mm256_castsi256_ps(lanes));
}

template <int P, typename V>
void rows_of(const MaskCall &c, const float *x, int64_t stride, int first, int last, Sums *sums) {
    for (int row = first; row < last; ++row) {
        const uint64_t *mask = c.masks + static_cast<int64_t>(row) * c.words;
        const V *v = static_cast<const V *>(c.values) + c.starts[row];
        __m256 sum[P][2] = {};
        for (int w = 0; w < c.words; ++w) {
            const uint64_t bits = mask[w];
            ahead(v, mask + w);
#pragma GCC unroll 8
            for (int q = 0; q < 8; ++q) {
                const uint32_t part = static_cast<uint32_t>(bits >> (8 * q)) & 0xff;
                const __m256 value = spread(part, v);
                v += __builtin_popcount(part);
#pragma GCC unroll 4
                for (int p = 0; p < P; ++p)
                    sum[p][q & 1] = _mm256_fmadd_ps(value, _mm256_loadu_ps(x + p * stride + 64 * w + 8 * q), sum[p][q & 1]);
            }
        }
        for (int p = 0; p < P; ++p) {
            const vf both = reinterpret_cast<vf>(_mm256_add_ps(sum[p][0], sum[p][1]));
            float total = 0.0f;
            for (int i = 0; i < VL; ++i) total += both[i];
            sums[p][row - first] = total;
        }
    }
}

#else

template <int P, typename V>
void rows_of(const MaskCall &c, const float *x, int64_t stride, int first, int last, Sums *sums) {
    for (int row = first; row < last; ++row) {
        const uint64_t *mask = c.masks + static_cast<int64_t>(row) * c.words;
        const V *v = static_cast<const V *>(c.values) + c.starts[row];
        float sum[P] = {};
        for (int w = 0; w < c.words; ++w)
            for (uint64_t bits = mask[w]; bits; bits &= bits - 1, ++v) {
                const float value = number(*v);
                const float *at = x + 64 * w + __builtin_ctzll(bits);
                for (int p = 0; p < P; ++p) sum[p] += value * at[p * stride];
            }
        for (int p = 0; p < P; ++p) sums[p][row - first] = sum[p];
    }
}

#endif

// Bias, residual and activation of `count` rows at one position.
THR_INLINE void finish_rows(const MaskCall &c, float *sums, int row, int count, int position) {
    for (int i = 0; i < count; ++i) sums[i] += c.bias[row + i];
    if (c.residual)
        for (int i = 0; i < count; ++i) sums[i] += c.residual[(row + i) * c.residual_plane + position];
    if (c.activation != thr::NONE)
        for (int i = 0; i < 16; i += VL) store(sums + i, activate(load(sums + i), c.activation, c.low, c.high));
    for (int i = 0; i < count; ++i) c.y[(row + i) * c.y_plane + position] = sums[i];
}

template <int P>
void positions_of(const MaskCall &c, int position, bool apart) {
    const int64_t stride = 64 * static_cast<int64_t>(c.words);
    for (int p = 0; p < P; ++p) {
        float *x = c.scratch + p * stride;
        for (int64_t i = c.columns; i < stride; ++i) x[i] = 0.0f;
        if (apart)  // the zeros after the last column lie elsewhere, too
            for (int64_t i = c.columns / 32 * 32; i < stride; ++i) x[i] = 0.0f;
        const float *from = c.x + position + p;
        for (int64_t i = 0; i < c.columns; ++i)
            x[apart ? (i & ~31) + (i & 1) * 16 + (i & 31) / 2 : i] = from[i * c.x_plane];
    }
    for (int row = c.first_row; row < c.last_row; row += 16) {
        const int count = c.last_row - row < 16 ? c.last_row - row : 16;
        Sums sums[P] = {};
#if THR_VL == 16
        if (apart) rows_by_words<P>(c, c.scratch, stride, row, row + count, sums);
        else
#endif
            if (c.bfloat16) rows_of<P, uint16_t>(c, c.scratch, stride, row, row + count, sums);
            else rows_of<P, float>(c, c.scratch, stride, row, row + count, sums);
        if (position == 0 && c.y_plane > 1)  // the pads after the positions
            for (int i = 0; i < count; ++i) std::memset(c.y + (row + i) * c.y_plane, 0, 64);
        for (int p = 0; p < P; ++p) finish_rows(c, sums[p], row, count, position + p);
    }
}

void bitmask(const MaskCall &c) {
    bool apart = false;
#if THR_VL == 16
    apart = c.bfloat16 && c.by_words && has_words();
#endif
    for (int at = 0; at < c.positions;) {
        switch (c.positions - at) {
            case 1: positions_of<1>(c, at, apart); at += 1; break;
            case 2: positions_of<2>(c, at, apart); at += 2; break;
            case 3: positions_of<3>(c, at, apart); at += 3; break;
            default: positions_of<4>(c, at, apart); at += 4;
        }
    }
}

}  // namespace
