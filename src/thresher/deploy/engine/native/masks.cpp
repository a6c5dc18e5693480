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
constexpr size_t PAST = 128;  // vectors are loaded whole after the last value

}  // namespace

void Release::operator()(char *data) const {
#if defined(__linux__)
    if (mapping) {
        munmap(mapping, bytes);
        return;
    }
#endif
    std::free(data);
}

// Large blocks on large pages, the last one too: on pages of 4 KiB one core reads the stream of weights a quarter slower.
// Mapped anew, as the heap would hand out pages that are small already.
Block block_of(size_t bytes) {
#if defined(__linux__)
    if (bytes >= HUGE_PAGE / 4) {
        const size_t pages = (bytes + PAST + HUGE_PAGE - 1) / HUGE_PAGE, whole = (pages + 1) * HUGE_PAGE;
        void *mapping = mmap(nullptr, whole, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (mapping == MAP_FAILED) return Block(nullptr);
        const uintptr_t start = (reinterpret_cast<uintptr_t>(mapping) + HUGE_PAGE - 1) / HUGE_PAGE * HUGE_PAGE;
        auto *data = reinterpret_cast<char *>(start);
        madvise(data, pages * HUGE_PAGE, MADV_HUGEPAGE);
        return Block(data, Release{mapping, whole});
    }
#endif
    const size_t whole = (bytes + PAST + 63) / 64 * 64;
    Block found(static_cast<char *>(std::aligned_alloc(64, whole)));
    if (found) std::memset(found.get() + bytes, 0, whole - bytes);
    return found;
}

bool is_flat(const Program &p, const Op &op) {
    const Tensor &x = p.tensors[op.ints[0]], &y = p.tensors[op.ints[1]];
    return p.images == 1 && p.lanes == 1 && x.c == 1 && x.h == 1 && x.w == op.ints[5] && y.c == 1 && y.h == 1 && y.w == op.ints[4];
}

bool takes_masks(const Program &p, const Op &op) {
    if (op.kind != CONV || p.lanes != 1) return false;
    const Tensor &x = p.tensors[op.ints[0]], &y = p.tensors[op.ints[1]];
    const bool plain = op.ints[6] == 1 && op.ints[7] == 1 && op.ints[8] == 1 && !op.ints[9] && !op.ints[10] && !op.ints[11];
    if (!plain || op.ints[5] < 2) return false;
    if (is_flat(p, op)) return true;
    const bool dense = !x.gap && !x.top && !y.gap && !y.top && x.h == y.h && x.w == y.w;
    // More than one vector of positions is work for the other kernels; one channel may be part of a depthwise pair.
    return dense && x.c == op.ints[5] && y.c == op.ints[4] && static_cast<int64_t>(p.images) * y.h * y.w <= 16;
}

bool pack_masks(Op &op, const float *weight) {
    const int64_t rows = op.ints[4], columns = op.ints[5], words = (columns + 63) / 64;
    op.value_starts.assign(rows + 1, 0);
    op.load.assign(rows + 1, 0);
    op.columns = columns;
    op.blocks = 1;
    uint32_t all = 0;
    for (int64_t row = 0; row < rows; ++row) {
        int64_t count = 0;
        for (int64_t i = row * columns; i < (row + 1) * columns; ++i) {
            count += weight[i] != 0.0f;  // NaN is kept, too
            all |= bits_of(weight[i]);
        }
        op.value_starts[row + 1] = op.value_starts[row] + count;
    }
    op.value_bytes = (all & 0xffffu) == 0 ? 2 : 4;
    for (int64_t row = 0; row <= rows; ++row) op.load[row] = 8 * words * row + op.value_bytes * op.value_starts[row];
    op.values_at = rows * words * 8;
    op.packed = block_of(static_cast<size_t>(op.load[rows]));
    if (!op.packed) return false;
    auto *mask = reinterpret_cast<uint64_t *>(op.packed.get());
    char *out = op.packed.get() + op.values_at;
    for (int64_t row = 0; row < rows; ++row)
        for (int64_t first = 0; first < columns; first += 64) {
            const float *w = weight + row * columns + first;
            const int64_t many = columns - first < 64 ? columns - first : 64;
            uint64_t bits = 0;
            for (int64_t i = 0; i < many; ++i) {
                if (w[i] == 0.0f) continue;
                bits |= uint64_t{1} << i;
                const uint32_t value = op.value_bytes == 4 ? bits_of(w[i]) : bits_of(w[i]) >> 16;
                std::memcpy(out, &value, op.value_bytes);  // of two bytes, the lower half
                out += op.value_bytes;
            }
            *mask++ = bits;
        }
    return true;
}

int64_t unpack_masks(const Op &op, float *weight) {
    const int64_t rows = op.ints[4], columns = op.columns, words = (columns + 63) / 64;
    const auto *mask = reinterpret_cast<const uint64_t *>(op.packed.get());
    const char *in = op.packed.get() + op.values_at;
    for (int64_t row = 0; weight && row < rows; ++row)
        for (int64_t i = 0; i < columns; ++i) {
            uint32_t bits = 0;
            if (mask[row * words + i / 64] >> (i % 64) & 1) {
                std::memcpy(&bits, in, op.value_bytes);
                if (op.value_bytes == 2) bits <<= 16;
                in += op.value_bytes;
            }
            std::memcpy(&weight[row * columns + i], &bits, 4);
        }
    return op.load[rows] + (rows + 1) * 8;
}

}  // namespace thr
