#include "parallel.h"

#include <pthread.h>

#include <cstdlib>
#include <mutex>
#include <thread>
#include <vector>

namespace jowa {
namespace {

// Waiting for less than this costs less than sleeping; more would take the processor from others.  Under the thread
// sanitizer each look is a call, so there it is less (make fuzz).
#ifndef JOWA_SPINS
#define JOWA_SPINS 4000
#endif
constexpr int kSpins = JOWA_SPINS;

void pause() {
#if defined(__x86_64__) || defined(__i386__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

// Returns when `value` is no longer `old`.
template <typename T>
void wait_while(const std::atomic<T>& value, T old) {
  for (int spin = 0; spin < kSpins; ++spin) {
    if (value.load(std::memory_order_acquire) != old) return;
    pause();
  }
  while (value.load(std::memory_order_acquire) == old) value.wait(old, std::memory_order_acquire);
}

class Pool {
 public:
  explicit Pool(int workers) {
    for (int rank = 1; rank <= workers; ++rank) threads_.emplace_back([this, rank] { serve(rank); });
  }
  ~Pool() {
    stop_ = true;
    wake();
    for (std::thread& thread : threads_) thread.join();
  }

  int workers() const { return static_cast<int>(threads_.size()); }

  void run(int size, TeamBody body, void* context) {
    Team team(size);
    team_ = &team;
    body_ = body;
    context_ = context;
    // Every worker answers each call, also one with nothing to do: none can then mistake it for a later one.
    unfinished_.store(workers(), std::memory_order_relaxed);
    wake();
    body(context, team, 0);
    for (int left = unfinished_.load(std::memory_order_acquire); left;
         left = unfinished_.load(std::memory_order_acquire))
      wait_while(unfinished_, left);
  }

 private:
  void wake() {
    call_.fetch_add(1, std::memory_order_release);
    call_.notify_all();
  }

  void serve(int rank) {
    for (std::uint32_t seen = 0;;) {
      wait_while(call_, seen);
      ++seen;
      if (stop_) return;
      if (rank < team_->size()) body_(context_, *team_, rank);
      if (unfinished_.fetch_sub(1, std::memory_order_acq_rel) == 1) unfinished_.notify_all();
    }
  }

  std::vector<std::thread> threads_;
  std::atomic<std::uint32_t> call_{0};
  std::atomic<int> unfinished_{0};
  std::atomic<bool> stop_{false};
  Team* team_ = nullptr;
  TeamBody body_ = nullptr;
  void* context_ = nullptr;
};

int threads_at_first() {
  if (const char* asked = std::getenv("OMP_NUM_THREADS")) {
    const int count = std::atoi(asked);
    if (count > 0) return count;
  }
  return std::max(1, static_cast<int>(std::thread::hardware_concurrency()));
}

std::atomic<int>& wanted() {
  static std::atomic<int> count{threads_at_first()};
  return count;
}

// Neither is ever destroyed: a daemon thread may still search while the process ends.
struct Shared {
  std::mutex busy;
  std::unique_ptr<Pool> pool;
};

Shared*& shared() {
  static Shared* state = [] {
    // A child of fork has none of the threads: it starts anew, and leaves the parent's state where it is.
    pthread_atfork(nullptr, nullptr, [] { shared() = new Shared; });
    return new Shared;
  }();
  return state;
}

}  // namespace

void Team::barrier() {
  if (size_ == 1) return;
  const std::uint32_t generation = generation_.load(std::memory_order_relaxed);
  if (arrived_.fetch_add(1, std::memory_order_acq_rel) + 1 == size_) {
    arrived_.store(0, std::memory_order_relaxed);
    generation_.store(generation + 1, std::memory_order_release);
    generation_.notify_all();
  } else {
    wait_while(generation_, generation);
  }
}

int num_threads() { return wanted().load(); }

void set_num_threads(int count) { wanted().store(std::max(1, count)); }

void run_team(int most, TeamBody body, void* context) {
  const int threads = num_threads();
  const int size = std::clamp(most, 1, threads);
  Shared& state = *shared();
  if (size > 1 && state.busy.try_lock()) {
    const std::lock_guard<std::mutex> held(state.busy, std::adopt_lock);
    if (!state.pool || state.pool->workers() != threads - 1) {
      state.pool.reset();
      state.pool = std::make_unique<Pool>(threads - 1);
    }
    return state.pool->run(size, body, context);
  }
  Team alone(1);
  body(context, alone, 0);
}

}  // namespace jowa
