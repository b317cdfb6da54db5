// The critic's two losses and their gradient, a step at a time: a step's distributions stay in the fastest caches.
#pragma once

#include "../engine/vectors.h"
#include "table.h"

namespace jowa::kernels::JOWA_ISA {

using namespace jowa::engine::JOWA_ISA;

// The natural logarithm of positive normal numbers, with a relative error below 2e-7; NaN stays NaN.
JOWA_INLINE Floats log(Floats x) {
  const Words bits = reinterpret_cast<const Words&>(x);
  // In [sqrt 1/2, sqrt 2), so that what is left of the exponent is rounded to the nearest.
  const Words shifted = bits + (0x3F800000U - 0x3F3504F3U);
  const Words raised = shifted >> 23;
  const Ints exponent = reinterpret_cast<const Ints&>(raised) - 127;
  const Words mantissa = (shifted & 0x007FFFFFU) + 0x3F3504F3U;
  const Floats m = reinterpret_cast<const Floats&>(mantissa) - 1.0F;
  const Floats e = __builtin_convertvector(exponent, Floats);
  Floats p = m * 7.0376836292e-2F - 1.1514610310e-1F;
  p = p * m + 1.1676998740e-1F;
  p = p * m - 1.2420140846e-1F;
  p = p * m + 1.4249322787e-1F;
  p = p * m - 1.6668057665e-1F;
  p = p * m + 2.0000714765e-1F;
  p = p * m - 2.4999993993e-1F;
  p = p * m + 3.3333331174e-1F;
  const Floats square = m * m;
  const Floats tail = p * m * square + e * -2.12194440e-4F - square * 0.5F;
  const Floats value = e * 0.693359375F + (m + tail);
  return x == x ? value : x;
}

// The largest lane; halves are compared, which takes fewer steps that wait for one another than lane after lane.
JOWA_INLINE float highest(Floats x) {
  float part[kLanes];
  store(part, x);
  for (int half = kLanes / 2; half; half /= 2)
    for (int i = 0; i < half; ++i) part[i] = part[i] > part[i + half] ? part[i] : part[i + half];
  return part[0];
}

// Where the numbers of one step lie.
struct Step {
  float* own;      // (E, A, padded Z): each member's distributions
  float* mean;     // (A, padded Z)
  float* atoms;    // (padded Z), 0 behind the last
  float* wanted;   // (padded Z): the target
  float* by_mean;  // (padded Z)
  float* q;        // (padded A), -inf behind the last
  float* policy;   // (padded A)
  float* scale;    // (E A): the highest logit of a distribution, then 1 / the sum of its powers
};

// All that lies behind a last atom is 0, and stays so.
inline Step places(const CriticCall& call) {
  const std::int64_t width = padded(call.atoms), choices = padded(call.actions);
  for (std::int64_t i = 0; i < critic_scratch(call); ++i) call.scratch[i] = 0.0F;
  Step step;
  step.own = call.scratch;
  step.mean = step.own + call.members * call.actions * width;
  step.atoms = step.mean + call.actions * width;
  step.wanted = step.atoms + width;
  step.by_mean = step.wanted + width;
  step.q = step.by_mean + width;
  step.policy = step.q + choices;
  step.scale = step.policy + choices;
  const float spacing = (call.v_max - call.v_min) / static_cast<float>(call.atoms - 1);
  for (std::int64_t z = 0; z < call.atoms; ++z) step.atoms[z] = call.v_min + static_cast<float>(z) * spacing;
  for (std::int64_t a = call.actions; a < choices; ++a) step.q[a] = -__builtin_inff();
  return step;
}

// apply(z) for vectors of numbers that begin at z and cover [0, count): the last may overlap the one before, so that
// nothing lies beyond the end. There must be a whole one.
template <typename Apply>
JOWA_INLINE void cover(std::int64_t count, Apply apply) {
  std::int64_t z = 0;
  for (; z + kLanes <= count; z += kLanes) apply(z);
  if (z < count) apply(count - kLanes);
}

JOWA_INLINE float highest(const float* x, std::int64_t count) {
  if (count < kLanes) {
    float most = x[0];
    for (std::int64_t z = 1; z < count; ++z) most = x[z] > most ? x[z] : most;
    return most;
  }
  Floats most = load(x);
  cover(count, [&](std::int64_t z) { most = larger(load(x + z), most); });
  return highest(most);
}

// y = e^(x - top); returns their sum.
JOWA_INLINE float powers(const float* x, std::int64_t count, float top, float* y) {
  Floats total = {};
  const Floats zero = {};
  if (count < kLanes) {
    for (std::int64_t z = 0; z < count; ++z) y[z] = x[z];
    const Floats power = exp(load(y) - top);
    const Floats within = lane_numbers() < splat(static_cast<int>(count)) ? power : zero;
    store(y, within);
    return sum(within);
  }
  store(y + (count - 1) / kLanes * kLanes, zero);  // behind the last: there may be NaN of another step
  cover(count, [&](std::int64_t z) {
    const Floats power = exp(load(x + z) - top);
    store(y + z, power);
    const int counted = static_cast<int>(z % kLanes ? kLanes - count % kLanes : 0);  // by the vector before
    total = total + (lane_numbers() < splat(counted) ? zero : power);
  });
  return sum(total);
}

// The Bellman projection of step n.
inline void project(const CriticCall& call, std::int64_t n, const Step& step) {
  const float spacing = (call.v_max - call.v_min) / static_cast<float>(call.atoms - 1);
  const float last = static_cast<float>(call.atoms - 1);
  const float* mass = call.successor + n * call.atoms;
  for (std::int64_t z = 0; z < padded(call.atoms); ++z) step.wanted[z] = 0.0F;
  for (std::int64_t z = 0; z < call.atoms; ++z) {
    const float place = (call.rewards[n] + call.discounts[n] * step.atoms[z] - call.v_min) / spacing;
    if (!(place == place)) {  // from a reward that is none: the loss must show it
      for (std::int64_t all = 0; all < call.atoms; ++all) step.wanted[all] = place;
      return;
    }
    const float within = place < 0.0F ? 0.0F : place > last ? last : place;
    const std::int64_t below = static_cast<std::int64_t>(within);
    const std::int64_t above = below + 1 < call.atoms ? below + 1 : below;
    const float share = within - static_cast<float>(below);
    step.wanted[below] += mass[z] * (1.0F - share);
    step.wanted[above] += mass[z] * share;
  }
}

// Distributions of the members, their mean and its expectations. In three rounds over all of them, since within one
// distribution every number waits for the one before.
inline void distributions(const CriticCall& call, std::int64_t n, const Step& step) {
  const std::int64_t width = padded(call.atoms), all = call.members * call.actions;
  const auto logits = [&](std::int64_t i) {
    return call.logits + ((i / call.actions * call.steps + n) * call.actions + i % call.actions) * call.atoms;
  };
  for (std::int64_t i = 0; i < all; ++i) step.scale[i] = highest(logits(i), call.atoms);
  for (std::int64_t i = 0; i < all; ++i)
    step.scale[i] = 1.0F / powers(logits(i), call.atoms, step.scale[i], step.own + i * width);
  const float share = 1.0F / static_cast<float>(call.members);
  for (std::int64_t a = 0; a < call.actions; ++a) {
    Floats q = {};
    for (std::int64_t z = 0; z < call.atoms; z += kLanes) {
      Floats mean = {};
      for (std::int64_t i = a; i < all; i += call.actions) {
        const Floats own = load(step.own + i * width + z) * splat(step.scale[i]);
        store(step.own + i * width + z, own);
        mean = mean + own;
      }
      mean = mean * share;
      store(step.mean + a * width + z, mean);
      q = q + mean * load(step.atoms + z);
    }
    step.q[a] = sum(q);
  }
}

inline void critic_forward(const CriticCall& call) {
  const Step step = places(call);
  const std::int64_t width = padded(call.atoms);
  for (std::int64_t n = call.first; n < call.last; ++n) {
    project(call, n, step);
    distributions(call, n, step);
    const float* predicted = step.mean + call.taken[n] * width;
    Floats td = {};
    for (std::int64_t z = 0; z < call.atoms; z += kLanes)
      td = td - load(step.wanted + z) * log(load(predicted + z) + splat(call.epsilon));
    call.td[n] = sum(td);
    const float top = highest(step.q, call.actions);
    const float total = powers(step.q, call.actions, top, step.policy);
    call.gap[n] = top + log(splat(total))[0] - step.q[call.taken[n]];
  }
}

// One member's gradient: own (by_mean - sum(own by_mean)).
JOWA_INLINE void differentiate(const float* own, const float* by_mean, std::int64_t atoms, float* out) {
  Floats dot = {};
  for (std::int64_t z = 0; z < atoms; z += kLanes) dot = dot + load(own + z) * load(by_mean + z);
  const Floats level = splat(sum(dot));
  if (atoms < kLanes) {
    const Floats all = load(own) * (load(by_mean) - level);
    for (std::int64_t z = 0; z < atoms; ++z) out[z] = all[z];
    return;
  }
  cover(atoms, [&](std::int64_t z) { store(out + z, load(own + z) * (load(by_mean + z) - level)); });
}

inline void critic_backward(const CriticCall& call) {
  const Step step = places(call);
  const std::int64_t width = padded(call.atoms);
  const float share = 1.0F / static_cast<float>(call.members);
  for (std::int64_t n = call.first; n < call.last; ++n) {
    project(call, n, step);
    distributions(call, n, step);
    const float total = powers(step.q, call.actions, highest(step.q, call.actions), step.policy);
    for (std::int64_t a = 0; a < call.actions; ++a) {
      const bool taken = a == call.taken[n];
      const Floats by_q = splat(call.gap_gradient[n] * (step.policy[a] / total - (taken ? 1.0F : 0.0F)) * share);
      const Floats by_td = splat(call.td_gradient[n] * share);
      for (std::int64_t z = 0; z < call.atoms; z += kLanes) {
        Floats by_mean = by_q * load(step.atoms + z);
        if (taken)
          by_mean = by_mean - by_td * load(step.wanted + z) / (load(step.mean + a * width + z) + splat(call.epsilon));
        store(step.by_mean + z, by_mean);
      }
      for (std::int64_t e = 0; e < call.members; ++e)
        differentiate(step.own + (e * call.actions + a) * width, step.by_mean, call.atoms,
                      call.gradient + ((e * call.steps + n) * call.actions + a) * call.atoms);
    }
  }
}

}  // namespace jowa::kernels::JOWA_ISA
