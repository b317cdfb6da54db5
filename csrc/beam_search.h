// Beam search: what one root does at each step. jowa/planner/beam_tree.py documents the contract.
//
// Letters: R roots, K the widest beam, H the farthest horizon, A actions, M kept slots of the level being expanded
// (1 at the root level, K after), C child slots of that level (M * K), N nodes a root can hold, P pages of a root,
// J = max(H, 1) slots of a page table's row.
#pragma once

#include <bit>
#include <limits>

#include "tree.h"

namespace jowa {

struct BeamView {
  std::int64_t roots, width, horizon, actions;  // R, K, H, A
  std::int64_t nodes, pages;                    // N, P
  double gamma;
  double td_lambda;   // 1: imagined values alone, as published; below, Q along the path counts too
  bool respect_ends;  // false: predicted ends are recorded, and otherwise ignored (as published)

  std::int32_t *widths, *horizons;       // (R)      of each root, at most K and H; written by the owner of the state
  std::int32_t* failed;                  // (R)      TreeFault
  std::int32_t *count, *kept_count;      // (R)      nodes in use; valid slots of the beam, which come first
  std::int32_t* greedy_action;           // (R)      the best action by the root's own q; -1: unknown
  float* greedy_score;                   // (R)
  std::int32_t *parent, *action, *depth; // (R, N)   index in the same row, -1: the root; 1 for the root's children
  std::int32_t *rank, *page;             // (R, N)   place in the last beam that held it, -1: none; within the root's
  float *reward, *value;                 // (R, N)   as given
  std::uint8_t* ended;                   // (R, N)   as given
  double *discounted_return, *score;     // (R, N)   sum of decay^i gain_i along the path; that + decay^depth V
  std::int32_t *kept, *next;             // (R, K)   node of each slot, best first; the beam being built
  std::int64_t* next_slot;               // (R, K)   where each came from
  std::uint8_t* next_carried;            // (R, K)   whether that is a kept slot or a child
  std::int32_t *child_action, *child_page;  // (R, K * K)  of the proposed children; action -1: unused
  float* child_q;                        // (R, K * K)  by which they were proposed
  std::uint8_t* page_used;               // (R, P)

  template <typename Visit>
  void fields(Visit&& visit) {
    for (auto& [name, pointer] : {Named{"widths", &widths}, Named{"horizons", &horizons}, Named{"failed", &failed},
                                  Named{"count", &count}, Named{"kept_count", &kept_count},
                                  Named{"greedy_action", &greedy_action}})
      visit(name, *pointer, {roots});
    visit("greedy_score", greedy_score, {roots});
    for (auto& [name, pointer] : {Named{"parent", &parent}, Named{"action", &action}, Named{"depth", &depth},
                                  Named{"rank", &rank}, Named{"page", &page}})
      visit(name, *pointer, {roots, nodes});
    visit("reward", reward, {roots, nodes});
    visit("value", value, {roots, nodes});
    visit("ended", ended, {roots, nodes});
    visit("discounted_return", discounted_return, {roots, nodes});
    visit("score", score, {roots, nodes});
    visit("kept", kept, {roots, width});
    visit("next", next, {roots, width});
    visit("next_slot", next_slot, {roots, width});
    visit("next_carried", next_carried, {roots, width});
    visit("child_action", child_action, {roots, width * width});
    visit("child_page", child_page, {roots, width * width});
    visit("child_q", child_q, {roots, width * width});
    visit("page_used", page_used, {roots, pages});
  }

  JOWA_HD double decay() const { return gamma * td_lambda; }
  // What a step adds to its path: the share of Q that later steps do not take over, and of the reward what they do.
  JOWA_HD double gain(float q, float reward) const {
    if (td_lambda == 1.0) return static_cast<double>(reward);
    return (1.0 - td_lambda) * static_cast<double>(q) + td_lambda * static_cast<double>(reward);
  }
  JOWA_HD std::int64_t slots(std::int64_t level) const { return level == 0 ? 1 : width; }
  JOWA_HD std::int64_t table_slots() const { return horizon > 0 ? horizon : 1; }
  JOWA_HD bool searching(std::int64_t root, std::int64_t level) const {
    return failed[root] == 0 && level < horizons[root];
  }
  JOWA_HD bool dead_node(std::int64_t root, std::int32_t node) const {
    return respect_ends && ended[root * nodes + node];
  }
  // Whether the slot is expanded at this level.
  JOWA_HD bool live(std::int64_t root, std::int64_t slot, std::int64_t level) const {
    if (!searching(root, level)) return false;
    return level == 0 ? slot == 0 : slot < kept_count[root] && !dead_node(root, kept[root * width + slot]);
  }

