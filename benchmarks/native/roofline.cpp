// What one core can do at most: vector multiply-adds on registers, and with one operand from the first-level cache.
#include <cstdint>

typedef float vf __attribute__((vector_size(THR_VL * 4)));

namespace {

constexpr int SUMS = 12;      // enough for the latency of two multiply-adds a cycle
constexpr int LINES = 192;    // vectors that stay in the first-level cache

}  // namespace

// Vector multiply-adds done, `rounds` times LINES; `loads`: 1 if each reads its operand from memory.
extern "C" int64_t multiply_adds(int loads, int64_t rounds, const float *memory, float *out) {
    const vf *x = reinterpret_cast<const vf *>(memory);
    vf sum[SUMS] = {};
    vf w = x[0], v = x[1];
    for (int64_t r = 0; r < rounds; ++r) {
        if (loads) {
            for (int i = 0; i < LINES; i += SUMS) {
                const vf *p = x + i;
                asm("" : "+r"(p));
#pragma GCC unroll 12
                for (int s = 0; s < SUMS; ++s) sum[s] += w * p[s];
            }
        } else {
            for (int i = 0; i < LINES; i += SUMS) {
                asm("" : "+v"(v));
#pragma GCC unroll 12
                for (int s = 0; s < SUMS; ++s) sum[s] += w * v;
            }
        }
    }
    for (int s = 1; s < SUMS; ++s) sum[0] += sum[s];
    *reinterpret_cast<vf *>(out) = sum[0];
    return rounds * LINES;
}
