// Monte-Carlo tree search: what one root does at each step. See mcts_state.h for the state and the letters.
#pragma once

#include <limits>

#include "mcts_state.h"

namespace jowa {

// Where select writes: (R, M) each, page_table (R, M, J).
struct Leaves {
  std::int32_t *nodes, *parents;
  std::int64_t* actions;
  std::uint8_t* valid;
  std::int32_t *page_table, *depths;
};

JOWA_HD inline float best_legal(const MCTSView& v, const float* q) {
  float best = -std::numeric_limits<float>::infinity();
  for (std::int64_t a = 0; a < v.actions; ++a)
    if (v.legal[a] && q[a] > best) best = q[a];
  return best;
}

JOWA_HD inline TreeFault check_finite_q(const MCTSView& v, const float* q) {
  for (std::int64_t a = 0; a < v.actions; ++a)
    if (v.legal[a] && !is_finite(q[a])) return TreeFault::bad_q;
  return TreeFault::none;
}

// A node's priors from its q: softmax(q / temperature) over legal actions.
JOWA_HD inline void set_priors(const MCTSView& v, std::int32_t node) {
  const float* q = v.q + node * v.actions;
  float* prior = v.prior + node * v.actions;
  const auto highest = static_cast<double>(best_legal(v, q));
  double sum = 0.0;
  for (std::int64_t a = 0; a < v.actions; ++a)
    if (v.legal[a]) sum += std::exp((static_cast<double>(q[a]) - highest) / v.settings.temperature);
  for (std::int64_t a = 0; a < v.actions; ++a) {
    const double x = (static_cast<double>(q[a]) - highest) / v.settings.temperature;
    prior[a] = v.legal[a] ? static_cast<float>(std::exp(x) / sum) : 0.0F;
  }
}

// Makes `node` an evaluated state that can be expanded.
JOWA_HD inline void open_node(const MCTSView& v, std::int32_t node, const float* q) {
  for (std::int64_t a = 0; a < v.actions; ++a) {
    // What an illegal action holds may be NaN, and is never read.
    v.q[node * v.actions + a] = v.legal[a] ? q[a] : 0.0F;
    v.children[node * v.actions + a] = -1;
    if (v.legal[a]) see_q(v, static_cast<double>(q[a]));
  }
  set_priors(v, node);
}

JOWA_HD inline void free_page(const MCTSView& v, std::int32_t node) {
  v.page_used[v.page[node]] = 0;
  v.page[node] = -1;
  --*v.pages_used;
}

// Counts a visit of `node` that found `value`, and passes the return on to the root.
JOWA_HD inline void back_up(const MCTSView& v, std::int32_t node, double value) {
  for (;; node = v.parent[node]) {
    ++v.visits[node];
    v.value_sum[node] += value;
    if (v.parent[node] < 0) return;
    const double mean = v.value_sum[node] / v.visits[node];
    see_q(v, static_cast<double>(v.reward[node]) + v.settings.gamma * mean);
    value = static_cast<double>(v.reward[node]) + v.settings.gamma * value;
  }
}

JOWA_HD inline void add_pending(const MCTSView& v, std::int32_t node, std::int32_t change) {
  for (; node >= 0; node = v.parent[node]) v.pending[node] += change;
}

// No root has begun.
struct ResetMCTS {
  MCTSView all;
  JOWA_HD void operator()(std::int64_t root) const {
    const MCTSView v = all.at(root);
    *v.failed = *v.count = *v.leaves = *v.max_depth = 0;
    *v.simulations = 0;
    *v.budget = -1;
    *v.exhausted = 1;
  }
};

struct StartMCTS {
  MCTSView all;
  const std::uint8_t* active;     // (R)
  const float* q;                 // (R, A)
  const std::uint8_t* legal;      // (R, A)
  const std::int64_t* max_depth;  // (R)
  const float *priors, *gumbel;   // (R, A) or null
  const std::int64_t *budget, *considered;  // (R) or null