 private:
  struct Named {
    const char* name;
    std::int32_t** pointer;
  };
};

// Where expand writes: (R, C) each, page_table (R, C, J).
struct Proposals {
  std::int64_t *parents, *actions;
  std::uint8_t* valid;
  std::int32_t *page_table, *depths;
};

// Where keep writes: (R, K) each.
struct KeptSlots {
  std::int64_t* slots;
  std::uint8_t *carried, *valid, *alive;
};

JOWA_HD inline TreeFault check_legal_q(const float* q, const std::uint8_t* legal, std::int64_t num_actions,
                                       bool scored) {
  // Without branches, so that compilers vectorise it.
  std::uint8_t any = 0, bad = 0;
  const float factor = scored ? 0.0F : 1.0F;  // an infinite q times 0 is NaN
  for (std::int64_t a = 0; a < num_actions; ++a) {
    any |= legal[a];
    bad |= static_cast<std::uint8_t>(legal[a] & static_cast<std::uint8_t>(is_nan(q[a] * factor)));
  }
  return bad ? TreeFault::bad_q : any ? TreeFault::none : TreeFault::no_legal_action;
}

// Where an action stands among those of a state, as a number: the larger q first, ties to the lowest index.
// Numbers are chosen from without branches; which of two q is larger no processor can predict.
JOWA_HD inline std::int64_t order_of(float q, std::int64_t action) {
  auto bits = std::bit_cast<std::int32_t>(q + 0.0F);  // -0 becomes 0
  bits ^= (bits >> 31) & std::numeric_limits<std::int32_t>::max();
  return static_cast<std::int64_t>(bits) * (std::int64_t{1} << 32) - action;
}

// Writes the indices of the `limit` largest legal q into `actions`, best first, ties to the lowest index;
// returns how many there are.
JOWA_HD inline std::int64_t best_actions(const float* q, const std::uint8_t* legal, std::int64_t num_actions,
                                         std::int64_t limit, std::int32_t* actions) {
  constexpr std::int64_t kNone = std::numeric_limits<std::int64_t>::min();
  std::int64_t last = std::numeric_limits<std::int64_t>::max();
  for (std::int64_t found = 0; found < limit; ++found) {
    std::int64_t best = kNone;
    for (std::int64_t a = 0; a < num_actions; ++a) {
      const std::int64_t order = order_of(q[a], a);
      const auto open = -static_cast<std::int64_t>((legal[a] != 0) & (order < last));  // all bits or none
      const std::int64_t offered = (order & open) | (kNone & ~open);
      best = best < offered ? offered : best;
    }
    if (best == kNone) return found;
    actions[found] = static_cast<std::int32_t>(-best & 0xFFFFFFFF);
    last = best;
  }
  return limit;
}

struct ResetBeam {
  BeamView v;
  JOWA_HD void operator()(std::int64_t root) const {
    v.failed[root] = v.count[root] = v.kept_count[root] = 0;
    v.greedy_action[root] = -1;
    v.greedy_score[root] = std::numeric_limits<float>::quiet_NaN();
    for (std::int64_t i = 0; i < v.pages; ++i) v.page_used[root * v.pages + i] = 0;
    for (std::int64_t i = 0; i < v.width * v.width; ++i) v.child_action[root * v.width * v.width + i] = -1;
  }
};

struct ExpandBeam {
  BeamView v;
  std::int64_t level;
  const float* q;             // (R, M, A)
  const std::uint8_t* legal;  // (R, A)
  Proposals out;

