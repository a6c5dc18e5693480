// Threads that wait without burning the processor: a short spin, then sleep in the kernel.
#include <atomic>
#include <mutex>
#include <thread>
#include <vector>
#if defined(__unix__) || defined(__APPLE__)
#include <pthread.h>
#include <sched.h>
#endif
#include "program.h"

namespace thr {

namespace {

inline void pause_a_little(int turn) {
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#endif
    // Fewer processors than threads: let the other one run.
    if (turn > 200 && turn % 20 == 0) std::this_thread::yield();
}

constexpr int SPINS = 2000;

}  // namespace

struct Team {
    int threads;
    std::vector<std::thread> workers;
    std::atomic<uint32_t> epoch{0};
    std::atomic<int> working{0};
    std::atomic<int> arrived{0};
    std::atomic<uint32_t> phase{0};
    void (*work)(void *, int) = nullptr;
    void *context = nullptr;

    explicit Team(int n) : threads(n) {
        for (int i = 1; i < n; ++i) workers.emplace_back([this, i] { loop(i); });
        for (auto &worker : workers) worker.detach();
    }

    void loop(int index) {
        uint32_t seen = 0;
        for (;;) {
            int turn = 0;
            while (epoch.load(std::memory_order_acquire) == seen) {
                if (++turn < SPINS) pause_a_little(turn);
                else epoch.wait(seen, std::memory_order_acquire);
            }
            ++seen;
            work(context, index);
            working.fetch_sub(1, std::memory_order_release);
        }
    }
};

namespace {

// Never destroyed: workers may outlive static destructors.
std::mutex &lock() {
    static std::mutex *mutex = new std::mutex;
    return *mutex;
}
std::vector<Team *> &idle() {
    static std::vector<Team *> *teams = new std::vector<Team *>;
    return *teams;
}

#if defined(__unix__) || defined(__APPLE__)
// A forked child has none of the threads: it forgets the teams, and makes its own.
const int at_fork = pthread_atfork([] { lock().lock(); }, [] { lock().unlock(); },
                                   [] {
                                       idle().clear();
                                       lock().unlock();
                                   });
#endif

}  // namespace

Team *borrow_team(int threads) {
    if (threads <= 1) return nullptr;
    std::lock_guard<std::mutex> guard(lock());
    auto &teams = idle();
    for (size_t i = 0; i < teams.size(); ++i)
        if (teams[i]->threads == threads) {
            Team *team = teams[i];
            teams.erase(teams.begin() + static_cast<int64_t>(i));
            return team;
        }
    return new Team(threads);
}

void give_back_team(Team *team) {
    if (!team) return;
    std::lock_guard<std::mutex> guard(lock());
    idle().push_back(team);
}

void run_team(Team *team, void (*work)(void *, int), void *context) {
    if (!team) {
        work(context, 0);
        return;
    }
    team->work = work;
    team->context = context;
    team->working.store(team->threads - 1, std::memory_order_relaxed);
    team->epoch.fetch_add(1, std::memory_order_release);
    team->epoch.notify_all();
    work(context, 0);
    for (int turn = 0; team->working.load(std::memory_order_acquire) > 0; ++turn) pause_a_little(turn);
}

void barrier(Team *team) {
    if (!team) return;
    const uint32_t phase = team->phase.load(std::memory_order_acquire);
    if (team->arrived.fetch_add(1, std::memory_order_acq_rel) == team->threads - 1) {
        team->arrived.store(0, std::memory_order_relaxed);
        team->phase.fetch_add(1, std::memory_order_release);
    } else {
        for (int turn = 0; team->phase.load(std::memory_order_acquire) == phase; ++turn) pause_a_little(turn);
    }
}

}  // namespace thr