  JOWA_HD void operator()(std::int64_t root) const {
    if (!active[root]) return;
    const MCTSView v = all.at(root);
    const float* given = q + root * v.actions;
    clear(v, root);
    const TreeFault fault = check(v, given, root);
    *v.failed = static_cast<std::int32_t>(fault);
    if (fault == TreeFault::none) {
      begin(v, given);
      for (std::int64_t a = 0; a < v.actions; ++a) {
        if (gumbel) v.gumbel[a] = gumbel[root * v.actions + a];
        if (priors) v.prior[a] = v.legal[a] ? priors[root * v.actions + a] : 0.0F;
      }
    }
    update_exhausted(v);
  }

 private:
  JOWA_HD void clear(const MCTSView& v, std::int64_t root) const {
    *v.simulations = 0;
    *v.max_depth = static_cast<std::int32_t>(max_depth[root]);
    *v.budget = budget ? budget[root] : -1;
    *v.count = *v.leaves = *v.trail_count = *v.pages_used = 0;
    for (std::int64_t i = 0; i < v.pages; ++i) v.page_used[i] = 0;
    std::int64_t num_legal = 0;
    for (std::int64_t a = 0; a < v.actions; ++a) {
      v.legal[a] = legal[root * v.actions + a];
      v.gumbel[a] = 0.0F;
      v.visits_before[a] = 0;
      num_legal += v.legal[a] != 0;
    }
    const std::int64_t wanted = considered ? considered[root] : num_legal;
    *v.considered = static_cast<std::int32_t>(wanted < num_legal ? wanted : num_legal);
    *v.low = std::numeric_limits<double>::infinity();
    *v.high = -std::numeric_limits<double>::infinity();
  }

  JOWA_HD TreeFault check(const MCTSView& v, const float* given, std::int64_t root) const {
    bool any = false;
    for (std::int64_t a = 0; a < v.actions; ++a) {
      if (!v.legal[a]) continue;
      any = true;
      if (!is_finite(given[a])) return TreeFault::bad_q;
      const std::int64_t at = root * v.actions + a;
      if (priors && !(is_finite(priors[at]) && priors[at] >= 0.0F)) return TreeFault::bad_prior;
      if (gumbel && !is_finite(gumbel[at])) return TreeFault::bad_prior;
    }
    return any ? TreeFault::none : TreeFault::no_legal_action;
  }

  // The root counts its own evaluation as a visit, as every node does.
  JOWA_HD void begin(const MCTSView& v, const float* given) const {
    *v.count = 1;
    v.parent[0] = v.action[0] = v.page[0] = -1;
    v.depth[0] = v.pending[0] = v.origin[0] = 0;
    v.reward[0] = 0.0F;
    v.ended[0] = 0;
    open_node(v, 0, given);
    v.value[0] = best_legal(v, given);
    v.visits[0] = 1;
    v.value_sum[0] = static_cast<double>(v.value[0]);
  }
};

struct SelectMCTS {
  MCTSView all;
  const std::int64_t* wanted;  // (R) simulations of this round at most
  std::int64_t rows, columns;  // M, J
  Leaves out;

  JOWA_HD void operator()(std::int64_t root) const {
    const MCTSView v = all.at(root);
    const std::int64_t most = wanted[root] < rows ? wanted[root] : rows;
    for (std::int64_t i = 0; i < most && !*v.exhausted && within_budget(v); ++i)
      if (!simulate(v)) break;
    for (std::int64_t row = 0; row < rows; ++row) write(v, root, row);
  }

 private:
  JOWA_HD static bool within_budget(const MCTSView& v) {
    return *v.budget < 0 || *v.simulations + *v.leaves < *v.budget;
  }

  // One walk down the tree; false when it meets a state that is being evaluated, or no room is left.
  JOWA_HD static bool simulate(const MCTSView& v) {
    std::int32_t node = 0;
    for (;;) {
      const std::int64_t action = choose(v, node);
      const std::int32_t child = v.children[node * v.actions + action];
      if (child < 0) return add_leaf(v, node, action);
      if (v.visits[child] == 0) return false;
      if (is_terminal(v, child)) {
        back_up(v, child, static_cast<double>(v.value[child]));
        ++*v.simulations;
        update_exhausted(v);
        return true;
      }
      node = child;
    }
  }

