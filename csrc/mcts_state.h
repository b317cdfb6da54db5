// The state of Monte-Carlo tree search, and what one root reads from it. jowa/planner/mcts_tree.py documents the
// contract; mcts.h changes the state.
//
// Letters: R roots, N = capacity + 1 nodes (node 0 is the root), A actions, P = capacity pages, M leaves of a round,
// J slots of a page table's row. Nodes stand in order of creation, so a parent always stands before its children,
// and the leaves of a round that waits for its evaluation are the last ones; they are the nodes without visits.
#pragma once

#include <cmath>

#include "tree.h"

namespace jowa {

struct MCTSSettings {
  double gamma, temperature, c_init, c_base;
  bool respect_ends, gumbel;
  double c_visit, c_scale;
};

struct MCTSView {
  std::int64_t roots, nodes, actions, pages;  // R, N, A, P
  MCTSSettings settings;

  std::int32_t* failed;                 // (R)       TreeFault
  std::uint8_t* exhausted;              // (R)       the root takes no more leaves
  std::int64_t *simulations, *budget;   // (R)       done; at most, -1: no limit
  std::int32_t *considered, *max_depth; // (R)       actions that the Gumbel root tries; levels below the context
  std::int32_t *count, *leaves;         // (R)       nodes in use, 0: not begun; how many of them await evaluation
  std::int32_t *trail_count, *pages_used;  // (R)    ancestors of the root's children; pages taken
  double *low, *high;                   // (R)       of all Q seen
  std::uint8_t* legal;                  // (R, A)
  float* gumbel;                        // (R, A)    noise of the root's actions
  std::int32_t* visits_before;          // (R, A)    visits of the root's children when this decision began
  std::int32_t* trail;                  // (R, P)    pages of the imagined steps from the context to the root
  std::uint8_t* page_used;              // (R, P)
  std::int32_t *parent, *action, *depth;  // (R, N)  index in the row, -1: none; imagined steps from the context
  std::int32_t *page, *visits, *pending;  // (R, N)  -1: freed; backed up; simulations that await their evaluation
  std::int32_t *origin;                 // (R, N)    the node's index before the last advance
  std::int32_t *moved;                  // (R, N)    scratch of advance: the node's index after it
  float *reward, *value;                // (R, N)    of the step that led here; V of the state, 0 after an end
  double* value_sum;                    // (R, N)    over its visits
  std::uint8_t* ended;                  // (R, N)    as given
  float *q, *prior;                     // (R, N, A) the critic's own Q; probabilities of PUCT
  std::int32_t* children;               // (R, N, A) -1: none

  template <typename Visit>
  void fields(Visit&& visit) {
    for (auto& [name, pointer] : {Named{"failed", &failed}, Named{"considered", &considered},
                                  Named{"max_depth", &max_depth}, Named{"count", &count}, Named{"leaves", &leaves},
                                  Named{"trail_count", &trail_count}, Named{"pages_used", &pages_used}})
      visit(name, *pointer, {roots});
    visit("exhausted", exhausted, {roots});
    visit("simulations", simulations, {roots});
    visit("budget", budget, {roots});
    visit("low", low, {roots});
    visit("high", high, {roots});
    visit("legal", legal, {roots, actions});
    visit("gumbel", gumbel, {roots, actions});
    visit("visits_before", visits_before, {roots, actions});
    visit("trail", trail, {roots, pages});
    visit("page_used", page_used, {roots, pages});
    for (auto& [name, pointer] : {Named{"parent", &parent}, Named{"action", &action}, Named{"depth", &depth},
                                  Named{"page", &page}, Named{"visits", &visits}, Named{"pending", &pending},
                                  Named{"origin", &origin}, Named{"moved", &moved}})
      visit(name, *pointer, {roots, nodes});
    visit("reward", reward, {roots, nodes});
    visit("value", value, {roots, nodes});
    visit("value_sum", value_sum, {roots, nodes});
    visit("ended", ended, {roots, nodes});
    visit("q", q, {roots, nodes, actions});
    visit("prior", prior, {roots, nodes, actions});
    visit("children", children, {roots, nodes, actions});
  }

