// Decoding: rows are fed token by token, with guesses behind where they are worth it, until their frames are whole.

#include <algorithm>
#include <cstring>
#include <limits>
#include <stdexcept>
#include <string>

#include "engine.h"

namespace jowa::engine {
namespace {

constexpr int kRewardClasses = 3, kEndClasses = 2;
// Enough that weights are not read too often; more would drive the rows' own pages out of the caches between passes.
constexpr std::size_t kRowsAtOnce = 64;

// The contract's numbers: splitmix64's output function, as a fraction of 2^53.
double uniform(std::int64_t seed, int index) {
  std::uint64_t x = static_cast<std::uint64_t>(seed) + static_cast<std::uint64_t>(index + 1) * 0x9E3779B97F4A7C15U;
  x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9U;
  x = (x ^ (x >> 27)) * 0x94D049BB133111EBU;
  return static_cast<double>((x ^ (x >> 31)) >> 11) * 0x1p-53;
}

std::string place(const LevelView& level, std::int64_t index) {
  return " of root " + std::to_string(index / level.rows) + ", row " + std::to_string(index % level.rows);
}

}  // namespace

void Engine::check_row(const LevelView& level, std::int64_t index) const {
  const auto refuse = [&](const std::string& name, const std::string& text) {
    throw std::invalid_argument(name + place(level, index) + " " + text + "; nothing was changed");
  };
  const Sizes& sizes = model_.sizes;
  const std::int64_t depth = level.depths[index], root = index / level.rows;
  if (depth >= level.slots)
    refuse("level.depths", "is " + std::to_string(depth) + ", but level.page_table has " +
                               std::to_string(level.slots) + " slots");
  const std::int32_t length = lengths_[static_cast<std::size_t>(root)];
  if (!length) refuse("level", "stands on a context that was not encoded");
  if (length + depth + 1 > sizes.context_steps)
    refuse("level.depths", "is " + std::to_string(depth) + ": with a context of " + std::to_string(length) +
                               " steps that is beyond the model's " + std::to_string(sizes.context_steps));
  if (level.actions[index] < 0 || level.actions[index] >= sizes.actions)
    refuse("level.actions", "must lie in [0, " + std::to_string(sizes.actions) + "), got " +
                                std::to_string(level.actions[index]));
  const std::int32_t* pages = level.pages + index * level.slots;
  for (std::int64_t slot = 0; slot <= depth; ++slot)
    if (pages[slot] < 0 || pages[slot] >= num_pages_)
      refuse("level.page_table", "must lie in [0, " + std::to_string(num_pages_) + "), got " +
                                     std::to_string(pages[slot]) + ": reserve more pages");
  if (!level.drafts) return;
  for (int i = 0; i < kFrame; ++i)
    if (level.drafts[index * kFrame + i] >= sizes.vocab)
      refuse("drafts.tokens", "must be less than " + std::to_string(sizes.vocab) + ", got " +
                                  std::to_string(level.drafts[index * kFrame + i]));
}

void Engine::check(const LevelView& level) {
  if (level.roots > num_roots_)
    throw std::invalid_argument("level has " + std::to_string(level.roots) + " roots, but " +
                                std::to_string(num_roots_) + " are reserved; nothing was changed");
  rows_.clear();
  for (std::int64_t index = 0; index < level.roots * level.rows; ++index) {
    if (level.depths[index] < 0) continue;
    check_row(level, index);
    Row row;
    row.index = index;
    row.root = static_cast<std::int32_t>(index / level.rows);
    row.depth = level.depths[index];
    row.pages = level.pages + index * level.slots;
    rows_.push_back(row);
  }
  if (!++level_) {
    std::fill(owner_.begin(), owner_.end(), 0);
    level_ = 1;
  }
  const auto refuse = [&](const Row& row, std::int32_t page) {
    throw std::invalid_argument("level.page_table" + place(level, row.index) + " uses page " + std::to_string(page) +
                                ", which another row fills; nothing was changed");
  };
  for (const Row& row : rows_) {
    std::uint32_t& owner = owner_[static_cast<std::size_t>(row.pages[row.depth])];
    if (owner == level_) refuse(row, row.pages[row.depth]);
    owner = level_;
  }
  for (const Row& row : rows_)
    for (std::int32_t slot = 0; slot < row.depth; ++slot)
      if (owner_[static_cast<std::size_t>(row.pages[slot])] == level_) refuse(row, row.pages[slot]);
}

// Fills the pass with what the first open rows feed next.
void Engine::plan_steps(const LevelView& level) {
  pass_.clear();
  active_ = std::min(open_.size(), kRowsAtOnce);
  candidates_.clear();
  if (level.drafts) {
    for (std::size_t i = 0; i < active_; ++i) {
      const Row& row = rows_[static_cast<std::size_t>(open_[i])];
      const std::int64_t at = row.index * kFrame + row.next;
      std::int32_t available = 0;
      while (row.next + available < kFrame && level.drafts[at + available] >= 0) ++available;
      candidates_.push_back({level.sureness ? level.sureness + at : nullptr, row.next, available, 0});
    }
    guessing_.choose(candidates_, forward_.max_rows());
  }
  for (std::size_t i = 0; i < active_; ++i) {
    Row& row = rows_[static_cast<std::size_t>(open_[i])];
    row.guesses = level.drafts ? candidates_[i].taken : 0;
    const auto root = static_cast<std::size_t>(row.root);
    const std::int32_t base = (lengths_[root] + row.depth) * kStep - 1;
    const auto at = static_cast<std::int32_t>(pass_.tokens.size());
    for (std::int32_t feed = row.next; feed <= row.next + row.guesses; ++feed) {
      const std::int64_t id = !feed              ? level.actions[row.index]
                              : feed == row.next ? row.tokens[static_cast<std::size_t>(feed - 1)]
                                                 : level.drafts[row.index * kFrame + feed - 1];
      pass_.tokens.push_back({static_cast<std::int32_t>(id), base + feed, tasks_[root], !feed});
    }
    pass_.segments.push_back({row.root, row.depth, row.pages, row.next, row.guesses + 1, at, at});
  }
  forward_.prepare(pass_, lengths_);
}

// The token that follows each of rows [first, last) of the pass; its complement where a logit is not finite.
void Engine::decide(const LevelView& level, std::int64_t first, std::int64_t last) {
  const std::int64_t vocab = model_.sizes.vocab;
  for (std::size_t i = 0; i < active_; ++i) {
    const Segment& segment = pass_.segments[i];
    for (std::int32_t j = 0; j < segment.count; ++j) {
      const std::int64_t at = segment.row + j;
      const std::int32_t position = segment.start + j;
      if (at < first || at >= last || position >= kFrame) continue;
      float* logits = forward_.logits(at);
      const std::int64_t index = rows_[static_cast<std::size_t>(open_[i])].index;
      const bool sound = kernels_.finite(logits, vocab);
      const std::int32_t token =
          level.seeds ? kernels_.draw(logits, vocab, level.temperature, uniform(level.seeds[index], position))
                      : kernels_.argmax(logits, vocab);
      predicted_[static_cast<std::size_t>(at)] = sound ? token : ~token;
    }
  }
}

// Keeps of each row what was guessed right, and the right token behind it; finished rows leave.
void Engine::settle(const LevelView& level, Tally& tally) {
  const std::int64_t bytes = forward_.hidden_bytes();
  std::size_t still = 0;
  for (std::size_t i = 0; i < open_.size(); ++i) {
    if (i >= active_) {
      open_[still++] = open_[i];
      continue;
    }
    const Segment& segment = pass_.segments[i];
    const std::int32_t number = open_[i];
    Row& row = rows_[static_cast<std::size_t>(number)];
    if (!row.next) std::memcpy(first_hidden_.as<char>() + number * bytes, forward_.hidden(segment.row), bytes);
    ++tally.row_passes;
    tally.fed += segment.count;
    tally.guessed += row.guesses;
    bool whole = false;
    for (std::int32_t j = 0; j <= row.guesses; ++j) {
      const std::int32_t position = segment.start + j;
      whole = position == kFrame;  // the last token was fed: what stands behind it is the state's value
      if (whole) break;
      std::int32_t token = predicted_[static_cast<std::size_t>(segment.row + j)];
      if (token < 0) row.broken = true, token = ~token;
      row.tokens[static_cast<std::size_t>(position)] = token;
      row.next = position + 1;
      if (j == row.guesses) break;
      const bool right = level.drafts[row.index * kFrame + position] == token;
      guessing_.learn(position, right);
      tally.accepted += right;
      tally.misses[static_cast<std::size_t>(position)] += !right;
      if (!right) break;
    }
    if (!whole) {
      open_[still++] = number;
      continue;
    }
    std::memcpy(last_hidden_.as<char>() + number * bytes, forward_.hidden(segment.row + row.guesses), bytes);
  }
  open_.resize(still);
}

// Rewards, ends and values of all rows at once, so that the heads' weights are read once.
void Engine::judge(Team& team, int rank, const LevelView& level, const Imagined& out) {
  const auto count = static_cast<std::int64_t>(rows_.size()), actions = model_.sizes.actions;
  for (std::int64_t first = 0; first < count; first += forward_.max_rows()) {
    const std::int64_t here = std::min(forward_.max_rows(), count - first), at = first * forward_.hidden_bytes();
    float *q = q_.as<float>(), *spread = q + forward_.max_rows() * actions;
    forward_.judge(team, rank, first_hidden_.as<char>() + at, here);
    const Share share(team, rank, here);
    for (std::int64_t i = share.first; i < share.last; ++i) {
      const std::int64_t index = rows_[static_cast<std::size_t>(first + i)].index;
      float* logits = forward_.logits(i);
      Row& row = rows_[static_cast<std::size_t>(first + i)];
      row.broken = row.broken || !kernels_.finite(logits, kRewardClasses + kEndClasses);
      const auto choose = [&](float* of, int classes, int position) {
        return level.seeds ? kernels_.draw(of, classes, 1.0F, uniform(level.seeds[index], position))
                           : kernels_.argmax(of, classes);
      };
      out.rewards[index] = static_cast<float>(choose(logits, kRewardClasses, kFrame) - 1);
      out.ends[index] = choose(logits + kRewardClasses, kEndClasses, kFrame + 1) == 1;
      if (row.broken) out.rewards[index] = std::numeric_limits<float>::quiet_NaN();
    }
    forward_.value(team, rank, last_hidden_.as<char>() + at, here, q, spread);
    for (std::int64_t i = share.first; i < share.last; ++i) {
      const Row& row = rows_[static_cast<std::size_t>(first + i)];
      const std::int64_t index = row.index;
      if (row.broken) std::fill_n(q + i * actions, actions, std::numeric_limits<float>::quiet_NaN());
      std::copy_n(q + i * actions, actions, out.q + index * actions);
      std::copy_n(spread + i * actions, actions, out.spread + index * actions);
    }
    team.barrier();
  }
}

void Engine::work(Team& team, int rank, const LevelView& level, const Imagined& out, Tally& tally) {
  for (;;) {
    if (!rank) plan_steps(level);
    team.barrier();
    if (!active_) break;
    const auto tokens = static_cast<std::int64_t>(pass_.tokens.size());
    forward_.run(team, rank, pass_, contexts_, pages_);
    forward_.predict(team, rank, tokens);
    const Share share(team, rank, tokens);
    decide(level, share.first, share.last);
    team.barrier();
    if (!rank) settle(level, tally);
  }
  judge(team, rank, level, out);
}

Tally Engine::imagine(const LevelView& level, const Imagined& out) {
  check(level);
  if (level.drafts) measure();
  Tally tally;
  tally.frames = static_cast<std::int64_t>(rows_.size());
  if (rows_.empty()) return tally;
  open_.resize(rows_.size());
  for (std::size_t i = 0; i < rows_.size(); ++i) open_[i] = static_cast<std::int32_t>(i);
  for (Memory* hidden : {&first_hidden_, &last_hidden_})
    hidden->need(rows_.size() * static_cast<std::size_t>(forward_.hidden_bytes()));
  q_.need(static_cast<std::size_t>(2 * forward_.max_rows() * model_.sizes.actions) * sizeof(float));
  const int threads = num_threads();
  forward_.make_room(threads);
  run_team(threads, [&](Team& team, int rank) { work(team, rank, level, out, tally); });
  for (const Row& row : rows_) std::copy(row.tokens.begin(), row.tokens.end(), out.tokens + row.index * kFrame);
  return tally;
}

}  // namespace jowa::engine
