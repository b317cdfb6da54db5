// Contexts, pages and the two things done with them: encoding and imagining. Contract: jowa/planner/engine.py.
#pragma once

#include <array>
#include <string>
#include <vector>

#include "forward.h"
#include "guesses.h"

namespace jowa::engine {

// Letters as in the contract. All arrays are dense, the last axis fastest.
struct ContextView {
  std::int64_t roots, steps;
  const std::int64_t* tokens;   // (R, n, 36)
  const std::int64_t* actions;  // (R, n)
  const std::int64_t* lengths;
  const std::int64_t* tasks;
  const std::int64_t* slots;    // nullptr: 0 to R - 1
};

struct LevelView {
  std::int64_t roots, rows, slots;
  const std::int64_t* actions;      // (R, M)
  const std::int32_t* pages;        // (R, M, J)
  const std::int32_t* depths;       // (R, M)
  const std::int64_t* drafts;       // (R, M, 36) or nullptr
  const float* sureness;            // (R, M, 36) or nullptr
  const std::int64_t* seeds;        // (R, M) or nullptr: the most likely classes
  float temperature;
};

struct Imagined {  // zeroed by the caller
  std::int64_t* tokens;
  float* rewards;
  std::uint8_t* ends;
  float* q;
  float* spread;
};

struct Tally {
  std::int64_t frames = 0, row_passes = 0, fed = 0, guessed = 0, accepted = 0;
  std::array<std::int64_t, kFrame> misses{};
};

class Engine {
 public:
  Engine(const Sizes& sizes, const Kernels& kernels);

  Model& model() { return model_; }
  const Kernels& kernels() const { return kernels_; }
  const Guessing::Costs& costs() const { return guessing_.costs(); }

  void reserve(std::int64_t roots, std::int64_t pages);
  // q and spread (R, A). Throws std::invalid_argument before anything is changed.
  void encode(const ContextView& context, float* q, float* spread);
  Tally imagine(const LevelView& level, const Imagined& out);
  // Measures what a pass and a token cost, once; imagining with drafts does it too.
  void measure();

 private:
  struct Row {
    std::int64_t index;  // in the level
    std::int32_t root, depth;
    const std::int32_t* pages;
    std::int32_t next = 0;     // feed that comes next: 0 the action, i the frame's token i - 1
    std::int32_t guesses = 0;  // fed behind it in this pass
    bool broken = false;       // a head answered NaN or infinity: its reward and values become NaN
    std::array<std::int32_t, kFrame> tokens;
  };

  void check(const ContextView& context) const;
  void check(const LevelView& level);
  void check_row(const LevelView& level, std::int64_t index) const;
  void plan_contexts(const ContextView& context, std::int64_t first, std::int64_t last);
  void plan_steps(const LevelView& level);
  void settle(const LevelView& level, Tally& tally);
  void work(Team& team, int rank, const LevelView& level, const Imagined& out, Tally& tally);
  void decide(const LevelView& level, std::int64_t first, std::int64_t last);
  void judge(Team& team, int rank, const LevelView& level, const Imagined& out);
  std::int64_t slot_of(const ContextView& context, std::int64_t root) const;
  double time_pass(std::int32_t tokens, int threads);

  Model model_;
  const Kernels& kernels_;
  Forward forward_;
  Guessing guessing_;
  Store contexts_{}, pages_{};
  Memory context_memory_, page_memory_;
  std::int64_t num_roots_ = 0, num_pages_ = 0;
  std::vector<std::int32_t> lengths_, tasks_;  // by slot; length 0: nothing encoded yet
  std::vector<std::uint32_t> owner_;           // by page: the level that last filled it
  std::uint32_t level_ = 0;

  // Of the call at work.
  Pass pass_;
  std::vector<Row> rows_;
  std::vector<std::int32_t> open_;  // rows that are not finished, in order
  std::size_t active_ = 0;          // how many of them are in this pass
  std::vector<Guessing::Candidate> candidates_;
  std::vector<std::int32_t> predicted_;
  Memory first_hidden_, last_hidden_, q_;
};

}  // namespace jowa::engine
