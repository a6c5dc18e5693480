// The sparse convolution: per output row and nonzero, broadcast the value and multiply-add a register tile of positions.
#pragma once
#include "vectors.h"

namespace {

using thr::ConvCall;
using thr::Entry;

// After the last block of input channels: residual, activation, zero in the pads.
template <int N>
THR_INLINE void finish(const ConvCall &c, vf (&sum)[N], int row, int64_t vector, bool last) {
    float *y = c.y + row * c.y_plane + vector * VL;
    if (last) {
        if (c.residual) {
            const float *residual = c.residual + row * c.residual_plane + vector * VL;
#pragma GCC unroll 16
            for (int i = 0; i < N; ++i) sum[i] += load(residual + i * VL);
        }
        if (c.activation == thr::RELU) {
#pragma GCC unroll 16
            for (int i = 0; i < N; ++i) sum[i] = sum[i] < vf{} ? vf{} : sum[i];
        } else if (c.activation == thr::CLAMP) {
#pragma GCC unroll 16
            for (int i = 0; i < N; ++i) sum[i] = clamp(sum[i], c.low, c.high);
        } else if (c.activation != thr::NONE) {
            // Through memory, so that the long functions are there once and not N times.
            vf spilled[N];
            for (int i = 0; i < N; ++i) spilled[i] = sum[i];
#pragma GCC unroll 1
            for (int i = 0; i < N; ++i) {
                asm volatile("" ::: "memory");
                store(y + i * VL, masked(activate(spilled[i], c.activation, c.low, c.high), c.mask, vector + i));
            }
            return;
        }
#pragma GCC unroll 16
        for (int i = 0; i < N; ++i) sum[i] = masked(sum[i], c.mask, vector + i);
    }
#pragma GCC unroll 16
    for (int i = 0; i < N; ++i) store(y + i * VL, sum[i]);
}

template <int N>
THR_INLINE void begin(const ConvCall &c, vf (&sum)[N], int row, int64_t vector, bool first) {
    if (first) {
        const vf bias = splat(c.bias[row]);
#pragma GCC unroll 16
        for (int i = 0; i < N; ++i) sum[i] = bias;
    } else {
        const float *y = c.y + row * c.y_plane + vector * VL;
#pragma GCC unroll 16
        for (int i = 0; i < N; ++i) sum[i] = load(y + i * VL);
    }
}

template <int N>
THR_INLINE void step(vf (&sum)[N], const Entry *e, const char *x) {
    const vf w = splat(e->value);
    const float *p = reinterpret_cast<const float *>(x + e->offset);
#pragma GCC unroll 16
    for (int i = 0; i < N; ++i) sum[i] += w * load(p + i * VL);
}

// Rows first..last-1 of block `block` on N vectors. U sets of sums, where N alone would wait for its own multiply-adds.
template <int N, int U>
void sparse_rows(const ConvCall &c, int block, int first, int last, int64_t vector) {
    const uint32_t *starts = c.starts + static_cast<int64_t>(block) * (c.rows + 1);
    const char *x = reinterpret_cast<const char *>(c.x + vector * VL);
    const Entry *e = c.entries + starts[first];
    for (int row = first; row < last; ++row) {
        const Entry *end = c.entries + starts[row + 1];
        vf sum[N];
        begin<N>(c, sum, row, vector, block == 0);
        if constexpr (U > 1) {
            vf more[U - 1][N];
#pragma GCC unroll 4
            for (int u = 0; u < U - 1; ++u)
#pragma GCC unroll 16
                for (int i = 0; i < N; ++i) more[u][i] = vf{};
            for (; e + U <= end; e += U) {
                __builtin_prefetch(e + 64);
                step<N>(sum, e, x);
#pragma GCC unroll 4
                for (int u = 0; u < U - 1; ++u) step<N>(more[u], e + 1 + u, x);
            }
#pragma GCC unroll 4
            for (int u = 0; u < U - 1; ++u)
#pragma GCC unroll 16
                for (int i = 0; i < N; ++i) sum[i] += more[u][i];
        } else {
            for (; e + 2 <= end; e += 2) {
                __builtin_prefetch(e + 64);
                step<N>(sum, e, x);
                step<N>(sum, e + 1, x);
            }
        }
        for (; e < end; ++e) step<N>(sum, e, x);
        finish<N>(c, sum, row, vector, block == c.blocks - 1);
    }
}

// Four rows at once share each offset, so one load of the input serves four multiply-adds.
template <int N, int U>
void block_rows(const ConvCall &c, int block, int first, int last, int64_t vector) {
    const int quads = (c.rows + 3) / 4;
    const uint32_t *starts = c.starts + static_cast<int64_t>(block) * (quads + 1);
    const char *x = reinterpret_cast<const char *>(c.x + vector * VL);
    for (int row = first; row < last; row += 4) {
        const int32_t *o = c.offsets + starts[row / 4];
        const int32_t *end = c.offsets + starts[row / 4 + 1];
        const float *w = c.values + 4 * static_cast<int64_t>(starts[row / 4]);
        const int rows = c.rows - row < 4 ? c.rows - row : 4;
        vf sum[4][N];
        for (int r = 0; r < 4; ++r) {
            if (r < rows) begin<N>(c, sum[r], row + r, vector, block == 0);
            else
#pragma GCC unroll 16
                for (int i = 0; i < N; ++i) sum[r][i] = vf{};
        }
        for (; o < end; ++o, w += 4) {
            __builtin_prefetch(w + 128);
            const float *p = reinterpret_cast<const float *>(x + *o);
            const vf w0 = splat(w[0]), w1 = splat(w[1]), w2 = splat(w[2]), w3 = splat(w[3]);
#pragma GCC unroll 16
            for (int i = 0; i < N; ++i) {
                const vf v = load(p + i * VL);
                sum[0][i] += w0 * v;
                sum[1][i] += w1 * v;
                sum[2][i] += w2 * v;
                sum[3][i] += w3 * v;
            }
        }
        for (int r = 0; r < rows; ++r) finish<N>(c, sum[r], row + r, vector, block == c.blocks - 1);
    }
}

typedef void (*RowsFunction)(const ConvCall &, int block, int first, int last, int64_t vector);

#define THR_U(N) ((N) <= 2 ? 4 : (N) <= 4 ? 2 : 1)
const RowsFunction SPARSE_ROWS[] = {nullptr, sparse_rows<1, THR_U(1)>, sparse_rows<2, THR_U(2)>, sparse_rows<3, THR_U(3)>,
    sparse_rows<4, THR_U(4)>, sparse_rows<5, 1>, sparse_rows<6, 1>, sparse_rows<7, 1>, sparse_rows<8, 1>,
    sparse_rows<9, 1>, sparse_rows<10, 1>, sparse_rows<11, 1>, sparse_rows<12, 1>, sparse_rows<13, 1>, sparse_rows<14, 1>};
const RowsFunction BLOCK_ROWS[] = {nullptr, block_rows<1, 1>, block_rows<2, 1>, block_rows<3, 1>, block_rows<4, 1>,
    block_rows<5, 1>, block_rows<6, 1>};

void conv(const ConvCall &c, int kernel) {
    const RowsFunction *table = kernel == thr::SPARSE ? SPARSE_ROWS : BLOCK_ROWS;
    const int most = kernel == thr::SPARSE ? 14 : 6;
    const int64_t begin_vector = c.first_vector * 16 / VL, end_vector = c.last_vector * 16 / VL;
    const int64_t tile = c.tile < most ? c.tile : most;
    const int64_t span = tile * c.tile_group;
    for (int64_t outer = begin_vector; outer < end_vector; outer += span) {
        const int64_t outer_end = outer + span < end_vector ? outer + span : end_vector;
        for (int block = 0; block < c.blocks; ++block)
            for (int row = c.first_row; row < c.last_row; row += c.row_group) {
                const int row_end = row + c.row_group < c.last_row ? row + c.row_group : c.last_row;
                for (int64_t v = outer; v < outer_end; v += tile)
                    table[v + tile <= outer_end ? tile : outer_end - v](c, block, row, row_end, v);
            }
    }
}

}  // namespace
