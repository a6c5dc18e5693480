// The plain C interface of the sparse engine, and the records that its files share.
//
// A program is a flat list of operations over tensors in one arena of floats. A tensor holds C planes; a plane holds
// `images` pictures below one another, each of H rows, with `top` zero rows between them and `gap` zero columns after
// each row (the right pad of one row is the left pad of the next). So a tap of a convolution is a constant offset from
// the position of its output, and 1x1, kxk and linear layers are one kernel. With `lanes` > 1, so many pictures lie
// interleaved: each position is `lanes` floats.
#pragma once
#include <cstdint>

#if defined(_WIN32)
#define THR_API extern "C" __declspec(dllexport)
#else
#define THR_API extern "C" __attribute__((visibility("default")))
#endif

THR_API int thr_version();
// Best instruction set of this processor: 0 portable, 1 AVX2 with FMA, 2 AVX-512.
THR_API int thr_best_isa();
THR_API int thr_has_isa(int isa);
THR_API void *thr_new(int isa, int images, int lanes);
THR_API void thr_free(void *program);
// Floats that a tensor occupies; its `base` must be a multiple of 16.
THR_API int64_t thr_tensor_size(int images, int lanes, int c, int h, int w, int gap, int top);
THR_API int64_t thr_plane(int images, int lanes, int c, int h, int w, int gap, int top);
THR_API int thr_add_tensor(void *program, int c, int h, int w, int gap, int top, int64_t base);
// Values (channel, row, column) that the tensor holds before every run, in each picture.
THR_API void thr_set_constant(void *program, int tensor, const float *values);
THR_API void thr_set_arena(void *program, int64_t floats);
THR_API int thr_add_op(void *program, int kind, const int64_t *ints, int n_ints, const float *floats, int64_t n_floats);
// Whether the bitmask kernel can run this operation: a product at up to 16 positions that lie side by side.
THR_API int thr_takes_masks(void *program, int op);
// Packs the weight (rows x columns, row-major) of a convolution for one kernel and blocking. Returns 0, or 1 for a kernel
// that cannot run it, 2 without memory.
THR_API int thr_pack(void *program, int op, const float *weight, int kernel, int tile, int channel_block, int row_group,
                     int tile_group, int split);
// Writes the weight back, rows x columns. Returns the bytes that the packed form takes.
THR_API int64_t thr_unpack(void *program, int op, float *weight);
// Bytes of one packed value: 2 for bfloat16.
THR_API int thr_value_bytes(void *program, int op);
// Operations first..last-1 run as one step, `stripe` vectors of 16 positions at a time (0: all).
THR_API void thr_set_groups(void *program, const int64_t *first_last_stripe, int n_groups);
// Runs the program over `batch` pictures. Strides are (image, channel, row, column), in floats.
// mode 0: threads share each operation; 1: each thread takes pictures of its own.
THR_API int thr_run(void *program, const void *const *inputs, const int64_t *input_strides, void *const *outputs,
                    const int64_t *output_strides, int batch, int threads, int mode);
// Seconds of the groups first..last-1, the best of `rounds` means over `repeats`.
THR_API double thr_time(void *program, int first_group, int last_group, int threads, int rounds, int repeats);

namespace thr {

struct Entry {
    float value;
    int32_t offset;  // bytes from the output's position in plane 0 of the input
};

struct Tensor {
    int c, h, w, gap, top;
    int64_t base;    // floats from the start of the arena
    int64_t row;     // floats from row to row
    int64_t image;   // floats from picture to picture
    int64_t lead;    // floats before position 0 of a plane
    int64_t plane;   // floats from plane to plane
    int64_t vectors; // vectors of 16 floats from position 0 to the last row of the last picture
    const uint16_t *mask; // one bit a float: 1 where a picture is, 0 in the pads
};

enum Activation { NONE, CLAMP, SILU, GELU, GELU_TANH, HARDSWISH, HARDSIGMOID, SIGMOID, TANH, RELU };
enum Kernel { SPARSE, BLOCK4, BITMASK };
enum Split { POSITIONS, ROWS };

// One convolution on one range of work; pointers are to position 0 of plane 0.
struct ConvCall {
    const float *x;
    float *y;
    const float *residual;
    const float *bias;
    const Entry *entries;      // SPARSE, if a block's offsets need more than 16 bits
    const uint16_t *shorts;    // else: floats from the base of the block, one for each value
    const int32_t *bases;      // bytes from the output's position in plane 0, one for each block
    const int32_t *offsets;    // BLOCK4: one for four rows
    const float *values;       // one for each of `shorts`; BLOCK4: four for each offset
    const uint32_t *starts;    // [blocks][rows or row quads + 1]
    const uint16_t *mask;
    int64_t y_plane, residual_plane;
    int rows, blocks, tile, row_group, tile_group, activation;
    bool far;  // activations do not stay in the second-level cache
    float low, high;
    int64_t first_vector, last_vector;  // of 16 floats
    int first_row, last_row;            // BLOCK4: multiples of 4
};

// A product at a few positions; the weight is a bit for each entry, 64 a word, and the nonzero values. Planes of 1 float:
// one position, and the channels side by side.
struct MaskCall {
    const float *x;
    float *y;
    const float *residual, *bias;
    const uint64_t *masks;   // rows x words
    const void *values;      // uint16_t where bfloat16, else float
    const int64_t *starts;   // first value of each row
    float *scratch;          // 4 x 64 x words floats
    int64_t x_plane, y_plane, residual_plane;
    int words, columns, positions, bfloat16, by_words, activation;
    float low, high;
    int first_row, last_row;
};

// y = act(a (+ or *) b) plane by plane; b has stride 0 between planes where it is one plane only.
struct PointCall {
    const float *a, *b;
    float *y;
    const uint16_t *mask;
    const float *scale, *shift;  // per channel, or null
    int64_t a_plane, b_plane, y_plane;
    int channels, multiply, activation;
    float low, high;
    int64_t first_vector, last_vector;
};

struct NormCall {
    const float *x;
    float *y;
    const uint16_t *mask;
    const float *weight, *bias;
    int64_t x_plane, y_plane;
    int channels, rms;
    float epsilon;
    int64_t first_vector, last_vector;
};

// One head of softmax(scale q k^T + bias) v over one picture; planes are the head's dimensions.
struct AttentionCall {
    const float *q, *k, *v;
    float *y, *scratch;        // scratch: (keys + 1) x 64 + 16 x depth floats
    const float *bias;         // queries x keys, or null
    int64_t q_plane, k_plane, v_plane, y_plane;
    int queries, keys, depth;
    float scale;
};

struct PoolCall {
    const float *x;      // one plane of one picture
    float *y;
    float *buffer;       // (w + 2 * pad) * lanes floats
    int64_t x_row, y_row;
    int h, w, oh, ow, kh, kw, sh, sw, ph, pw, lanes, average, include_pad;
};

// Every sw-th column of every sh-th row of one plane of one picture, zero where there is none.
struct PhaseCall {
    const float *x;
    float *y;
    int64_t x_row, y_row;  // x_row: from one of these rows to the next
    int rows, h, columns, w, step, lanes;  // rows, columns: how many of h and w there are
};

struct Kernels {
    void (*conv)(const ConvCall &, int kernel);
    void (*bitmask)(const MaskCall &);
    void (*point)(const PointCall &);
    void (*norm)(const NormCall &);
    void (*attention)(const AttentionCall &);
    void (*pool)(const PoolCall &);
    void (*phase)(const PhaseCall &);
};

const Kernels *kernels_portable();
const Kernels *kernels_avx2();
const Kernels *kernels_avx512();

}  // namespace thr
