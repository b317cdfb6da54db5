#include "engine.h"

#include <algorithm>
#include <chrono>
#include <cstring>
#include <stdexcept>

namespace jowa::engine {
namespace {

// Tokens of a pass beyond which nothing is gained: its weights are then read for many at once.
constexpr std::int64_t kPassTokens = 256;

[[noreturn]] void refuse(const std::string& text) { throw std::invalid_argument(text); }

std::string at(std::int64_t root) { return " of root " + std::to_string(root); }

void check_index(const char* name, std::int64_t value, std::int64_t count, const std::string& where) {
  if (value < 0 || value >= count)
    refuse(std::string(name) + where + " must lie in [0, " + std::to_string(count) + "), got " + std::to_string(value));
}

}  // namespace

Engine::Engine(const Sizes& sizes, const Kernels& kernels)
    : model_(sizes),
      kernels_(kernels),
      forward_(model_, kernels, std::max(kPassTokens, sizes.context_steps * kStep)) {
  const std::int64_t heads = sizes.layers * sizes.heads, width = sizes.head_width();
  const std::int64_t tokens = sizes.context_steps * kStep;
  contexts_ = {nullptr, heads * (padded(tokens, kBlock) + tokens) * width, (padded(tokens, kBlock) + tokens) * width,
               padded(tokens, kBlock) * width};
  constexpr std::int64_t keys = kPageBlocks * kBlock;
  pages_ = {nullptr, heads * (keys + kStep) * width, (keys + kStep) * width, keys * width};
  predicted_.resize(static_cast<std::size_t>(forward_.max_rows()));
  reserve(0, 0);
}

void Engine::reserve(std::int64_t roots, std::int64_t pages) {
  if (roots < 0) refuse("roots must not be negative, got " + std::to_string(roots));
  if (pages < 0) refuse("pages must not be negative, got " + std::to_string(pages));
  if (page_memory_.bytes() && roots <= num_roots_ && pages <= num_pages_) return;
  const std::int64_t most_roots = std::max(roots, num_roots_), most_pages = std::max(pages, num_pages_);
  // One of each more, to measure with.
  Memory context_memory(static_cast<std::size_t>((most_roots + 1) * contexts_.stride * 4));
  Memory page_memory(static_cast<std::size_t>((most_pages + 1) * pages_.stride * 4));
  context_memory_ = std::move(context_memory);
  page_memory_ = std::move(page_memory);
  contexts_.data = context_memory_.as<float>();
  pages_.data = page_memory_.as<float>();
  num_roots_ = most_roots;
  num_pages_ = most_pages;
  lengths_.assign(static_cast<std::size_t>(num_roots_ + 1), 0);
  tasks_.assign(static_cast<std::size_t>(num_roots_ + 1), 0);
  owner_.assign(static_cast<std::size_t>(num_pages_), 0);
  level_ = 0;
}

std::int64_t Engine::slot_of(const ContextView& context, std::int64_t root) const {
  return context.slots ? context.slots[root] : root;
}

void Engine::check(const ContextView& context) const {
  const Sizes& sizes = model_.sizes;
  if (context.steps < 1 || context.steps > sizes.context_steps)
    refuse("a context holds 1 to " + std::to_string(sizes.context_steps) + " steps, got " +
           std::to_string(context.steps));
  std::vector<bool> used(static_cast<std::size_t>(num_roots_));
  for (std::int64_t root = 0; root < context.roots; ++root) {
    const std::int64_t length = context.lengths[root], slot = slot_of(context, root);
    if (length < 1 || length > context.steps)
      refuse("context.lengths" + at(root) + " must lie in [1, " + std::to_string(context.steps) + "], got " +
             std::to_string(length));
    if (slot < 0 || slot >= num_roots_)
      refuse("slots" + at(root) + " must lie in [0, " + std::to_string(num_roots_) + "), got " + std::to_string(slot) +
             ": reserve more roots");
    if (used[static_cast<std::size_t>(slot)]) refuse("slots names " + std::to_string(slot) + " twice");
    used[static_cast<std::size_t>(slot)] = true;
    if (sizes.task_embedding) check_index("context.tasks", context.tasks[root], sizes.tasks, at(root));
    const std::int64_t* tokens = context.tokens + root * context.steps * kFrame;
    for (std::int64_t i = 0; i < length * kFrame; ++i) check_index("context.tokens", tokens[i], sizes.vocab, at(root));
    for (std::int64_t i = 0; i + 1 < length; ++i)
      check_index("context.actions", context.actions[root * context.steps + i], sizes.actions, at(root));
  }
}

// Fills the pass with the contexts of roots [first, last).
void Engine::plan_contexts(const ContextView& context, std::int64_t first, std::int64_t last) {
  pass_.clear();
  for (std::int64_t root = first; root < last; ++root) {
    const auto slot = static_cast<std::int32_t>(slot_of(context, root));
    const auto length = static_cast<std::int32_t>(context.lengths[root]);
    const auto task = static_cast<std::int32_t>(context.tasks[root]);
    lengths_[static_cast<std::size_t>(slot)] = length;
    tasks_[static_cast<std::size_t>(slot)] = task;
    const auto row = static_cast<std::int32_t>(pass_.tokens.size());
    const std::int32_t count = length * kStep - 1;
    for (std::int32_t place = 0; place < count; ++place) {
      const std::int64_t step = root * context.steps + place / kStep;
      const bool action = place % kStep == kFrame;
      const std::int64_t id = action ? context.actions[step] : context.tokens[step * kFrame + place % kStep];
      pass_.tokens.push_back({static_cast<std::int32_t>(id), place, task, action});
    }
    pass_.segments.push_back({slot, -1, nullptr, 0, count, row, row});
    const auto out = static_cast<std::int32_t>(pass_.wanted.size());
    pass_.wanted.push_back({slot, -1, nullptr, count - 1, 1, row + count - 1, out});
  }
}

void Engine::encode(const ContextView& context, float* q, float* spread) {
  check(context);
  const int threads = num_threads();  // once: a team must not be larger than the room that was made for it
  forward_.make_room(threads);
  const std::int64_t actions = model_.sizes.actions;
  std::int64_t first = 0, last = 0;
  run_team(threads, [&](Team& team, int rank) {
    for (;;) {
      if (!rank) {
        first = last;
        for (std::int64_t tokens = 0; last < context.roots; ++last) {
          tokens += context.lengths[last] * kStep;
          if (tokens > forward_.max_rows()) break;
        }
        plan_contexts(context, first, last);
        forward_.prepare(pass_, lengths_);
      }
      team.barrier();
      const std::int64_t begin = first, count = last - first;
      if (!count) return;
      forward_.run(team, rank, pass_, contexts_, pages_);
      forward_.value(team, rank, forward_.hidden(0), count, q + begin * actions, spread + begin * actions);
    }
  });
}

double Engine::time_pass(std::int32_t tokens, int threads) {
  const auto root = static_cast<std::int32_t>(num_roots_), page = static_cast<std::int32_t>(num_pages_);
  lengths_[static_cast<std::size_t>(root)] = 1;
  double best = 1e9;
  for (int round = 0; round < 3; ++round) {
    pass_.clear();
    for (std::int32_t i = 0; i < tokens; ++i) pass_.tokens.push_back({0, i, 0, false});
    pass_.segments.push_back({root, 0, &page, 0, tokens, 0, 0});
    const auto start = std::chrono::steady_clock::now();
    run_team(threads, [&](Team& team, int rank) {
      if (!rank) forward_.prepare(pass_, lengths_);
      team.barrier();
      forward_.run(team, rank, pass_, contexts_, pages_);
      forward_.predict(team, rank, tokens);
    });
    best = std::min(best, std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count());
  }
  return best;
}

void Engine::measure() {
  if (guessing_.measured()) return;
  const int threads = num_threads();
  forward_.make_room(threads);
  const double one = time_pass(1, threads);
  guessing_.set_costs({one, time_pass(kStep, threads) / kStep});
}

}  // namespace jowa::engine
