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
    const uint16_t *mask = c.mask + (vector * VL >> 4);
    const int64_t odd = vector & (16 / VL - 1);
    if (last) {
        if (c.residual) {
            const float *residual = c.residual + row * c.residual_plane + vector * VL;
#pragma GCC unroll 16
            for (int i = 0; i < N; ++i) sum[i] += load(residual + i * VL);
        }
        if (c.activation == thr::RELU) {
#pragma GCC unroll 16
            for (int i = 0; i < N; ++i) sum[i] = relu(sum[i]);
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
                store(y + i * VL, masked(activate(spilled[i], c.activation, c.low, c.high), mask, odd + i));
            }
            return;
        }
#pragma GCC unroll 16
        for (int i = 0; i < N; ++i) sum[i] = masked(sum[i], mask, odd + i);
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

// Lines of a row to come that its first or last block would wait for: no hardware prefetcher foresees the step to a plane.
template <int N>
THR_INLINE void fetch_row(const ConvCall &c, int row, int64_t vector, int block) {
    if (!c.far) return;
    if (block == 0) {
        const float *y = c.y + row * c.y_plane + vector * VL;
#pragma GCC unroll 16
        for (int i = 0; i < N; ++i) __builtin_prefetch(y + i * VL, 1);
    }
    if (block == c.blocks - 1 && c.residual) {
        const float *residual = c.residual + row * c.residual_plane + vector * VL;
#pragma GCC unroll 16
        for (int i = 0; i < N; ++i) __builtin_prefetch(residual + i * VL);
    }
}

template <int N>
THR_INLINE void step(vf (&sum)[N], float value, const char *at) {
    const vf w = splat(value);
    asm("" : "+r"(at));  // one register: a sum in the address of each load would cost N more micro-operations
    const float *p = reinterpret_cast<const float *>(at);
#pragma GCC unroll 16
    for (int i = 0; i < N; ++i) sum[i] += w * load(p + i * VL);
}

// The nonzeros of a row, one after the other: value and offset side by side in 8 bytes, or apart in 4 and 2.
struct Wide {
    const Entry *entry, *end;
    const char *x;
    Wide(const ConvCall &c, int, uint32_t first, int64_t vector)
        : entry(c.entries + first), end(entry), x(reinterpret_cast<const char *>(c.x + vector * VL)) {}
    THR_INLINE_MEMBER void until(const ConvCall &c, uint32_t last) { end = c.entries + last; }
    THR_INLINE_MEMBER bool has(int n) const { return entry + n <= end; }
    THR_INLINE_MEMBER float value(int i) const { return entry[i].value; }
    THR_INLINE_MEMBER const char *at(int i) const { return x + entry[i].offset; }
    THR_INLINE_MEMBER void pass(int n) { entry += n; }
    THR_INLINE_MEMBER void fetch() const { __builtin_prefetch(entry + 64); }
};

struct Short {
    const float *value_at;
    const uint16_t *offset, *end;
    const char *x;
    Short(const ConvCall &c, int block, uint32_t first, int64_t vector)
        : value_at(c.values + first), offset(c.shorts + first), end(offset),
          x(reinterpret_cast<const char *>(c.x + vector * VL) + c.bases[block]) {}
    THR_INLINE_MEMBER void until(const ConvCall &c, uint32_t last) { end = c.shorts + last; }
    THR_INLINE_MEMBER bool has(int n) const { return offset + n <= end; }
    THR_INLINE_MEMBER float value(int i) const { return value_at[i]; }
    THR_INLINE_MEMBER const char *at(int i) const { return x + 4 * static_cast<int64_t>(offset[i]); }
    THR_INLINE_MEMBER void pass(int n) {
        value_at += n;
        offset += n;
    }
    THR_INLINE_MEMBER void fetch() const {
        __builtin_prefetch(value_at + 128);
        __builtin_prefetch(offset + 128);
    }
};

// Rows first..last-1 of block `block` on N vectors. U sets of sums, where N alone would wait for its own multiply-adds.
template <class Form, int N, int U>
void sparse_rows(const ConvCall &c, int block, int first, int last, int64_t vector) {
    const uint32_t *starts = c.starts + static_cast<int64_t>(block) * (c.rows + 1);
    Form form(c, block, starts[first], vector);
    for (int row = first; row < last; ++row) {
        form.until(c, starts[row + 1]);
        if (row + 4 < last) fetch_row<N>(c, row + 4, vector, block);
        vf sum[N];
        begin<N>(c, sum, row, vector, block == 0);
        if constexpr (U > 1) {
            vf more[U - 1][N];
#pragma GCC unroll 4
            for (int u = 0; u < U - 1; ++u)
#pragma GCC unroll 16
                for (int i = 0; i < N; ++i) more[u][i] = vf{};
            for (; form.has(U); form.pass(U)) {
                form.fetch();
                step<N>(sum, form.value(0), form.at(0));
#pragma GCC unroll 4
                for (int u = 0; u < U - 1; ++u) step<N>(more[u], form.value(1 + u), form.at(1 + u));
            }
#pragma GCC unroll 4
            for (int u = 0; u < U - 1; ++u)
#pragma GCC unroll 16
                for (int i = 0; i < N; ++i) sum[i] += more[u][i];
        } else {
            for (; form.has(2); form.pass(2)) {
                form.fetch();
                step<N>(sum, form.value(0), form.at(0));
                step<N>(sum, form.value(1), form.at(1));
            }
        }
        for (; form.has(1); form.pass(1)) step<N>(sum, form.value(0), form.at(0));
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
        for (int next = row + 4; next < row + 8 && next < last; ++next) fetch_row<N>(c, next, vector, block);
        vf sum[4][N];
        for (int r = 0; r < 4; ++r) {
            if (r < rows) begin<N>(c, sum[r], row + r, vector, block == 0);
            else
#pragma GCC unroll 16
                for (int i = 0; i < N; ++i) sum[r][i] = vf{};
        }
        for (; o < end; ++o, w += 4) {
            __builtin_prefetch(w + 128);
            const char *at = x + *o;
            asm("" : "+r"(at));
            const float *p = reinterpret_cast<const float *>(at);
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
#define THR_ROWS(Form) {nullptr, sparse_rows<Form, 1, THR_U(1)>, sparse_rows<Form, 2, THR_U(2)>, \
    sparse_rows<Form, 3, THR_U(3)>, sparse_rows<Form, 4, THR_U(4)>, sparse_rows<Form, 5, 1>, sparse_rows<Form, 6, 1>, \
    sparse_rows<Form, 7, 1>, sparse_rows<Form, 8, 1>, sparse_rows<Form, 9, 1>, sparse_rows<Form, 10, 1>, \
    sparse_rows<Form, 11, 1>, sparse_rows<Form, 12, 1>, sparse_rows<Form, 13, 1>, sparse_rows<Form, 14, 1>}
const RowsFunction WIDE_ROWS[] = THR_ROWS(Wide);
const RowsFunction SHORT_ROWS[] = THR_ROWS(Short);
const RowsFunction BLOCK_ROWS[] = {nullptr, block_rows<1, 1>, block_rows<2, 1>, block_rows<3, 1>, block_rows<4, 1>,
    block_rows<5, 1>, block_rows<6, 1>};

void conv(const ConvCall &c, int kernel) {
    const RowsFunction *table = kernel != thr::SPARSE ? BLOCK_ROWS : c.shorts ? SHORT_ROWS : WIDE_ROWS;
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
