// A batch of search trees as flat arrays, roots first, and the beam search that grows them.
//
// Letters: R roots, K beam width, H horizon, A actions, M kept slots of the level being expanded
// (1 at the root level, K after), C child slots of that level (M * K), N nodes a root can ever hold.
// Trees of different roots never touch: every function below is one loop over roots, whose body reads
// and writes that root's rows alone. Buffers are sized once; a step allocates nothing.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace jowa {

// Every node ever evaluated, as a struct of arrays. Row r holds root r's nodes in order of evaluation.
struct Tree {
  std::int64_t roots = 0;     // R
  std::int64_t capacity = 0;  // N = K + (H - 1) K^2, or 0 when H = 0

  std::vector<std::int32_t> count;        // (R)     nodes in use
  std::vector<std::int32_t> parent;       // (R, N)  index within the same row; -1: the root itself
  std::vector<std::int32_t> action;       // (R, N)  the action that led here
  std::vector<std::int32_t> depth;        // (R, N)  1 for the root's children
  std::vector<std::int32_t> rank;         // (R, N)  place in the last beam that held it; -1: never kept
  std::vector<float> reward;              // (R, N)  imagined reward of the step that led here
  std::vector<float> value;               // (R, N)  V of the imagined state, as given
  std::vector<std::uint8_t> ended;        // (R, N)  the imagined end flag, as given
  std::vector<double> discounted_return;  // (R, N)  sum of gamma^i r_i along the path
  std::vector<double> score;              // (R, N)  discounted_return + gamma^depth V

  Tree(std::int64_t num_roots, std::int64_t nodes_per_root);
  void clear();
};

// What a step could not accept, and of which root. The trees are unchanged then.
enum class Fault { none, nan_q, no_legal_action, bad_reward, nan_value };

struct Status {
  Fault fault = Fault::none;
  std::int64_t root = 0;
};

struct Settings {
  std::int64_t num_roots;
  std::int64_t width;
  std::int64_t horizon;
  std::int64_t num_actions;
  double gamma;
  bool respect_ends;  // false: predicted ends are recorded, and otherwise ignored (as published)
};

// Beam search over a Tree. One level is expand() followed by keep().
class BeamSearch {
 public:
  explicit BeamSearch(const Settings& settings);

  // Back to the roots alone; reuses every buffer.
  void reset();

  // Proposes the K best legal actions of every live slot; fills three arrays of shape (R, C).
  // q (R, M, A), legal (R, A). Child c descends from slot c / K; an unused child has action 0.
  Status expand(const float* q, const std::uint8_t* legal, std::int64_t* parents, std::int64_t* actions,
                std::uint8_t* valid);

  // Scores the children with rewards, ends, values (R, C) and keeps the K best; fills four arrays (R, K).
  // A slot is an index into the C children, or into the previous K slots where carried.
  Status keep(const float* rewards, const std::uint8_t* ends, const float* values, std::int64_t* slots,
              std::uint8_t* carried, std::uint8_t* valid, std::uint8_t* alive);

  // The whole search when H = 0: the best legal action of q (R, A).
  Status decide_greedy(const float* q, const std::uint8_t* legal);

  bool finished() const;
  void best(std::int64_t* action, float* score) const;                                // (R), (R)
  void beam(float* scores, std::int64_t* actions, std::uint8_t* valid) const;  // (R, K), (R, K, H), (R, K)

  std::int64_t slots() const { return level_ == 0 ? 1 : settings_.width; }       // M
  std::int64_t children() const { return slots() * settings_.width; }            // C
  std::int64_t level() const { return level_; }                                  // levels kept so far
  bool pending() const { return pending_; }                                      // expand() awaits keep()
  bool decided() const { return level_ > 0 || decided_; }                        // best() has an answer
  const Settings& settings() const { return settings_; }
  const Tree& tree() const { return tree_; }

 private:
  bool live(std::int64_t root, std::int64_t slot) const;
  bool dead_node(std::int64_t root, std::int32_t node) const;
  void offer(std::int64_t root, std::int32_t node, std::int64_t slot, bool carried);
  void keep_root(std::int64_t root, const float* rewards, const std::uint8_t* ends, const float* values);

  Settings settings_;
  Tree tree_;
  std::int64_t level_ = 0;
  double discount_ = 1.0;  // gamma^level
  bool pending_ = false;
  bool decided_ = false;

  std::vector<std::int32_t> kept_count_;      // (R)        valid slots; they come first
  std::vector<std::int32_t> kept_;            // (R, K)     node of each slot, best first
  std::vector<std::int32_t> pending_action_;  // (R, K^2)   action of each child, -1 where unused
  std::vector<std::int32_t> next_count_;      // (R)        the beam that keep() is building
  std::vector<std::int32_t> next_;            // (R, K)     its nodes
  std::vector<std::int64_t> next_slot_;       // (R, K)     where each came from
  std::vector<std::uint8_t> next_carried_;    // (R, K)     whether that is a kept slot or a child
  std::vector<std::int32_t> greedy_action_;   // (R)        the answer of decide_greedy
  std::vector<float> greedy_score_;           // (R)
};

}  // namespace jowa
