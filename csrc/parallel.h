// A team of threads for short work: the search trees' loops over roots, the layers of a forward pass.
//
// One pool a process, made when it is first needed and kept. A caller that finds the pool at work for another one
// does its own work alone, so nothing here waits for somebody else's search; bodies must therefore be right for
// every team size. Bodies must not throw.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <memory>

namespace jowa {

// The threads that work on one call together; `size` of them, with ranks 0 to size - 1.
class Team {
 public:
  explicit Team(int size) : size_(size) {}
  int size() const { return size_; }
  // Returns when all of the team have come here; what each wrote before is seen by all after.
  void barrier();

 private:
  int size_;
  std::atomic<int> arrived_{0};
  std::atomic<std::uint32_t> generation_{0};
};

// Threads that a team may have, the caller's included: OMP_NUM_THREADS, failing that the processors at hand.
int num_threads();
void set_num_threads(int count);  // at least 1; for calls that begin later

using TeamBody = void (*)(void* context, Team& team, int rank);
void run_team(int most, TeamBody body, void* context);

// body(team, rank) on at most `most` threads at once; returns when all have returned.
template <typename Body>
void run_team(int most, Body&& body) {
  using Plain = std::remove_reference_t<Body>;
  run_team(
      most, [](void* context, Team& team, int rank) { (*static_cast<Plain*>(context))(team, rank); },
      const_cast<void*>(static_cast<const void*>(std::addressof(body))));
}

// body(first, last) over [0, count) in one stretch a thread, none shorter than `grain` unless it is the only one.
template <typename Body>
void parallel_for(std::int64_t count, std::int64_t grain, Body&& body) {
  const std::int64_t most = std::clamp<std::int64_t>(count / std::max<std::int64_t>(grain, 1), 1, 1 << 16);
  if (most == 1) return body(std::int64_t{0}, count);
  run_team(static_cast<int>(most), [&](Team& team, int rank) {
    const std::int64_t size = team.size();
    const std::int64_t first = count * rank / size, last = count * (rank + 1) / size;
    if (first < last) body(first, last);
  });
}

}  // namespace jowa