  // One root's rows, under the same names.
  JOWA_HD MCTSView at(std::int64_t root) const;

 private:
  struct Named {
    const char* name;
    std::int32_t** pointer;
  };
};

JOWA_HD inline MCTSView MCTSView::at(std::int64_t root) const {
  MCTSView one = *this;
  one.roots = 1;
  one.failed += root, one.exhausted += root, one.simulations += root, one.budget += root, one.considered += root;
  one.max_depth += root, one.count += root, one.leaves += root, one.trail_count += root, one.pages_used += root;
  one.low += root, one.high += root;
  one.legal += root * actions, one.gumbel += root * actions, one.visits_before += root * actions;
  one.trail += root * pages, one.page_used += root * pages;
  const std::int64_t first = root * nodes, edge = first * actions;
  one.parent += first, one.action += first, one.depth += first, one.page += first, one.visits += first;
  one.pending += first, one.origin += first, one.moved += first, one.reward += first, one.value += first;
  one.value_sum += first, one.ended += first;
  one.q += edge, one.prior += edge, one.children += edge;
  return one;
}

// Below, `v` holds one root's rows: MCTSView::at.

JOWA_HD inline bool is_terminal(const MCTSView& v, std::int32_t node) {
  return (v.settings.respect_ends && v.ended[node]) || v.depth[node] >= *v.max_depth;
}

// Q of an edge: what was seen behind it, or what the critic says of it while nothing was.
JOWA_HD inline double edge_q(const MCTSView& v, std::int32_t node, std::int64_t action) {
  const std::int64_t edge = node * v.actions + action;
  const std::int32_t child = v.children[edge];
  if (child < 0 || v.visits[child] == 0) return static_cast<double>(v.q[edge]);
  return static_cast<double>(v.reward[child]) + v.settings.gamma * (v.value_sum[child] / v.visits[child]);
}

JOWA_HD inline void see_q(const MCTSView& v, double q) {
  if (q < *v.low) *v.low = q;
  if (q > *v.high) *v.high = q;
}

// Q within the range of all Q seen: 0 to 1, and 0.5 where they are all the same.
JOWA_HD inline double normalised(const MCTSView& v, double q) {
  if (!(*v.high > *v.low)) return 0.5;
  const double x = (q - *v.low) / (*v.high - *v.low);
  return x < 0.0 ? 0.0 : x > 1.0 ? 1.0 : x;
}

// PUCT with virtual loss: the legal action to follow from `node`, the lowest on ties.
JOWA_HD inline std::int64_t choose_by_puct(const MCTSView& v, std::int32_t node) {
  const double total = v.visits[node] + v.pending[node];
  const double root_total = std::sqrt(total);
  const double weight = std::log((total + v.settings.c_base + 1.0) / v.settings.c_base) + v.settings.c_init;
  std::int64_t best = -1;
  double best_score = 0.0;
  for (std::int64_t a = 0; a < v.actions; ++a) {
    if (!v.legal[a]) continue;
    const std::int32_t child = v.children[node * v.actions + a];
    const double n = child < 0 ? 0 : v.visits[child], pending = child < 0 ? 0 : v.pending[child];
    double score = normalised(v, edge_q(v, node, a));
    if (n > 0) score = score * n / (n + pending);
    else if (pending > 0) score = 0.0;
    score += static_cast<double>(v.prior[node * v.actions + a]) * root_total / (1.0 + n + pending) * weight;
    if (best < 0 || score > best_score) best = a, best_score = score;
  }
  return best;
}

// Sequential halving (Danihelka et al. 2022) as a table of one column: how often simulation `index` of `budget`
// requires an action to have been tried before. Of m actions, each phase tries the better half of the last, twice
// as often; a phase of k actions lasts max(1, budget / (ceil(log2 m) k)) rounds, and k never falls below 2.
JOWA_HD inline std::int64_t considered_visits(std::int64_t considered, std::int64_t budget, std::int64_t index) {
  if (considered <= 1) return index;
  std::int64_t phases = 0;
  while ((std::int64_t{1} << phases) < considered) ++phases;
  std::int64_t begun = 0, visits = 0;
  for (std::int64_t k = considered;; k = k / 2 > 2 ? k / 2 : 2) {
    const std::int64_t rounds = budget / (phases * k) > 1 ? budget / (phases * k) : 1;
    if (index < begun + rounds * k) return visits + (index - begun) / k;
    begun += rounds * k;
    visits += rounds;
  }
}

// Visits of the root's child since this decision began.
JOWA_HD inline std::int32_t new_visits(const MCTSView& v, std::int64_t action) {
  const std::int32_t child = v.children[action];
  return child < 0 ? 0 : v.visits[child] - v.visits_before[action];
}

// Of the root's legal actions that were tried `visits` times, those under way included if `with_pending`, the one
// that the noise, its prior and, once each of them was tried, its Q favour; the lowest on ties. (Untried actions have
// all the same completed Q in the paper, so that noise and prior alone decide which are considered.)
JOWA_HD inline std::int64_t choose_by_gumbel(const MCTSView& v, std::int64_t visits, bool with_pending) {
  std::int32_t most = 0;
  for (std::int64_t a = 0; a < v.actions; ++a)
    if (v.children[a] >= 0 && v.visits[v.children[a]] > most) most = v.visits[v.children[a]];
  std::int64_t best = -1;
  double best_score = 0.0;
  for (std::int64_t a = 0; a < v.actions; ++a) {
    const std::int32_t child = v.children[a], pending = child >= 0 && with_pending ? v.pending[child] : 0;
    if (!v.legal[a] || new_visits(v, a) + pending != visits) continue;
    const double scale = visits ? (v.settings.c_visit + most) * v.settings.c_scale : 0.0;
    const double sigma = scale * normalised(v, edge_q(v, 0, a));
    const double score = static_cast<double>(v.gumbel[a]) + std::log(static_cast<double>(v.prior[a])) + sigma;
    if (best < 0 || score > best_score) best = a, best_score = score;
  }
  return best;
}

JOWA_HD inline std::int64_t choose(const MCTSView& v, std::int32_t node) {
  if (node > 0 || !v.settings.gumbel) return choose_by_puct(v, node);
  return choose_by_gumbel(v, considered_visits(*v.considered, *v.budget, *v.simulations + *v.leaves), true);
}

// The decision so far: the most visits, then Q, then the lowest action; by the root's q while there are no visits.
// A Gumbel root takes, of the actions with the most visits in this decision, the one its schedule would go on with.
JOWA_HD inline std::int64_t best_action(const MCTSView& v) {
  std::int32_t most = 0;
  for (std::int64_t a = 0; a < v.actions; ++a)
    if (v.settings.gumbel && v.legal[a] && new_visits(v, a) > most) most = new_visits(v, a);
  if (most > 0) return choose_by_gumbel(v, most, false);
  std::int64_t best = -1;
  std::int32_t best_visits = 0;
  double best_q = 0.0;
  for (std::int64_t a = 0; a < v.actions; ++a) {
    if (!v.legal[a]) continue;
    const std::int32_t child = v.children[a], visits = child < 0 ? 0 : v.visits[child];
    const double q = edge_q(v, 0, a);
    if (best >= 0 && (visits < best_visits || (visits == best_visits && !(q > best_q)))) continue;
    best = a, best_visits = visits, best_q = q;
  }
  return best;
}

JOWA_HD inline void update_exhausted(const MCTSView& v) {
  *v.exhausted = *v.failed || *v.count == 0 || v.depth[0] >= *v.max_depth || *v.count == v.nodes ||
                 *v.pages_used == v.pages || (*v.budget >= 0 && *v.simulations >= *v.budget);
}

}  // namespace jowa
