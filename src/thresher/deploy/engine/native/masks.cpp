// Packs a weight as a bit for each entry and the nonzero values: as bfloat16 where that loses nothing, else as float.
#include <cstdlib>
#include <cstring>
#include <new>
#if defined(__linux__)
#include <sys/mman.h>
#endif
#include "program.h"

namespace thr {

namespace {

uint32_t bits_of(float v) {
    uint32_t bits;
    std::memcpy(&bits, &v, 4);
    return bits;
}

constexpr size_t HUGE_PAGE = size_t{1} << 21;
constexpr size_t PAST = 128;  // vectors are loaded whole after the last value, and prefetched

}  // namespace

void Release::operator()(char *data) const { std::free(data); }

// Large blocks on large pages: the stream of weights would miss the table of pages at every 4 KiB else.
Block block_of(size_t bytes) {
    const size_t align = bytes >= HUGE_PAGE ? HUGE_PAGE : 64, whole = (bytes + PAST + align - 1) / align * align;
    Block found(static_cast<char *>(std::aligned_alloc(align, whole)));
    if (!found) return found;
#if defined(__linux__)
    if (align == HUGE_PAGE) madvise(found.get(), whole, MADV_HUGEPAGE);
#endif
    std::memset(found.get() + bytes, 0, whole - bytes);
    return found;
}

bool takes_masks(const Program &p, const Op &op) {
    if (op.kind != CONV || p.lanes != 1) return false;
    const Tensor &x = p.tensors[op.ints[0]], &y = p.tensors[op.ints[1]];
    const bool plain = op.ints[6] == 1 && op.ints[7] == 1 && op.ints[8] == 1 && !op.ints[9] && !op.ints[10] && !op.ints[11];
    const bool dense = !x.gap && !x.top && !y.gap && !y.top && x.h == y.h && x.w == y.w;
    // More than one vector of positions is work for the other kernels; one channel may be part of a depthwise pair.
    return plain && dense && op.ints[5] > 1 && static_cast<int64_t>(p.images) * y.h * y.w <= 16;
}

bool pack_masks(Op &op, const float *weight) {
    const int64_t rows = op.ints[4], columns = op.ints[5], words = (columns + 63) / 64;
    op.masks = block_of(static_cast<size_t>(rows * words * 8));
    op.value_starts.assign(rows + 1, 0);
    op.load.assign(rows + 1, 0);
    op.columns = columns;
    op.blocks = 1;
    if (!op.masks) return false;
    auto *mask = reinterpret_cast<uint64_t *>(op.masks.get());
    uint32_t lost = 0;
    for (int64_t row = 0; row < rows; ++row) {
        int64_t count = 0;
        for (int64_t w = 0; w < words; ++w) {
            const int64_t first = 64 * w, many = columns - first < 64 ? columns - first : 64;
            uint64_t bits = 0;
            for (int64_t i = 0; i < many; ++i) {
                const float v = weight[row * columns + first + i];
                bits |= static_cast<uint64_t>(v != 0.0f) << i;  // NaN is kept, too
                lost |= bits_of(v);
            }
            mask[row * words + w] = bits;
            count += __builtin_popcountll(bits);
        }
        op.value_starts[row + 1] = op.value_starts[row] + count;
    }
    op.value_bytes = (lost & 0xffffu) == 0 ? 2 : 4;
    for (int64_t row = 0; row < rows; ++row)
        op.load[row + 1] = 8 * words * (row + 1) + op.value_bytes * op.value_starts[row + 1];
    op.packed = block_of(static_cast<size_t>(op.value_starts[rows] * op.value_bytes));
    if (!op.packed) return false;
    char *out = op.packed.get();
    for (int64_t i = 0; i < rows * columns; ++i) {
        if (weight[i] == 0.0f) continue;
        if (op.value_bytes == 4) std::memcpy(out, &weight[i], 4);
        else {
            const auto upper = static_cast<uint16_t>(bits_of(weight[i]) >> 16);
            std::memcpy(out, &upper, 2);
        }
        out += op.value_bytes;
    }
    return true;
}

int64_t unpack_masks(const Op &op, float *weight) {
    const int64_t rows = op.ints[4], columns = op.columns, words = (columns + 63) / 64;
    const auto *mask = reinterpret_cast<const uint64_t *>(op.masks.get());
    const char *in = op.packed.get();
    for (int64_t row = 0; weight && row < rows; ++row)
        for (int64_t i = 0; i < columns; ++i) {
            uint32_t bits = 0;
            if (mask[row * words + i / 64] >> (i % 64) & 1) {
                std::memcpy(&bits, in, op.value_bytes);  // two bytes land in the lower half
                if (op.value_bytes == 2) bits <<= 16;
                in += op.value_bytes;
            }
            std::memcpy(&weight[row * columns + i], &bits, 4);
        }
    return rows * words * 8 + op.value_starts[rows] * op.value_bytes + (rows + 1) * 8;
}

}  // namespace thr
