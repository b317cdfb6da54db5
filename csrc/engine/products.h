// Matrix products with packed weights: a tile of rows times a panel of 32 outputs, one chain of fused multiply-adds an
// output, inputs in order.
#pragma once

#include "kernels.h"
#include "vectors.h"
#ifdef JOWA_BF16
#include <immintrin.h>
#endif

namespace jowa::engine::JOWA_ISA {

// Rows of a tile and vectors of outputs at a time, so that sums and weights stay in registers.
#if defined(__AVX512F__)
constexpr int kTileRows = 12, kTileVectors = 2;
#else
constexpr int kTileRows = 6, kTileVectors = 1;
#endif

struct Float32 {
  using Element = float;
  static constexpr int kInputs = 1;  // taken together
  using Weight = Floats;
  static JOWA_INLINE Weight weight(const void* panel, std::int64_t step, int vector) {
    return *reinterpret_cast<const Floats*>(static_cast<const float*>(panel) + step * kPanel + vector * kLanes);
  }
  static JOWA_INLINE Floats fma(Floats sum, Weight weight, const float* x, std::int64_t step) {
    return sum + weight * splat(x[step]);
  }
};

struct BFloat16 {
  using Element = unsigned short;
  static constexpr int kInputs = 2;
  using Weight = Ints;
  static JOWA_INLINE Weight weight(const void* panel, std::int64_t step, int vector) {
    return *reinterpret_cast<const Ints*>(static_cast<const int*>(panel) + step * kPanel + vector * kLanes);
  }
  static JOWA_INLINE int pair(const unsigned short* x, std::int64_t step) {
    typedef int LooseInt __attribute__((may_alias, aligned(2)));
    return reinterpret_cast<const LooseInt*>(x)[step];
  }
#ifdef JOWA_BF16
  static JOWA_INLINE Floats fma(Floats sum, Weight weight, const unsigned short* x, std::int64_t step) {
    const Ints pairs = splat(pair(x, step));
    return reinterpret_cast<Floats>(
        _mm512_dpbf16_ps(reinterpret_cast<__m512>(sum), (__m512bh)(weight), (__m512bh)(pairs)));
  }
#else
  static JOWA_INLINE Floats fma(Floats sum, Weight weight, const unsigned short* x, std::int64_t step) {
    const unsigned both = static_cast<unsigned>(pair(x, step));
    const Words words = reinterpret_cast<const Words&>(weight);
    const Words even = words << 16, odd = words & 0xFFFF0000U;
    sum = sum + reinterpret_cast<const Floats&>(even) * splat(__builtin_bit_cast(float, both << 16));
    return sum + reinterpret_cast<const Floats&>(odd) * splat(__builtin_bit_cast(float, both & 0xFFFF0000U));
  }
#endif
};

template <typename Precision>
JOWA_INLINE void finish(const ProductCall& call, std::int64_t row, std::int64_t output, Floats value) {
  const std::int64_t at = row * call.y_stride + output;
  float* floats = static_cast<float*>(call.y) + at;
  auto* narrow = static_cast<typename Precision::Element*>(call.y) + at;
  switch (call.epilogue) {
    case Epilogue::plain: return store(floats, value);
    case Epilogue::add: return store(floats, load(floats) + value);
    case Epilogue::gelu: return store_as(narrow, gelu(value));
    case Epilogue::relu: return store_as(narrow, relu(value));
  }
}

// `Rows` rows from `row` on, `Vectors` vectors of outputs of one panel.
template <typename Precision, int Rows, int Vectors>
__attribute__((noinline)) void tile(const ProductCall& call, std::int64_t panel, int vector, std::int64_t row) {
  using Element = typename Precision::Element;
  const std::int64_t steps = (call.linear->inputs + Precision::kInputs - 1) / Precision::kInputs;
  // A panel holds 32 weights of 4 bytes a step in float32, and 32 pairs of 2 bytes in bfloat16.
  const char* weights = static_cast<const char*>(call.linear->weights) + panel * steps * kPanel * 4;
  const Element* x = static_cast<const Element*>(call.x) + row * call.x_stride;
  const std::int64_t output = panel * kPanel + vector * kLanes, stride = call.x_stride;
  Floats sums[Rows][Vectors];
#pragma GCC unroll 16
  for (int r = 0; r < Rows; ++r)
#pragma GCC unroll 4
    for (int v = 0; v < Vectors; ++v) sums[r][v] = load(call.linear->bias + output + v * kLanes);
  for (std::int64_t step = 0; step < steps; ++step) {
    typename Precision::Weight taken[Vectors];
#pragma GCC unroll 4
    for (int v = 0; v < Vectors; ++v) taken[v] = Precision::weight(weights, step, vector + v);
    __builtin_prefetch(weights + (step + 16) * kPanel * 4 + vector * kLanes * 4);
    if (Vectors > 1) __builtin_prefetch(weights + (step + 16) * kPanel * 4 + 64);
#pragma GCC unroll 16
    for (int r = 0; r < Rows; ++r)
#pragma GCC unroll 4
      for (int v = 0; v < Vectors; ++v) sums[r][v] = Precision::fma(sums[r][v], taken[v], x + r * stride, step);
  }
#pragma GCC unroll 16
  for (int r = 0; r < Rows; ++r)
#pragma GCC unroll 4
    for (int v = 0; v < Vectors; ++v) finish<Precision>(call, row + r, output + v * kLanes, sums[r][v]);
}

template <typename Precision, int Rows>
void tile_of(int rows, const ProductCall& call, std::int64_t panel, int vector, std::int64_t row) {
  if constexpr (Rows > 1) {
    if (rows < Rows) return tile_of<Precision, Rows - 1>(rows, call, panel, vector, row);
  }
  tile<Precision, Rows, kTileVectors>(call, panel, vector, row);
}

template <typename Precision>
void product(const ProductCall& call) {
  if (!call.rows) return;
  const std::int64_t tiles = (call.rows + kTileRows - 1) / kTileRows;
  for (std::int64_t panel = call.first; panel < call.last; ++panel)
    for (int vector = 0; vector < kPanel / kLanes; vector += kTileVectors)
      for (std::int64_t i = 0; i < tiles; ++i) {  // tiles as even as can be
        const std::int64_t row = call.rows * i / tiles, end = call.rows * (i + 1) / tiles;
        tile_of<Precision, kTileRows>(static_cast<int>(end - row), call, panel, vector, row);
      }
}

}  // namespace jowa::engine::JOWA_ISA
