// One sparse product in several forms of its weights: what a nonzero is, and how its offset is written.
//
// y[row][16 * V positions] = sum over the row's units of weight x input. A unit is one channel in float32, two in bfloat16
// or four in 8 bits, whose inputs lie interleaved, so that one instruction does all of them at 16 positions.
#include <immintrin.h>
#include <cstdint>

namespace {

struct Float {
    typedef __m512 Sum;
    static Sum zero() { return _mm512_setzero_ps(); }
    static Sum add(Sum sum, __m512i x, __m512i w) {
        return _mm512_fmadd_ps(_mm512_castsi512_ps(x), _mm512_castsi512_ps(w), sum);
    }
};

struct Bfloat {
    typedef __m512 Sum;
    static Sum zero() { return _mm512_setzero_ps(); }
    static Sum add(Sum sum, __m512i x, __m512i w) {
        return _mm512_dpbf16_ps(sum, reinterpret_cast<__m512bh>(x), reinterpret_cast<__m512bh>(w));
    }
};

struct Int8 {
    typedef __m512i Sum;
    static Sum zero() { return _mm512_setzero_si512(); }
    static Sum add(Sum sum, __m512i x, __m512i w) { return _mm512_dpbusd_epi32(sum, x, w); }
};

// 16-bit offsets count lines of 64 bytes.
inline int64_t bytes_of(int32_t offset) { return offset; }
inline int64_t bytes_of(uint16_t offset) { return static_cast<int64_t>(offset) << 6; }

template <class Form, class Offset, int V>
void rows_of(const int32_t *values, const Offset *offsets, const uint32_t *starts, int rows, int blocks, const char *x, char *y) {
    typedef typename Form::Sum Sum;
    for (int block = 0; block < blocks; ++block, starts += rows + 1)
        for (int row = 0; row < rows; ++row) {
            Sum *out = reinterpret_cast<Sum *>(y + static_cast<int64_t>(row) * 64 * V);
            Sum sum[V];
#pragma GCC unroll 16
            for (int i = 0; i < V; ++i) sum[i] = block ? out[i] : Form::zero();
            for (uint32_t e = starts[row]; e < starts[row + 1]; ++e) {
                __builtin_prefetch(values + e + 128);
                __builtin_prefetch(offsets + e + 128);
                const __m512i w = _mm512_set1_epi32(values[e]);
                const __m512i *p = reinterpret_cast<const __m512i *>(x + bytes_of(offsets[e]));
#pragma GCC unroll 16
                for (int i = 0; i < V; ++i) sum[i] = Form::add(sum[i], _mm512_load_si512(p + i), w);
            }
#pragma GCC unroll 16
            for (int i = 0; i < V; ++i) out[i] = sum[i];
        }
}

template <class Form, class Offset>
int of_width(int vectors, const int32_t *values, const void *offsets, const uint32_t *starts, int rows, int blocks, const char *x, char *y) {
    const Offset *o = static_cast<const Offset *>(offsets);
    if (vectors == 4) rows_of<Form, Offset, 4>(values, o, starts, rows, blocks, x, y);
    else if (vectors == 8) rows_of<Form, Offset, 8>(values, o, starts, rows, blocks, x, y);
    else if (vectors == 13) rows_of<Form, Offset, 13>(values, o, starts, rows, blocks, x, y);
    else return 1;
    return 0;
}

template <class Form>
int of_offset(int bits, int vectors, const int32_t *values, const void *offsets, const uint32_t *starts, int rows, int blocks,
              const char *x, char *y) {
    return bits == 16 ? of_width<Form, uint16_t>(vectors, values, offsets, starts, rows, blocks, x, y)
                      : of_width<Form, int32_t>(vectors, values, offsets, starts, rows, blocks, x, y);
}

}  // namespace

// form: 0 float32, 1 bfloat16 pairs, 2 8-bit quads. 0, or 1 where `vectors` is none of 4, 8, 13.
extern "C" int product(int form, int bits, int vectors, const int32_t *values, const void *offsets, const uint32_t *starts,
                       int rows, int blocks, const char *x, char *y) {
    if (form == 0) return of_offset<Float>(bits, vectors, values, offsets, starts, rows, blocks, x, y);
    if (form == 1) return of_offset<Bfloat>(bits, vectors, values, offsets, starts, rows, blocks, x, y);
    return of_offset<Int8>(bits, vectors, values, offsets, starts, rows, blocks, x, y);
}
