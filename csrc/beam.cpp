// Beam search: expand the kept slots, score their children, keep the best. See tree.h for the shapes.

#include <algorithm>
#include <cmath>

#include "tree.h"

namespace jowa {

namespace {

// The root's index for row-major arrays of `columns` entries a root.
std::size_t row(std::int64_t root, std::int64_t columns) { return static_cast<std::size_t>(root * columns); }

std::int64_t nodes_per_root(const Settings& s) {
  return s.horizon == 0 ? 0 : s.width + (s.horizon - 1) * s.width * s.width;
}

Fault check_legal_q(const float* q, const std::uint8_t* legal, std::int64_t num_actions) {
  bool any = false;
  for (std::int64_t a = 0; a < num_actions; ++a) {
    if (!legal[a]) continue;
    any = true;
    if (std::isnan(q[a])) return Fault::nan_q;
  }
  return any ? Fault::none : Fault::no_legal_action;
}

// Writes the indices of the `limit` largest legal q into `actions`, best first, ties to the lowest index;
// returns how many there are.
std::int64_t best_actions(const float* q, const std::uint8_t* legal, std::int64_t num_actions, std::int64_t limit,
                          std::int32_t* actions) {
  std::int64_t found = 0;
  for (std::int64_t a = 0; a < num_actions; ++a) {
    if (!legal[a]) continue;
    std::int64_t place = found;
    while (place > 0 && q[actions[place - 1]] < q[a]) --place;
    if (place == limit) continue;
    found = std::min(found + 1, limit);
    for (std::int64_t i = found - 1; i > place; --i) actions[i] = actions[i - 1];
    actions[place] = static_cast<std::int32_t>(a);
  }
  return found;
}

}  // namespace

Tree::Tree(std::int64_t num_roots, std::int64_t nodes_per_root) : roots(num_roots), capacity(nodes_per_root) {
  const std::size_t size = row(roots, capacity);
  count.resize(static_cast<std::size_t>(roots));
  for (auto* field : {&parent, &action, &depth, &rank}) field->resize(size);
  for (auto* field : {&reward, &value}) field->resize(size);
  for (auto* field : {&discounted_return, &score}) field->resize(size);
  ended.resize(size);
}

void Tree::clear() { std::fill(count.begin(), count.end(), 0); }

BeamSearch::BeamSearch(const Settings& settings)
    : settings_(settings), tree_(settings.num_roots, nodes_per_root(settings)) {
  const auto roots = static_cast<std::size_t>(settings.num_roots);
  const auto slots = row(settings.num_roots, settings.width);
  kept_count_.resize(roots);
  next_count_.resize(roots);
  greedy_action_.resize(roots);
  greedy_score_.resize(roots);
  kept_.resize(slots);
  next_.resize(slots);
  next_slot_.resize(slots);
  next_carried_.resize(slots);
  pending_action_.resize(row(settings.num_roots, settings.width * settings.width));
}

void BeamSearch::reset() {
  tree_.clear();
  std::fill(kept_count_.begin(), kept_count_.end(), 0);
  level_ = 0;
  discount_ = 1.0;
  pending_ = false;
  decided_ = false;
}

bool BeamSearch::dead_node(std::int64_t root, std::int32_t node) const {
  return settings_.respect_ends && tree_.ended[row(root, tree_.capacity) + node];
}

bool BeamSearch::live(std::int64_t root, std::int64_t slot) const {
  if (level_ == 0) return true;  // the root itself
  return slot < kept_count_[root] && !dead_node(root, kept_[row(root, settings_.width) + slot]);
}

Status BeamSearch::expand(const float* q, const std::uint8_t* legal, std::int64_t* parents, std::int64_t* actions,
                          std::uint8_t* valid) {
  const std::int64_t width = settings_.width, num_actions = settings_.num_actions;
  const std::int64_t num_slots = slots(), num_children = children();
  for (std::int64_t root = 0; root < settings_.num_roots; ++root) {
    for (std::int64_t slot = 0; slot < num_slots; ++slot) {
      if (!live(root, slot)) continue;
      const float* slot_q = q + row(root * num_slots + slot, num_actions);
      const Fault fault = check_legal_q(slot_q, legal + row(root, num_actions), num_actions);
      if (fault != Fault::none) return {fault, root};
    }
  }
  for (std::int64_t root = 0; root < settings_.num_roots; ++root) {
    std::int32_t* chosen = pending_action_.data() + row(root, width * width);
    for (std::int64_t slot = 0; slot < num_slots; ++slot) {
      const float* slot_q = q + row(root * num_slots + slot, num_actions);
      std::int64_t found = 0;
      if (live(root, slot))
        found = best_actions(slot_q, legal + row(root, num_actions), num_actions, width, chosen + slot * width);
      std::fill(chosen + slot * width + found, chosen + (slot + 1) * width, -1);
    }
    for (std::int64_t child = 0; child < num_children; ++child) {
      const std::size_t out = row(root, num_children) + child;
      parents[out] = child / width;
      actions[out] = std::max(chosen[child], 0);
      valid[out] = chosen[child] >= 0;
    }
  }
  pending_ = true;
  return {};
}

// Inserts a candidate into the beam being built if it is among the K best so far. Earlier candidates win ties.
void BeamSearch::offer(std::int64_t root, std::int32_t node, std::int64_t slot, bool carried) {
  const std::size_t first = row(root, settings_.width);
  const double* score = tree_.score.data() + row(root, tree_.capacity);
  std::int64_t count = next_count_[root];
  std::int64_t place = count;
  while (place > 0 && score[next_[first + place - 1]] < score[node]) --place;
  if (place == settings_.width) return;
  count = std::min(count + 1, settings_.width);
  for (std::int64_t i = count - 1; i > place; --i) {
    next_[first + i] = next_[first + i - 1];
    next_slot_[first + i] = next_slot_[first + i - 1];
    next_carried_[first + i] = next_carried_[first + i - 1];
  }
  next_[first + place] = node;
  next_slot_[first + place] = slot;
  next_carried_[first + place] = carried;
  next_count_[root] = static_cast<std::int32_t>(count);
}

void BeamSearch::keep_root(std::int64_t root, const float* rewards, const std::uint8_t* ends, const float* values) {
  const std::int64_t width = settings_.width;
  const std::size_t first_slot = row(root, width), first_node = row(root, tree_.capacity);
  const std::int32_t* actions = pending_action_.data() + row(root, width * width);
  const double next_discount = discount_ * settings_.gamma;
  next_count_[root] = 0;
  for (std::int64_t slot = 0; slot < kept_count_[root]; ++slot)
    if (dead_node(root, kept_[first_slot + slot])) offer(root, kept_[first_slot + slot], slot, true);
  for (std::int64_t child = 0; child < children(); ++child) {
    if (actions[child] < 0) continue;
    const std::int32_t parent = level_ == 0 ? -1 : kept_[first_slot + child / width];
    const std::int32_t node = tree_.count[root]++;
    const std::size_t at = first_node + node;
    tree_.parent[at] = parent;
    tree_.action[at] = actions[child];
    tree_.depth[at] = static_cast<std::int32_t>(level_ + 1);
    tree_.rank[at] = -1;
    tree_.reward[at] = rewards[child];
    tree_.value[at] = values[child];
    tree_.ended[at] = ends[child];
    const double before = parent < 0 ? 0.0 : tree_.discounted_return[first_node + parent];
    tree_.discounted_return[at] = before + discount_ * static_cast<double>(rewards[child]);
    // A discount of zero silences even an infinite value: 0 * inf would be NaN.
    const bool counts = next_discount != 0.0 && !dead_node(root, node);
    tree_.score[at] = tree_.discounted_return[at] + (counts ? next_discount * static_cast<double>(values[child]) : 0.0);
    offer(root, node, child, false);
  }
  kept_count_[root] = next_count_[root];
  for (std::int64_t slot = 0; slot < next_count_[root]; ++slot) {
    kept_[first_slot + slot] = next_[first_slot + slot];
    tree_.rank[first_node + kept_[first_slot + slot]] = static_cast<std::int32_t>(slot);
  }
}

Status BeamSearch::keep(const float* rewards, const std::uint8_t* ends, const float* values, std::int64_t* slots,
                        std::uint8_t* carried, std::uint8_t* valid, std::uint8_t* alive) {
  const std::int64_t width = settings_.width, num_children = children();
  for (std::int64_t root = 0; root < settings_.num_roots; ++root) {
    const std::int32_t* actions = pending_action_.data() + row(root, width * width);
    for (std::int64_t child = 0; child < num_children; ++child) {
      if (actions[child] < 0) continue;
      const std::size_t at = row(root, num_children) + child;
      if (!std::isfinite(rewards[at])) return {Fault::bad_reward, root};
      if (std::isnan(values[at])) return {Fault::nan_value, root};
    }
  }
  for (std::int64_t root = 0; root < settings_.num_roots; ++root) {
    const std::size_t at = row(root, num_children);
    keep_root(root, rewards + at, ends + at, values + at);
  }
  ++level_;
  discount_ *= settings_.gamma;
  pending_ = false;
  for (std::int64_t root = 0; root < settings_.num_roots; ++root) {
    for (std::int64_t slot = 0; slot < width; ++slot) {
      const std::size_t at = row(root, width) + slot;
      const bool used = slot < kept_count_[root];
      slots[at] = used ? next_slot_[at] : 0;
      carried[at] = used && next_carried_[at];
      valid[at] = used;
      alive[at] = live(root, slot);
    }
  }
  return {};
}

Status BeamSearch::decide_greedy(const float* q, const std::uint8_t* legal) {
  const std::int64_t num_actions = settings_.num_actions;
  for (std::int64_t root = 0; root < settings_.num_roots; ++root) {
    const std::size_t at = row(root, num_actions);
    const Fault fault = check_legal_q(q + at, legal + at, num_actions);
    if (fault != Fault::none) return {fault, root};
  }
  for (std::int64_t root = 0; root < settings_.num_roots; ++root) {
    const std::size_t at = row(root, num_actions);
    best_actions(q + at, legal + at, num_actions, 1, &greedy_action_[root]);
    greedy_score_[root] = q[at + greedy_action_[root]];
  }
  decided_ = true;
  return {};
}

bool BeamSearch::finished() const {
  if (level_ >= settings_.horizon) return true;
  for (std::int64_t root = 0; root < settings_.num_roots; ++root)
    for (std::int64_t slot = 0; slot < slots(); ++slot)
      if (live(root, slot)) return false;
  return true;
}

void BeamSearch::best(std::int64_t* action, float* score) const {
  for (std::int64_t root = 0; root < settings_.num_roots; ++root) {
    if (settings_.horizon == 0) {
      action[root] = greedy_action_[root];
      score[root] = greedy_score_[root];
      continue;
    }
    const std::size_t first_node = row(root, tree_.capacity);
    std::int32_t node = kept_[row(root, settings_.width)];
    score[root] = static_cast<float>(tree_.score[first_node + node]);
    while (tree_.parent[first_node + node] >= 0) node = tree_.parent[first_node + node];
    action[root] = tree_.action[first_node + node];
  }
}

void BeamSearch::beam(float* scores, std::int64_t* actions, std::uint8_t* valid) const {
  const std::int64_t width = settings_.width, horizon = settings_.horizon;
  std::fill(actions, actions + row(settings_.num_roots, width * horizon), -1);
  for (std::int64_t root = 0; root < settings_.num_roots; ++root) {
    const std::size_t first_node = row(root, tree_.capacity);
    for (std::int64_t slot = 0; slot < width; ++slot) {
      const std::size_t out = row(root, width) + slot;
      scores[out] = 0.0F;
      valid[out] = horizon == 0 ? slot == 0 : slot < kept_count_[root];
      if (!valid[out]) continue;
      if (horizon == 0) {
        scores[out] = greedy_score_[root];
        continue;
      }
      std::int32_t node = kept_[out];
      scores[out] = static_cast<float>(tree_.score[first_node + node]);
      for (; node >= 0; node = tree_.parent[first_node + node])
        actions[out * horizon + tree_.depth[first_node + node] - 1] = tree_.action[first_node + node];
    }
  }
}

}  // namespace jowa
