// The C interface: building programs, running and timing them.
#include "program.h"
#include <chrono>
#include <cstdlib>
#include <cstring>
#include <ctime>

namespace thr {

namespace {

int64_t round_up(int64_t n) { return (n + 15) / 16 * 16; }

bool has(int isa) {
#if defined(__x86_64__)
    __builtin_cpu_init();
    if (isa == 2)
        return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512bw") &&
               __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("fma");
    if (isa == 1) return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
#endif
    return isa == 0;
}

// One thread is timed by the processor time it had: what others on the machine take does not count.
double now(int threads) {
#if defined(__unix__) || defined(__APPLE__)
    if (threads == 1) {
        timespec t{};
        clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
        return static_cast<double>(t.tv_sec) + 1e-9 * static_cast<double>(t.tv_nsec);
    }
#endif
    return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

const uint16_t *mask_of(Program &p, const Tensor &t) {
    auto &mask = p.masks[{t.h, t.w, t.gap, t.top}];
    if (mask.empty()) {
        mask.assign(t.vectors, 0);
        for (int image = 0; image < p.images; ++image)
            for (int y = 0; y < t.h; ++y)
                for (int64_t x = 0; x < static_cast<int64_t>(t.w) * p.lanes; ++x) {
                    const int64_t at = image * t.image + y * t.row + x;
                    mask[at / 16] = static_cast<uint16_t>(mask[at / 16] | (1u << (at % 16)));
                }
    }
    return mask.data();
}

struct Run {
    const Program *p;
    Call call;
    Arena *arena;
    Team *team;
    int threads, first_group, last_group;
};

// All operations of the group on one stripe after the other: what one writes, the next still finds in the cache.
void run_group(const Program &p, const Group &group, Arena &arena, const Call &call, int thread, int threads) {
    const Op &head = p.ops[group.first];
    if (group.last - group.first == 2 && is_depthwise_pair(p, head, p.ops[group.first + 1]))
        return run_depthwise_pair(p, head, p.ops[group.first + 1], arena, thread, threads);
    if (!works_on_ranges(head)) return run_op(p, head, arena, call, thread, threads, 0, 0);
    const int64_t all = vectors_of(p, head);
    if (head.kind == CONV && head.split == ROWS && threads > 1) return run_op(p, head, arena, call, thread, threads, 0, all);
    const int64_t first = share(all, thread, threads), last = share(all, thread + 1, threads);
    const int64_t stripe = group.stripe > 0 ? group.stripe : last - first;
    for (int64_t at = first; at < last; at += stripe) {
        const int64_t end = at + stripe < last ? at + stripe : last;
        for (int i = group.first; i < group.last; ++i) run_op(p, p.ops[i], arena, call, 0, 1, at, end);
    }
}

void work(void *context, int thread) {
    Run &run = *static_cast<Run *>(context);
    for (int g = run.first_group; g < run.last_group; ++g) {
        if (g > run.first_group) barrier(run.team);
        run_group(*run.p, run.p->groups[g], *run.arena, run.call, thread, run.threads);
    }
}

struct Many {
    Program *p;
    Call call;
    int batch, chunk, threads;
    std::vector<std::unique_ptr<Arena>> arenas;
};

void work_many(void *context, int thread) {
    Many &many = *static_cast<Many *>(context);
    for (int first = thread * many.chunk; first < many.batch; first += many.chunk * many.threads) {
        Call call = many.call;
        call.first_image = first;
        call.count = many.batch - first < many.chunk ? many.batch - first : many.chunk;
        for (const Group &group : many.p->groups) run_group(*many.p, group, *many.arenas[thread], call, 0, 1);
    }
}

}  // namespace

Arena::~Arena() { std::free(floats); }

Tensor lay_out(int images, int lanes, int c, int h, int w, int gap, int top) {
    Tensor t{};
    t.c = c;
    t.h = h;
    t.w = w;
    t.gap = gap;
    t.top = top;
    t.row = static_cast<int64_t>(w + gap) * lanes;
    t.image = (h + top) * t.row;
    t.lead = round_up(top * t.row + gap * lanes);
    const int64_t used = (images - 1) * t.image + (h - 1) * t.row + static_cast<int64_t>(w) * lanes;
    t.vectors = (used + 15) / 16;
    t.plane = t.lead + 16 * t.vectors;
    // An odd number of cache lines, so that planes do not meet in the same sets. Small ones would only grow by it.
    if (t.plane / 16 % 2 == 0 && t.plane >= 128) t.plane += 16;
    return t;
}

int64_t floats_of(const Tensor &t) { return t.c * t.plane + t.lead + 64; }

std::unique_ptr<Arena> Program::borrow(int threads) {
    std::unique_ptr<Arena> arena;
    {
        std::lock_guard<std::mutex> guard(mutex);
        if (!free_arenas.empty()) {
            arena = std::move(free_arenas.back());
            free_arenas.pop_back();
        }
    }
    if (!arena) {
        arena = std::make_unique<Arena>();
        const size_t bytes = (static_cast<size_t>(arena_floats) * 4 + 255) / 64 * 64;
        arena->floats = static_cast<float *>(std::aligned_alloc(64, bytes));
        if (!arena->floats) return nullptr;
        std::memset(arena->floats, 0, bytes);
        for (auto &[index, values] : constants) {
            const Tensor &t = tensors[index];
            for (int c = 0; c < t.c; ++c)
                for (int image = 0; image < images; ++image)
                    for (int y = 0; y < t.h; ++y)
                        for (int x = 0; x < t.w; ++x)
                            for (int l = 0; l < lanes; ++l)
                                arena->floats[t.base + t.lead + c * t.plane + image * t.image + y * t.row + x * lanes + l] =
                                    values[(static_cast<size_t>(c) * t.h + y) * t.w + x];
        }
    }
    if (arena->scratch.size() < static_cast<size_t>(threads)) arena->scratch.resize(threads);
    return arena;
}

void Program::give_back(std::unique_ptr<Arena> arena) {
    std::lock_guard<std::mutex> guard(mutex);
    free_arenas.push_back(std::move(arena));
}

}  // namespace thr

using thr::Program;

int thr_version() { return 2; }
int thr_has_isa(int isa) { return thr::has(isa); }
int thr_best_isa() { return thr::has(2) ? 2 : thr::has(1) ? 1 : 0; }

void *thr_new(int isa, int images, int lanes) {
    if (!thr::has(isa)) return nullptr;
    auto *p = new Program;
    p->isa = isa;
    p->images = images;
    p->lanes = lanes;
    p->kernels = thr::kernels_portable();
#if defined(__x86_64__)
    if (isa == 1) p->kernels = thr::kernels_avx2();
    if (isa == 2) p->kernels = thr::kernels_avx512();
#endif
    return p;
}

void thr_free(void *program) { delete static_cast<Program *>(program); }

int64_t thr_tensor_size(int images, int lanes, int c, int h, int w, int gap, int top) {
    return (thr::floats_of(thr::lay_out(images, lanes, c, h, w, gap, top)) + 15) / 16 * 16;
}

int64_t thr_plane(int images, int lanes, int c, int h, int w, int gap, int top) {
    return thr::lay_out(images, lanes, c, h, w, gap, top).plane;
}

int thr_add_tensor(void *program, int c, int h, int w, int gap, int top, int64_t base) {
    auto &p = *static_cast<Program *>(program);
    thr::Tensor t = thr::lay_out(p.images, p.lanes, c, h, w, gap, top);
    t.base = base;
    t.mask = thr::mask_of(p, t);
    p.tensors.push_back(t);
    return static_cast<int>(p.tensors.size()) - 1;
}

void thr_set_constant(void *program, int tensor, const float *values) {
    auto &p = *static_cast<Program *>(program);
    const thr::Tensor &t = p.tensors[tensor];
    p.constants.emplace_back(tensor, std::vector<float>(values, values + static_cast<size_t>(t.c) * t.h * t.w));
}

void thr_set_arena(void *program, int64_t floats) { static_cast<Program *>(program)->arena_floats = floats; }

int thr_add_op(void *program, int kind, const int64_t *ints, int n_ints, const float *floats, int64_t n_floats) {
    auto &p = *static_cast<Program *>(program);
    thr::Op op;
    op.kind = kind;
    op.ints.assign(ints, ints + n_ints);
    op.floats.assign(floats, floats + n_floats);
    p.ops.push_back(std::move(op));
    return static_cast<int>(p.ops.size()) - 1;
}

int thr_pack(void *program, int index, const float *weight, int kernel, int tile, int channel_block, int row_group,
             int tile_group, int split) {
    auto &p = *static_cast<Program *>(program);
    thr::Op &op = p.ops[index];
    if (kernel == thr::BITMASK && !thr::takes_masks(p, op)) return 1;
    op.tile = tile;
    op.row_group = row_group > 0 ? row_group : 1 << 30;
    if (kernel == thr::BLOCK4 && row_group > 0) op.row_group = (row_group + 3) / 4 * 4;
    op.tile_group = tile_group > 0 ? tile_group : 1 << 20;
    op.split = kernel == thr::BITMASK ? static_cast<int>(thr::ROWS) : split;
    op.kernel = kernel;
    return !weight || thr::pack(p, op, weight, channel_block) ? 0 : 2;
}

int64_t thr_unpack(void *program, int index, float *weight) {
    auto &p = *static_cast<Program *>(program);
    return thr::unpack(p, p.ops[index], weight);
}

int thr_takes_masks(void *program, int index) {
    auto &p = *static_cast<Program *>(program);
    return thr::takes_masks(p, p.ops[index]);
}

int thr_value_bytes(void *program, int index) {
    const thr::Op &op = static_cast<Program *>(program)->ops[index];
    return op.kernel == thr::BITMASK ? op.value_bytes : 4;
}

void thr_set_groups(void *program, const int64_t *first_last_stripe, int n_groups) {
    auto &p = *static_cast<Program *>(program);
    p.groups.clear();
    for (int g = 0; g < n_groups; ++g)
        p.groups.push_back({static_cast<int>(first_last_stripe[3 * g]), static_cast<int>(first_last_stripe[3 * g + 1]),
                            first_last_stripe[3 * g + 2]});
}

int thr_run(void *program, const void *const *inputs, const int64_t *input_strides, void *const *outputs,
            const int64_t *output_strides, int batch, int threads, int mode) {
    auto &p = *static_cast<Program *>(program);
    const int chunk = p.images * p.lanes;
    thr::Call call{inputs, input_strides, outputs, output_strides, 0, 0};
    if (mode == 1 && threads > 1 && batch > chunk) {
        thr::Many many{&p, call, batch, chunk, threads, {}};
        for (int i = 0; i < threads; ++i) {
            many.arenas.push_back(p.borrow(1));
            if (!many.arenas.back()) return 1;
        }
        thr::Team *team = thr::borrow_team(threads);
        thr::run_team(team, thr::work_many, &many);
        thr::give_back_team(team);
        for (auto &arena : many.arenas) p.give_back(std::move(arena));
        return 0;
    }
    auto arena = p.borrow(threads);
    if (!arena) return 1;
    thr::Team *team = thr::borrow_team(threads);
    thr::Run run{&p, call, arena.get(), team, threads, 0, static_cast<int>(p.groups.size())};
    for (int first = 0; first < batch; first += chunk) {
        run.call.first_image = first;
        run.call.count = batch - first < chunk ? batch - first : chunk;
        thr::run_team(team, thr::work, &run);
    }
    thr::give_back_team(team);
    p.give_back(std::move(arena));
    return 0;
}

double thr_time(void *program, int first_group, int last_group, int threads, int rounds, int repeats) {
    auto &p = *static_cast<Program *>(program);
    auto arena = p.borrow(threads);
    if (!arena) return -1.0;
    thr::Team *team = thr::borrow_team(threads);
    thr::Run run{&p, {}, arena.get(), team, threads, first_group, last_group};
    double best = 1e30;
    for (int round = 0; round < rounds; ++round) {
        const double start = thr::now(threads);
        for (int i = 0; i < repeats; ++i) thr::run_team(team, thr::work, &run);
        const double taken = (thr::now(threads) - start) / repeats;
        if (taken < best) best = taken;
    }
    thr::give_back_team(team);
    p.give_back(std::move(arena));
    return best;
}
