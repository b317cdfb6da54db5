// Vectors of floats and the functions of them that a transformer needs. Compiled once an instruction set, each in a
// namespace of its own (JOWA_ISA), so nothing of one can be linked into another: no standard header may be used here.
#pragma once

// A vector fills one register: compilers make little of wider ones.
#if defined(__AVX512F__)
#define JOWA_LANES 16
#define JOWA_ALL(x) {x, x, x, x, x, x, x, x, x, x, x, x, x, x, x, x}
#define JOWA_COUNT {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15}
#elif defined(__AVX__)
#define JOWA_LANES 8
#define JOWA_ALL(x) {x, x, x, x, x, x, x, x}
#define JOWA_COUNT {0, 1, 2, 3, 4, 5, 6, 7}
#else
#define JOWA_LANES 4
#define JOWA_ALL(x) {x, x, x, x}
#define JOWA_COUNT {0, 1, 2, 3}
#endif
#define JOWA_INLINE inline __attribute__((always_inline))

namespace jowa::engine::JOWA_ISA {

constexpr int kLanes = JOWA_LANES;

typedef float Floats __attribute__((vector_size(4 * JOWA_LANES), may_alias));
typedef int Ints __attribute__((vector_size(4 * JOWA_LANES), may_alias));
typedef unsigned Words __attribute__((vector_size(4 * JOWA_LANES), may_alias));
typedef float LooseFloats __attribute__((vector_size(4 * JOWA_LANES), may_alias, aligned(4)));
typedef unsigned short Halves __attribute__((vector_size(2 * JOWA_LANES), may_alias));
typedef unsigned short LooseHalves __attribute__((vector_size(2 * JOWA_LANES), may_alias, aligned(2)));

JOWA_INLINE Floats load(const float* at) { return *reinterpret_cast<const LooseFloats*>(at); }
JOWA_INLINE void store(float* at, Floats value) { *reinterpret_cast<LooseFloats*>(at) = value; }
JOWA_INLINE Floats splat(float x) { return Floats JOWA_ALL(x); }
JOWA_INLINE Ints splat(int x) { return Ints JOWA_ALL(x); }
JOWA_INLINE Ints lane_numbers() { return Ints JOWA_COUNT; }

// Adds up the lanes in one fixed order.
JOWA_INLINE float sum(Floats x) {
  float part[kLanes];
  store(part, x);
  for (int half = kLanes / 2; half; half /= 2)
    for (int i = 0; i < half; ++i) part[i] += part[i + half];
  return part[0];
}

JOWA_INLINE Floats larger(Floats a, Floats b) { return a > b ? a : b; }

JOWA_INLINE float largest(Floats x) {
  float most = x[0];
  for (int i = 1; i < kLanes; ++i) most = x[i] > most ? x[i] : most;
  return most;
}

// e^x with a relative error below 2e-7; 0 below -87.3, e^88 above 88; NaN stays NaN.
JOWA_INLINE Floats exp(Floats x) {
  const Floats top = splat(88.0F), bottom = splat(-87.3F), zero = {};
  const Floats within = x > top ? top : x;
  // Adding 1.5 * 2^23 rounds to an integer and leaves it in the low bits.
  const Floats magic = splat(12582912.0F);
  const Floats shifted = within * 1.44269504F + magic;
  const Floats whole = shifted - magic;
  const Floats r = (within - whole * 0.693359375F) + whole * 2.12194440e-4F;
  Floats p = r * 0.0013811661629F + 0.0083701349795F;
  p = p * r + 0.0416685268283F;
  p = p * r + 0.1666650921106F;
  p = p * r + 0.4999999403954F;
  p = p * r + 1.0F;
  p = p * r + 1.0F;
  const Words exponent = (reinterpret_cast<const Words&>(shifted) + 127U) << 23;
  const Floats value = p * reinterpret_cast<const Floats&>(exponent);
  return x < bottom ? zero : value;
}

// 1 - erf(t) for t >= 0 with an absolute error below 1e-7: exp(-t Q(t)), Q fitted to the error in erf.
JOWA_INLINE Floats erfc_of_positive(Floats t) {
  t = t > splat(10.0F) ? splat(10.0F) : t;
  Floats q = t * 3.14418320e-5F - 3.08814080e-4F;
  q = q * t + 1.03243464e-3F;
  q = q * t + 5.36887732e-4F;
  q = q * t - 1.95839275e-2F;
  q = q * t + 1.02919601e-1F;
  q = q * t + 6.36597753e-1F;
  q = q * t + 1.12838030F;
  return exp(-t * q);
}

// x/2 (1 + erf(x / sqrt 2)), exact GELU.
JOWA_INLINE Floats gelu(Floats x) {
  const Floats zero = {};
  const Floats tail = 0.5F * x * erfc_of_positive((x < zero ? -x : x) * 0.707106781F);
  return x < zero ? tail : x - tail;
}

// x tanh(log(1 + e^x)) = x n / (n + 2) with n = e^x (e^x + 2); from 20 on the fraction is 1 in float32.
JOWA_INLINE Floats mish(Floats x) {
  const Floats w = exp(x > splat(20.0F) ? splat(20.0F) : x);
  const Floats n = w * (w + 2.0F);
  return x * (n / (n + 2.0F));
}

JOWA_INLINE Floats relu(Floats x) {
  const Floats zero = {};
  return x < zero ? zero : x;  // NaN stays NaN, as in torch
}

// To bfloat16, to the nearest with ties to even; NaN stays NaN.
JOWA_INLINE void store_halves(unsigned short* at, Floats x) {
  const Words bits = reinterpret_cast<const Words&>(x);
  const Words rounded = (bits + 0x7FFFU + ((bits >> 16) & 1U)) >> 16;
  const Words quiet = JOWA_ALL(0x7FC0U);
  const Words chosen = x == x ? rounded : quiet;
  *reinterpret_cast<LooseHalves*>(at) = __builtin_convertvector(chosen, Halves);
}

// Where the next product reads from: float32 or bfloat16.
JOWA_INLINE void store_as(float* at, Floats x) { store(at, x); }
JOWA_INLINE void store_as(unsigned short* at, Floats x) { store_halves(at, x); }

}  // namespace jowa::engine::JOWA_ISA
