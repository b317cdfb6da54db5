#include "trees.h"

#include <algorithm>

#include "parallel.h"
#ifdef JOWA_WITH_CUDA
#include "cuda/trees.h"
#endif

namespace jowa {
namespace {

// A thread should have at least so much to do, in numbers looked at, about one a nanosecond: waking a thread costs tens
// of microseconds. The fuzzer sets 1, to have several threads at every step.
#ifndef JOWA_NUMBERS_PER_THREAD
#define JOWA_NUMBERS_PER_THREAD (1 << 17)
#endif
constexpr std::int64_t kNumbersPerThread = JOWA_NUMBERS_PER_THREAD;

template <typename Step>
void for_each_root(const Step& step, std::int64_t roots, std::int64_t numbers, bool cuda, Stream stream) {
  if (cuda) {
#ifdef JOWA_WITH_CUDA
    return cuda::launch(step, roots, stream);
#else
    throw std::runtime_error("jowa's native core was built without CUDA: install a toolkit with nvcc and build again");
#endif
  }
  static_cast<void>(stream);
  parallel_for(roots, kNumbersPerThread / std::max<std::int64_t>(numbers, 1), [&](std::int64_t first, std::int64_t last) {
    for (std::int64_t root = first; root < last; ++root) step(root);
  });
}

}  // namespace

const char* describe_fault(std::int64_t code) {
  switch (static_cast<TreeFault>(code)) {
    case TreeFault::none: return "no fault";
    case TreeFault::bad_q: return "q is NaN (in a Monte-Carlo tree, or with td_lambda below 1, also: infinite) for a legal action";
    case TreeFault::no_legal_action: return "legal allows no action";
    case TreeFault::bad_reward: return "a reward is not finite";
    case TreeFault::nan_value: return "a value is NaN";
    case TreeFault::bad_prior: return "a prior or noise of a legal action is not finite, or a prior is negative";
  }
  return nullptr;
}

BeamTree::BeamTree(const std::vector<std::int64_t>& widths, const std::vector<std::int64_t>& horizons,
                   std::int64_t num_actions, double gamma, double td_lambda,
                   bool respect_ends, bool cuda)
    : cuda_(cuda) {
  view_.roots = static_cast<std::int64_t>(widths.size());
  view_.width = *std::max_element(widths.begin(), widths.end());
  view_.horizon = *std::max_element(horizons.begin(), horizons.end());
  view_.actions = num_actions;
  view_.gamma = gamma;
  view_.td_lambda = td_lambda;
  view_.respect_ends = respect_ends;
  for (std::size_t root = 0; root < widths.size(); ++root) {
    const std::int64_t width = widths[root], tried = std::min(width, num_actions);
    std::int64_t level = 1, nodes = 0, ancestors = 0;  // `level`: the most nodes that the beam can hold at a depth
    for (std::int64_t depth = 0; depth < horizons[root]; ++depth) {
      if (depth) ancestors += level;
      nodes += level * tried;
      view_.pages = std::max(view_.pages, ancestors + level * tried);
      level = std::min(width, level * tried);
    }
    view_.nodes = std::max(view_.nodes, nodes);
  }
  attach(nullptr);
}

void BeamTree::reset(Stream stream) {
  level_ = 0;
  discount_ = 1.0;
  pending_ = false;
  for_each_root(ResetBeam{view_}, view_.roots, view_.pages + view_.width * view_.width, cuda_, stream);
}

void BeamTree::expand(const float* q, const std::uint8_t* legal, const Proposals& out, Stream stream) {
  const std::int64_t numbers = view_.slots(level_) * (4 * view_.actions + 8 * view_.width * view_.table_slots());
  for_each_root(ExpandBeam{view_, level_, q, legal, out}, view_.roots, numbers, cuda_, stream);
  pending_ = true;
}

void BeamTree::keep(const float* rewards, const std::uint8_t* ends, const float* values, const KeptSlots& out,
                    Stream stream) {
  const std::int64_t numbers = children() * 32 + view_.pages;
  for_each_root(KeepBeam{view_, level_, discount_, rewards, ends, values, out}, view_.roots, numbers, cuda_, stream);
  ++level_;
  discount_ *= view_.decay();
  pending_ = false;
}

void BeamTree::best(std::int64_t* actions, float* scores, Stream stream) {
  for_each_root(BestOfBeam{view_, actions, scores}, view_.roots, view_.horizon, cuda_, stream);
}

bool BeamTree::finished() const {
  if (level_ == 0 && !pending_) return false;  // the first expand also decides for roots of horizon 0
  for (std::int64_t root = 0; root < view_.roots; ++root)
    for (std::int64_t slot = 0; slot < view_.slots(level_); ++slot)
      if (view_.live(root, slot, level_)) return false;
  return true;
}

MCTSTree::MCTSTree(std::int64_t num_roots, std::int64_t capacity, std::int64_t num_actions,
                   const MCTSSettings& settings, bool cuda)
    : cuda_(cuda) {
  view_.roots = num_roots;
  view_.nodes = capacity + 1;
  view_.pages = capacity;
  view_.actions = num_actions;
  view_.settings = settings;
  attach(nullptr);
}

void MCTSTree::reset(Stream stream) {
  pending_ = false;
  for_each_root(ResetMCTS{view_}, view_.roots, 1, cuda_, stream);
}

void MCTSTree::start(StartMCTS call, Stream stream) {
  call.all = view_;
  for_each_root(call, view_.roots, view_.actions * 16 + view_.pages, cuda_, stream);
}

void MCTSTree::select(const std::int64_t* wanted, std::int64_t rows, std::int64_t columns, const Leaves& out,
                      Stream stream) {
  const std::int64_t numbers = rows * columns * view_.actions * 8;
  for_each_root(SelectMCTS{view_, wanted, rows, columns, out}, view_.roots, numbers, cuda_, stream);
  rows_ = rows;
  pending_ = true;
}

void MCTSTree::backup(const float* rewards, const std::uint8_t* ends, const float* q, Stream stream) {
  const std::int64_t numbers = rows_ * view_.actions * 16;
  for_each_root(BackUpMCTS{view_, rows_, rewards, ends, q}, view_.roots, numbers, cuda_, stream);
  pending_ = false;
}

void MCTSTree::best(std::int64_t* actions, float* values, Stream stream) {
  for_each_root(BestOfMCTS{view_, actions, values}, view_.roots, view_.actions * 4, cuda_, stream);
}

void MCTSTree::advance(const std::uint8_t* mask, const std::int64_t* actions, const float* gumbel, std::uint8_t* kept,
                       Stream stream) {
  const std::int64_t numbers = view_.nodes * view_.actions * 4;
  for_each_root(AdvanceMCTS{view_, mask, actions, gumbel, kept}, view_.roots, numbers, cuda_, stream);
}

}  // namespace jowa