  JOWA_HD static bool add_leaf(const MCTSView& v, std::int32_t parent, std::int64_t action) {
    if (*v.count == v.nodes || *v.pages_used == v.pages) return false;
    const std::int32_t node = (*v.count)++;
    ++*v.leaves;
    ++*v.pages_used;
    v.children[parent * v.actions + action] = node;
    v.parent[node] = parent;
    v.action[node] = static_cast<std::int32_t>(action);
    v.depth[node] = v.depth[parent] + 1;
    v.page[node] = take_page(v.page_used, 0);
    v.visits[node] = v.pending[node] = 0;
    v.value_sum[node] = 0.0;
    v.origin[node] = node;
    add_pending(v, node, 1);
    return true;
  }

  JOWA_HD void write(const MCTSView& v, std::int64_t root, std::int64_t row) const {
    const std::int64_t at = root * rows + row;
    const bool valid = row < *v.leaves;
    const std::int32_t node = valid ? *v.count - *v.leaves + static_cast<std::int32_t>(row) : 0;
    const auto first_page = static_cast<std::int32_t>(root * v.pages);
    std::int32_t* table = out.page_table + at * columns;
    out.nodes[at] = node;
    out.parents[at] = valid ? v.parent[node] : 0;
    out.actions[at] = valid ? v.action[node] : 0;
    out.valid[at] = valid;
    out.depths[at] = valid ? v.depth[node] - 1 : -1;
    for (std::int64_t i = 0; i < columns; ++i) table[i] = -1;
    if (!valid) return;
    for (std::int64_t i = 0; i < *v.trail_count; ++i) table[i] = first_page + v.trail[i];
    for (std::int32_t i = node; i > 0; i = v.parent[i]) table[v.depth[i] - 1] = first_page + v.page[i];
  }
};

struct BackUpMCTS {
  MCTSView all;
  std::int64_t rows;         // M
  const float* rewards;      // (R, M)
  const std::uint8_t* ends;  // (R, M)
  const float* q;            // (R, M, A)

  JOWA_HD void operator()(std::int64_t root) const {
    const MCTSView v = all.at(root);
    const std::int32_t leaves = *v.leaves, first = *v.count - leaves;
    for (std::int32_t i = 0; i < leaves && *v.failed == 0; ++i) {
      TreeFault fault = check_finite_q(v, q + (root * rows + i) * v.actions);
      if (!is_finite(rewards[root * rows + i])) fault = TreeFault::bad_reward;
      *v.failed = static_cast<std::int32_t>(fault);
    }
    if (leaves > 0 && *v.failed) withdraw(v, first);
    else
      for (std::int32_t i = 0; i < leaves; ++i) evaluate(v, first + i, root * rows + i);
    *v.leaves = 0;
    if (*v.count > 0) update_exhausted(v);
  }

 private:
  // Takes the round's leaves back: a root that failed stays as it was before them.
  JOWA_HD static void withdraw(const MCTSView& v, std::int32_t first) {
    while (*v.count > first) {
      const std::int32_t node = *v.count - 1;
      add_pending(v, node, -1);
      v.children[v.parent[node] * v.actions + v.action[node]] = -1;
      free_page(v, node);
      --*v.count;
    }
  }

  JOWA_HD void evaluate(const MCTSView& v, std::int32_t node, std::int64_t at) const {
    const float* given = q + at * v.actions;
    v.reward[node] = rewards[at];
    v.ended[node] = ends[at];
    v.value[node] = v.settings.respect_ends && ends[at] ? 0.0F : best_legal(v, given);
    add_pending(v, node, -1);
    if (is_terminal(v, node)) {
      free_page(v, node);
      for (std::int64_t a = 0; a < v.actions; ++a) {
        v.q[node * v.actions + a] = v.prior[node * v.actions + a] = 0.0F;
        v.children[node * v.actions + a] = -1;
      }
    } else {
      open_node(v, node, given);
    }
    back_up(v, node, static_cast<double>(v.value[node]));
    ++*v.simulations;
  }
};

struct BestOfMCTS {
  MCTSView all;
  std::int64_t* actions;  // (R)
  float* values;          // (R)
  JOWA_HD void operator()(std::int64_t root) const {
    const MCTSView v = all.at(root);
    actions[root] = *v.count ? best_action(v) : -1;
    values[root] = *v.count ? static_cast<float>(edge_q(v, 0, actions[root])) : std::numeric_limits<float>::quiet_NaN();
  }
};

struct AdvanceMCTS {
  MCTSView all;
  const std::uint8_t* mask;     // (R)
  const std::int64_t* actions;  // (R)
  const float* gumbel;          // (R, A) or null
  std::uint8_t* kept;           // (R)

