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

// Where the numbers of one step lie.
struct Step {
  float* own;      // (E, A, padded Z): each member's distributions
  float* mean;     // (A, padded Z)
  float* atoms;    // (padded Z), 0 behind the last
  float* wanted;   // (padded Z): the target
  float* by_mean;  // (padded Z)
  float* q;        // (padded A), -inf behind the last
  float* policy;   // (padded A)
};

inline Step places(const CriticCall& call) {
  const std::int64_t width = padded(call.atoms), choices = padded(call.actions);
  Step step;
  step.own = call.scratch;
  step.mean = step.own + call.members * call.actions * width;
  step.atoms = step.mean + call.actions * width;
  step.wanted = step.atoms + width;
  step.by_mean = step.wanted + width;
  step.q = step.by_mean + 2 * width;
  step.policy = step.q + choices;
  const float spacing = (call.v_max - call.v_min) / static_cast<float>(call.atoms - 1);
  for (std::int64_t z = 0; z < width; ++z)
    step.atoms[z] = z < call.atoms ? call.v_min + static_cast<float>(z) * spacing : 0.0F;
  return step;
}

// Softmax of `count` numbers into whole vectors, 0 behind the last.
JOWA_INLINE void softmax(const float* x, std::int64_t count, float* y) {
  const std::int64_t whole = count / kLanes * kLanes;
  float rest[kLanes];
  for (int lane = 0; lane < kLanes; ++lane) rest[lane] = whole + lane < count ? x[whole + lane] : -__builtin_inff();
  Floats most = load(rest);
  for (std::int64_t z = 0; z < whole; z += kLanes) most = larger(load(x + z), most);
  const Floats top = splat(largest(most));
  Floats total = {};
  for (std::int64_t z = 0; z < whole; z += kLanes) {
    const Floats power = exp(load(x + z) - top);
    store(y + z, power);
    total = total + power;
  }
  if (whole < count) {
    const Floats power = exp(load(rest) - top);
    store(y + whole, power);
    total = total + power;
  }
  const Floats all = splat(sum(total));
  for (std::int64_t z = 0; z < count; z += kLanes) store(y + z, load(y + z) / all);
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

// Distributions of the members, their mean and its expectations.
inline void distributions(const CriticCall& call, std::int64_t n, const Step& step) {
  const std::int64_t width = padded(call.atoms);
  const Floats members = splat(static_cast<float>(call.members));
  for (std::int64_t a = 0; a < padded(call.actions); ++a) step.q[a] = -__builtin_inff();
  for (std::int64_t a = 0; a < call.actions; ++a) {
    for (std::int64_t e = 0; e < call.members; ++e)
      softmax(call.logits + ((e * call.steps + n) * call.actions + a) * call.atoms, call.atoms,
              step.own + (e * call.actions + a) * width);
    Floats q = {};
    for (std::int64_t z = 0; z < call.atoms; z += kLanes) {
      Floats mean = load(step.own + a * width + z);
      for (std::int64_t e = 1; e < call.members; ++e) mean = mean + load(step.own + (e * call.actions + a) * width + z);
      mean = mean / members;
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
    Floats most = load(step.q);
    for (std::int64_t a = kLanes; a < call.actions; a += kLanes) most = larger(load(step.q + a), most);
    const Floats top = splat(largest(most));
    Floats total = {};
    for (std::int64_t a = 0; a < call.actions; a += kLanes) total = total + exp(load(step.q + a) - top);
    call.gap[n] = top[0] + log(splat(sum(total)))[0] - step.q[call.taken[n]];
  }
}

inline void critic_backward(const CriticCall& call) {
  const Step step = places(call);
  const std::int64_t width = padded(call.atoms);
  const Floats members = splat(static_cast<float>(call.members));
  for (std::int64_t n = call.first; n < call.last; ++n) {
    project(call, n, step);
    distributions(call, n, step);
    softmax(step.q, call.actions, step.policy);
    for (std::int64_t a = 0; a < call.actions; ++a) {
      const bool taken = a == call.taken[n];
      const Floats by_q = splat(call.gap_gradient[n] * (step.policy[a] - (taken ? 1.0F : 0.0F)));
      for (std::int64_t z = 0; z < call.atoms; z += kLanes) {
        Floats by_mean = by_q * load(step.atoms + z);
        if (taken)
          by_mean = by_mean - splat(call.td_gradient[n]) * load(step.wanted + z) /
                                  (load(step.mean + a * width + z) + splat(call.epsilon));
        store(step.by_mean + z, by_mean / members);
      }
      for (std::int64_t e = 0; e < call.members; ++e) {
        const float* own = step.own + (e * call.actions + a) * width;
        Floats dot = {};
        for (std::int64_t z = 0; z < call.atoms; z += kLanes) dot = dot + load(own + z) * load(step.by_mean + z);
        const Floats level = splat(sum(dot));
        float* out = call.gradient + ((e * call.steps + n) * call.actions + a) * call.atoms;
        const std::int64_t whole = call.atoms / kLanes * kLanes;
        for (std::int64_t z = 0; z < whole; z += kLanes)
          store(out + z, load(own + z) * (load(step.by_mean + z) - level));
        if (whole < call.atoms) {
          const Floats rest = load(own + whole) * (load(step.by_mean + whole) - level);
          for (std::int64_t z = whole; z < call.atoms; ++z) out[z] = rest[z - whole];
        }
      }
    }
  }
}

}  // namespace jowa::kernels::JOWA_ISA