  JOWA_HD void operator()(std::int64_t root) const {
    const std::int64_t slots = v.slots(level), width = v.width;
    const float* root_q = q + root * slots * v.actions;
    const std::uint8_t* root_legal = legal + root * v.actions;
    check(root, root_q, root_legal);
    if (level == 0 && v.failed[root] == 0) {
      best_actions(root_q, root_legal, v.actions, 1, v.greedy_action + root);
      v.greedy_score[root] = root_q[v.greedy_action[root]];
    }
    std::int32_t* chosen = v.child_action + root * width * width;
    float* chosen_q = v.child_q + root * width * width;
    for (std::int64_t slot = 0; slot < slots; ++slot) {
      std::int64_t found = 0;
      if (v.live(root, slot, level))
        found = best_actions(root_q + slot * v.actions, root_legal, v.actions, v.widths[root], chosen + slot * width);
      for (std::int64_t i = 0; i < found; ++i)
        chosen_q[slot * width + i] = root_q[slot * v.actions + chosen[slot * width + i]];
      for (std::int64_t i = found; i < width; ++i) chosen[slot * width + i] = -1;
    }
    write(root, chosen);
  }

 private:
  JOWA_HD void check(std::int64_t root, const float* root_q, const std::uint8_t* root_legal) const {
    if (v.failed[root]) return;
    for (std::int64_t slot = 0; slot < v.slots(level); ++slot) {
      // A root of horizon 0 has no live slot, and decides by its own q all the same.
      if (level > 0 && !v.live(root, slot, level)) continue;
      const TreeFault fault = check_legal_q(root_q + slot * v.actions, root_legal, v.actions, v.td_lambda != 1.0);
      if (fault == TreeFault::none) continue;
      v.failed[root] = static_cast<std::int32_t>(fault);
      return;
    }
  }

  // The proposals as the caller sees them, each with a page of its own.
  JOWA_HD void write(std::int64_t root, const std::int32_t* chosen) const {
    const std::int64_t width = v.width, children = v.slots(level) * width, columns = v.table_slots();
    std::uint8_t* used = v.page_used + root * v.pages;
    std::int32_t* pages = v.child_page + root * width * width;
    const auto first_page = static_cast<std::int32_t>(root * v.pages);
    std::int32_t next_page = 0;
    for (std::int64_t child = 0; child < children; ++child) {
      const std::int64_t at = root * children + child;
      const bool valid = chosen[child] >= 0;
      std::int32_t* row = out.page_table + at * columns;
      out.parents[at] = child / width;
      out.actions[at] = valid ? chosen[child] : 0;
      out.valid[at] = valid;
      out.depths[at] = valid ? static_cast<std::int32_t>(level) : -1;
      for (std::int64_t i = 0; i < columns; ++i) row[i] = -1;
      if (!valid) continue;
      pages[child] = next_page = take_page(used, next_page);
      row[level] = first_page + next_page;
      if (level == 0) continue;
      std::int32_t node = v.kept[root * width + child / width];
      for (std::int64_t i = level - 1; node >= 0; --i, node = v.parent[root * v.nodes + node])
        row[i] = first_page + v.page[root * v.nodes + node];
    }
  }
};

struct KeepBeam {
  BeamView v;
  std::int64_t level;
  double discount;            // decay^level
  const float* rewards;       // (R, C)
  const std::uint8_t* ends;   // (R, C)
  const float* values;        // (R, C)
  KeptSlots out;

  JOWA_HD void operator()(std::int64_t root) const {
    check(root);
    const bool searching = v.searching(root, level);
    if (searching) build(root);
    const std::int64_t width = v.width;
    for (std::int64_t slot = 0; slot < width; ++slot) {
      const std::int64_t at = root * width + slot;
      const bool used = slot < v.kept_count[root];
      out.slots[at] = !used ? 0 : searching ? v.next_slot[at] : slot;
      out.carried[at] = used && (!searching || v.next_carried[at]);
      out.valid[at] = used;
      out.alive[at] = used && v.live(root, slot, level + 1);
    }
    free_pages(root);
  }

 private:
  JOWA_HD void check(std::int64_t root) const {
    if (!v.searching(root, level)) return;
    const std::int64_t width = v.width, children = v.slots(level) * width;
    for (std::int64_t child = 0; child < children; ++child) {
      if (v.child_action[root * width * width + child] < 0) continue;
      const std::int64_t at = root * children + child;
      TreeFault fault = TreeFault::none;
      if (!is_finite(rewards[at])) fault = TreeFault::bad_reward;
      else if (is_nan(values[at])) fault = TreeFault::nan_value;
      if (fault == TreeFault::none) continue;
      v.failed[root] = static_cast<std::int32_t>(fault);
      return;
    }
  }