  JOWA_HD void operator()(std::int64_t root) const {
    const MCTSView v = all.at(root);
    kept[root] = 0;
    for (std::int32_t i = 0; i < *v.count; ++i) v.origin[i] = i;
    if (!mask[root] || *v.failed || *v.count == 0) return;
    if (actions[root] < 0 || actions[root] >= v.actions) return;
    const std::int32_t child = v.children[actions[root]];
    if (child < 0 || is_terminal(v, child)) return;
    kept[root] = 1;
    v.trail[(*v.trail_count)++] = v.page[child];
    move_subtree(v, child);
    retake_pages(v);
    begin(v, root);
    update_exhausted(v);
  }

 private:
  // Keeps `top` and what descends from it, at the front of the rows and in the same order.
  JOWA_HD static void move_subtree(const MCTSView& v, std::int32_t top) {
    std::int32_t kept_count = 0;
    for (std::int32_t i = 0; i < *v.count; ++i) {
      const bool stays = i == top || (i > top && v.parent[i] >= top && v.moved[v.parent[i]] >= 0);
      v.moved[i] = stays ? kept_count++ : -1;
    }
    for (std::int32_t i = top; i < *v.count; ++i)
      if (v.moved[i] >= 0) move(v, i, v.moved[i]);
    *v.count = kept_count;
    v.parent[0] = v.action[0] = -1;
  }

  JOWA_HD static void move(const MCTSView& v, std::int32_t from, std::int32_t to) {
    v.parent[to] = v.parent[from] < 0 ? -1 : v.moved[v.parent[from]];
    v.action[to] = v.action[from], v.depth[to] = v.depth[from], v.page[to] = v.page[from];
    v.visits[to] = v.visits[from], v.pending[to] = v.pending[from], v.origin[to] = from;
    v.reward[to] = v.reward[from], v.value[to] = v.value[from], v.value_sum[to] = v.value_sum[from];
    v.ended[to] = v.ended[from];
    for (std::int64_t a = 0; a < v.actions; ++a) {
      const std::int64_t source = from * v.actions + a, target = to * v.actions + a;
      v.q[target] = v.q[source], v.prior[target] = v.prior[source];
      v.children[target] = v.children[source] < 0 ? -1 : v.moved[v.children[source]];
    }
  }

  // Only pages of the way to the root and of the nodes that stayed are taken.
  JOWA_HD static void retake_pages(const MCTSView& v) {
    for (std::int64_t i = 0; i < v.pages; ++i) v.page_used[i] = 0;
    for (std::int32_t i = 0; i < *v.trail_count; ++i) v.page_used[v.trail[i]] = 1;
    for (std::int32_t i = 0; i < *v.count; ++i)
      if (v.page[i] >= 0) v.page_used[v.page[i]] = 1;
    *v.pages_used = 0;
    for (std::int64_t i = 0; i < v.pages; ++i) *v.pages_used += v.page_used[i];
  }

  // A new decision: its simulations count from 0, and the range of Q is that of the nodes that stayed.
  JOWA_HD void begin(const MCTSView& v, std::int64_t root) const {
    *v.simulations = 0;
    *v.low = std::numeric_limits<double>::infinity();
    *v.high = -std::numeric_limits<double>::infinity();
    for (std::int32_t i = 0; i < *v.count; ++i) {
      if (is_terminal(v, i)) continue;
      for (std::int64_t a = 0; a < v.actions; ++a) {
        if (!v.legal[a]) continue;
        see_q(v, static_cast<double>(v.q[i * v.actions + a]));
        see_q(v, edge_q(v, i, a));
      }
    }
    for (std::int64_t a = 0; a < v.actions; ++a) {
      v.gumbel[a] = gumbel ? gumbel[root * v.actions + a] : 0.0F;
      v.visits_before[a] = v.children[a] < 0 ? 0 : v.visits[v.children[a]];
    }
  }
};

}  // namespace jowa
