#include "guesses.h"

#include <algorithm>

namespace jowa::engine {

double Guessing::seconds(double tokens) const { return std::max(costs_.pass, tokens * costs_.token); }

double Guessing::probability(const Candidate& candidate, std::int32_t guess) const {
  const float told = candidate.sureness ? candidate.sureness[guess]
                                        : rates_[static_cast<std::size_t>(candidate.position + guess)];
  return told > 0.0F ? std::min(static_cast<double>(told), 1.0) : 0.0;  // NaN: not sure at all
}

void Guessing::choose(std::vector<Candidate>& candidates, std::int64_t limit) {
  const auto less = [](const Offer& a, const Offer& b) {
    return a.probability != b.probability ? a.probability < b.probability : a.candidate > b.candidate;
  };
  offers_.clear();
  for (std::size_t i = 0; i < candidates.size(); ++i) {
    candidates[i].taken = 0;
    if (candidates[i].available)
      offers_.push_back({probability(candidates[i], 0), static_cast<std::int32_t>(i)});
  }
  std::make_heap(offers_.begin(), offers_.end(), less);
  auto fed = static_cast<std::int64_t>(candidates.size());
  auto settled = static_cast<double>(fed);
  while (!offers_.empty() && fed < limit) {
    std::pop_heap(offers_.begin(), offers_.end(), less);
    const Offer best = offers_.back();
    offers_.pop_back();
    const double now = seconds(static_cast<double>(fed)), then = seconds(static_cast<double>(fed + 1));
    // At a probability of 1 both sides are equal once work is what a pass costs; a pass less is then worth having.
    if (best.probability <= 0.0 || best.probability * now < 0.999 * settled * (then - now)) return;
    ++fed;
    settled += best.probability;
    Candidate& chosen = candidates[static_cast<std::size_t>(best.candidate)];
    if (++chosen.taken == chosen.available) continue;
    offers_.push_back({best.probability * probability(chosen, chosen.taken), best.candidate});
    std::push_heap(offers_.begin(), offers_.end(), less);
  }
}

void Guessing::learn(std::int32_t position, bool right) {
  float& rate = rates_[static_cast<std::size_t>(position)];
  rate += ((right ? 1.0F : 0.0F) - rate) / 32.0F;
}

}  // namespace jowa::engine