  // Inserts a candidate into the beam being built if it is among the best so far. Earlier candidates win ties.
  JOWA_HD void offer(std::int64_t root, std::int64_t& count, std::int32_t node, std::int64_t slot, bool carried) const {
    const std::int64_t first = root * v.width, limit = v.widths[root];
    const double* score = v.score + root * v.nodes;
    std::int64_t place = count;
    while (place > 0 && score[v.next[first + place - 1]] < score[node]) --place;
    if (place == limit) return;
    count = count + 1 < limit ? count + 1 : limit;
    for (std::int64_t i = first + count - 1; i > first + place; --i) {
      v.next[i] = v.next[i - 1];
      v.next_slot[i] = v.next_slot[i - 1];
      v.next_carried[i] = v.next_carried[i - 1];
    }
    v.next[first + place] = node;
    v.next_slot[first + place] = slot;
    v.next_carried[first + place] = carried;
  }

  JOWA_HD std::int32_t add(std::int64_t root, std::int64_t child) const {
    const std::int64_t width = v.width, first_node = root * v.nodes;
    const std::int64_t proposed = root * width * width + child, given = root * v.slots(level) * width + child;
    const std::int32_t parent = level == 0 ? -1 : v.kept[root * width + child / width];
    const std::int32_t node = v.count[root]++;
    const std::int64_t at = first_node + node;
    v.parent[at] = parent;
    v.action[at] = v.child_action[proposed];
    v.page[at] = v.child_page[proposed];
    v.depth[at] = static_cast<std::int32_t>(level + 1);
    v.rank[at] = -1;
    v.reward[at] = rewards[given];
    v.value[at] = values[given];
    v.ended[at] = ends[given];
    const double before = parent < 0 ? 0.0 : v.discounted_return[first_node + parent];
    v.discounted_return[at] = before + discount * v.gain(v.child_q[proposed], rewards[given]);
    // A discount of zero silences even an infinite value: 0 * inf would be NaN.
    const double next_discount = discount * v.decay();
    const bool counts = next_discount != 0.0 && !v.dead_node(root, node);
    v.score[at] = v.discounted_return[at] + (counts ? next_discount * static_cast<double>(values[given]) : 0.0);
    return node;
  }

  JOWA_HD void build(std::int64_t root) const {
    const std::int64_t width = v.width, first = root * width, first_node = root * v.nodes;
    std::int64_t count = 0;
    for (std::int64_t slot = 0; slot < v.kept_count[root]; ++slot)
      if (v.dead_node(root, v.kept[first + slot])) offer(root, count, v.kept[first + slot], slot, true);
    for (std::int64_t child = 0; child < v.slots(level) * width; ++child)
      if (v.child_action[first * width + child] >= 0) offer(root, count, add(root, child), child, false);
    v.kept_count[root] = static_cast<std::int32_t>(count);
    for (std::int64_t slot = 0; slot < count; ++slot) {
      v.kept[first + slot] = v.next[first + slot];
      v.rank[first_node + v.kept[first + slot]] = static_cast<std::int32_t>(slot);
    }
  }

  // Only the pages that the nodes to be expanded next descend from stay taken.
  JOWA_HD void free_pages(std::int64_t root) const {
    std::uint8_t* used = v.page_used + root * v.pages;
    for (std::int64_t i = 0; i < v.pages; ++i) used[i] = 0;
    for (std::int64_t slot = 0; slot < v.kept_count[root]; ++slot) {
      if (!v.live(root, slot, level + 1)) continue;
      for (std::int32_t node = v.kept[root * v.width + slot]; node >= 0; node = v.parent[root * v.nodes + node])
        used[v.page[root * v.nodes + node]] = 1;
    }
  }
};

struct BestOfBeam {
  BeamView v;
  std::int64_t* actions;  // (R)
  float* scores;          // (R)
  JOWA_HD void operator()(std::int64_t root) const {
    actions[root] = v.greedy_action[root];
    scores[root] = v.greedy_score[root];
    if (v.kept_count[root] == 0) return;
    const std::int64_t first = root * v.nodes;
    std::int32_t node = v.kept[root * v.width];
    scores[root] = static_cast<float>(v.score[first + node]);
    while (v.parent[first + node] >= 0) node = v.parent[first + node];
    actions[root] = v.action[first + node];
  }
};

}  // namespace jowa
