// A program: tensors, operations, groups of operations, and the arenas that runs borrow.
#pragma once
#include <map>
#include <memory>
#include <mutex>
#include <tuple>
#include <vector>
#include "engine.h"

namespace thr {

enum OpKind { INPUT, OUTPUT, CONV, POINT, NORM, ATTENTION, POOL, MEAN, PHASES, COPY, RESHAPE, SCALE };

struct Release {
    void *mapping = nullptr;  // null: from the heap
    size_t bytes = 0;
    void operator()(char *data) const;
};
typedef std::unique_ptr<char[], Release> Block;  // aligned, and readable a little past its end

struct Op {
    int kind = 0;
    std::vector<int64_t> ints;
    std::vector<float> floats;
    // Convolutions, packed:
    int kernel = SPARSE, tile = 8, blocks = 1, row_group = 1 << 30, tile_group = 1, split = POSITIONS;
    std::vector<Entry> entries;
    std::vector<uint16_t> shorts;
    std::vector<int32_t> bases;
    std::vector<int32_t> offsets;
    std::vector<float> values;
    std::vector<uint32_t> starts;
    std::vector<int64_t> load;  // nonzeros of all rows before a row (BLOCK4: quads), to share rows evenly
    int64_t columns = 0;
    Block packed;  // BITMASK: bits by row, then values
    int64_t values_at = 0;
    std::vector<int64_t> value_starts;
    int value_bytes = 4;
};

struct Group {
    int first, last;
    int64_t stripe;
};

struct Arena {
    float *floats = nullptr;
    std::vector<std::vector<float>> scratch;  // one a thread
    std::map<std::pair<const Op *, int>, std::vector<float>> rings;  // phases of a few channels, by operation and thread
    std::mutex mutex;                                                // guards `rings`
    ~Arena();
};

struct Call {
    const void *const *inputs;
    const int64_t *input_strides;
    void *const *outputs;
    const int64_t *output_strides;
    int first_image, count;  // pictures of the batch that this pass works on
};

struct Program {
    int isa, images, lanes;
    const Kernels *kernels;
    std::vector<Tensor> tensors;
    std::vector<Op> ops;
    std::vector<Group> groups;
    std::vector<std::pair<int, std::vector<float>>> constants;
    int64_t arena_floats = 0;
    std::map<std::tuple<int, int, int, int>, std::vector<uint16_t>> masks;
    std::mutex mutex;
    std::vector<std::unique_ptr<Arena>> free_arenas;

    std::unique_ptr<Arena> borrow(int threads);
    void give_back(std::unique_ptr<Arena> arena);
};

Tensor lay_out(int images, int lanes, int c, int h, int w, int gap, int top);
int64_t floats_of(const Tensor &t);
bool pack(Program &p, Op &op, const float *weight, int channel_block);  // false without memory
int64_t unpack(const Program &p, const Op &op, float *weight);
bool is_flat(const Program &p, const Op &op);  // one position, the channels of each tensor side by side
bool takes_masks(const Program &p, const Op &op);
bool pack_masks(Op &op, const float *weight);  // false without memory
int64_t unpack_masks(const Op &op, float *weight);
// The share of thread `thread` of `threads` in an operation; `first`..`last` are vectors of 16 positions.
void run_op(const Program &p, const Op &op, Arena &arena, const Call &call, int thread, int threads, int64_t first,
            int64_t last);
// A strided depthwise convolution right after its phases, a few channels at a time: the phases never leave the cache.
bool is_depthwise_pair(const Program &p, const Op &phases, const Op &conv);
void run_depthwise_pair(const Program &p, const Op &phases, const Op &conv, Arena &arena, int part, int parts);
bool works_on_ranges(const Op &op);
int64_t vectors_of(const Program &p, const Op &op);

// Runs work(thread) on `threads` threads, the caller being thread 0; barrier() waits for all of them.
struct Team;
Team *borrow_team(int threads);
void give_back_team(Team *team);
void run_team(Team *team, void (*work)(void *, int), void *context);
void barrier(Team *team);

inline int64_t share(int64_t n, int part, int parts) { return n * part / parts; }

}  // namespace thr
