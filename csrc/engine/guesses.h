// How many guesses are worth feeding. Never decides what is imagined, only how long it takes.
#pragma once

#include <array>
#include <cstdint>
#include <vector>

#include "kernels.h"

namespace jowa::engine {

class Guessing {
 public:
  // A pass of n tokens takes about max(pass, n token) seconds.
  struct Costs {
    double pass = 0.0, token = 0.0;
  };

  // What a row could guess: the probability that the guess at each next position is right, given those before it.
  struct Candidate {
    const float* sureness;   // nullptr: the engine's experience
    std::int32_t position;   // of the first guess in its frame
    std::int32_t available;  // guesses
    std::int32_t taken;      // out: how many to feed
  };

  bool measured() const { return costs_.pass > 0.0; }
  void set_costs(const Costs& costs) { costs_ = costs; }
  const Costs& costs() const { return costs_; }

  // Takes guesses, the likeliest first, while they raise the tokens that a second is expected to settle. At most
  // `limit` tokens are fed, one of each candidate included.
  void choose(std::vector<Candidate>& candidates, std::int64_t limit);
  void learn(std::int32_t position, bool right);

 private:
  double probability(const Candidate& candidate, std::int32_t guess) const;
  double seconds(double tokens) const;

  struct Offer {
    double probability;  // that this guess and all before it are right
    std::int32_t candidate;
  };

  Costs costs_;
  std::array<float, kFrame> rates_ = [] {
    std::array<float, kFrame> rates{};
    rates.fill(0.8F);
    return rates;
  }();
  std::vector<Offer> offers_;
};

}  // namespace jowa::engine
