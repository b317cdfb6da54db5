// Matrix products with packed weights: a tile of rows times a panel of 32 outputs, one chain of fused multiply-adds an
// output, inputs in order.
#pragma once

#include "kernels.h"
#include "vectors.h"
#ifdef JOWA_BF16
#include <immintrin.h>
#endif

namespace jowa::engine::JOWA_ISA {

// Rows of a tile, and how many vectors of outputs it spans, so that sums and weights stay in registers. Few rows span
// several panels: one row's sums alone would wait for one another.
#if defined(__AVX512F__)
constexpr int kTileRows = 12, kLeastVectors = 2;
constexpr int most_vectors(int rows) { return rows <= 2 ? 8 : rows <= 6 ? 4 : 2; }
#elif defined(__aarch64__)
constexpr int kTileRows = 6, kLeastVectors = 4;
constexpr int most_vectors(int rows) { return rows <= 3 ? 8 : 4; }
#else
constexpr int kTileRows = 6, kLeastVectors = 2;
constexpr int most_vectors(int rows) { return rows == 1 ? 8 : rows <= 3 ? 4 : 2; }
#endif
constexpr int kPanelVectors = kPanel / kLanes;
// Inputs that are summed before their sum is added: a long panel would not stay in the cache from tile to tile.
constexpr std::int64_t kDepth = 1024;
constexpr std::int64_t kStepBytes = kPanel * 4;  // of a panel: 32 weights in float32, 32 pairs of them in bfloat16

#ifdef JOWA_BF16
constexpr bool kMultipliesPairs = true;  // an instruction for two products of bfloat16
#else
constexpr bool kMultipliesPairs = false;
#endif

struct Float32 {
  using Element = float;
  static constexpr int kInputs = 1;  // taken together
  using Weight = Floats;
  static JOWA_INLINE Weight weight(const char* at) { return *reinterpret_cast<const Floats*>(at); }
  static JOWA_INLINE Floats fma(Floats sum, Weight weight, const float* x, std::int64_t step) {
    return sum + weight * splat(x[step]);
  }
};

struct BFloat16 {
  using Element = unsigned short;
  static constexpr int kInputs = 2;
  using Weight = Ints;
  static JOWA_INLINE Weight weight(const char* at) { return *reinterpret_cast<const Ints*>(at); }
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

// What to read ahead while a tile is worked on: `stride` bytes a step.
struct Ahead {
  const char* from;
  std::int64_t stride;
};

// The inputs of one stretch, and where their results go.
struct Stretch {
  const char* weights;      // of panel 0, from the first input on
  std::int64_t panel_bytes;
  std::int64_t steps;
  std::int64_t from;        // first input
  const float* bias;        // nullptr: not the first stretch
};

// apply(element of y, sum) for all of a tile.
template <typename Element, int Rows, int Vectors, typename Apply>
JOWA_INLINE void each(const ProductCall& call, std::int64_t row, std::int64_t output,
                      const Floats (&sums)[Rows][Vectors], Apply apply) {
  Element* y = static_cast<Element*>(call.y) + row * call.y_stride + output;
  for (int r = 0; r < Rows; ++r, y += call.y_stride)
#pragma GCC unroll 8
    for (int v = 0; v < Vectors; ++v) apply(y + v * kLanes, sums[r][v]);
}

template <typename Precision, int Rows, int Vectors>
JOWA_INLINE void finish(const ProductCall& call, std::int64_t row, std::int64_t output,
                        const Floats (&sums)[Rows][Vectors]) {
  using Element = typename Precision::Element;
  switch (call.epilogue) {
    case Epilogue::plain: return each<float>(call, row, output, sums, [](float* y, Floats x) { store(y, x); });
    case Epilogue::add: return each<float>(call, row, output, sums, [](float* y, Floats x) { store(y, load(y) + x); });
    case Epilogue::gelu:
      return each<Element>(call, row, output, sums, [](Element* y, Floats x) { store_as(y, gelu(x)); });
    case Epilogue::relu:
      return each<Element>(call, row, output, sums, [](Element* y, Floats x) { store_as(y, relu(x)); });
  }
}

// `Rows` rows from `row` on, times `Vectors` vectors of outputs from `vector` on.
template <typename Precision, int Rows, int Vectors>
__attribute__((noinline)) void tile(const ProductCall& call, const Stretch& stretch, std::int64_t vector,
                                    std::int64_t row, Ahead ahead) {
  using Element = typename Precision::Element;
  const char* weights = stretch.weights + vector / kPanelVectors * stretch.panel_bytes +
                        vector % kPanelVectors * static_cast<std::int64_t>(sizeof(Floats));
  const Element* x = static_cast<const Element*>(call.x) + row * call.x_stride + stretch.from;
  const std::int64_t steps = stretch.steps, stride = call.x_stride, panel_bytes = stretch.panel_bytes;
  Floats sums[Rows][Vectors];
#pragma GCC unroll 16
  for (int r = 0; r < Rows; ++r)
#pragma GCC unroll 8
    for (int v = 0; v < Vectors; ++v)
      sums[r][v] = stretch.bias ? load(stretch.bias + (vector + v) * kLanes) : Floats{};
  for (std::int64_t step = 0; step < steps; ++step) {
    typename Precision::Weight taken[Vectors];
#pragma GCC unroll 8
    for (int v = 0; v < Vectors; ++v)
      taken[v] = Precision::weight(weights + v / kPanelVectors * panel_bytes + step * kStepBytes +
                                   v % kPanelVectors * static_cast<std::int64_t>(sizeof(Floats)));
    __builtin_prefetch(ahead.from + step * ahead.stride, 0, 2);
    __builtin_prefetch(ahead.from + step * ahead.stride + 64, 0, 2);
#pragma GCC unroll 16
    for (int r = 0; r < Rows; ++r)
#pragma GCC unroll 8
      for (int v = 0; v < Vectors; ++v) sums[r][v] = Precision::fma(sums[r][v], taken[v], x + r * stride, step);
  }
  finish<Precision>(call, row, vector * kLanes, sums);
}

template <typename Precision, int Rows, int Vectors>
void tile_of_vectors(int vectors, const ProductCall& call, const Stretch& stretch, std::int64_t vector,
                     std::int64_t row, Ahead ahead) {
  if constexpr (Vectors > kLeastVectors) {
    if (vectors < Vectors)
      return tile_of_vectors<Precision, Rows, Vectors / 2>(vectors, call, stretch, vector, row, ahead);
  }
  tile<Precision, Rows, Vectors>(call, stretch, vector, row, ahead);
}

template <typename Precision, int Rows>
void tile_of(int rows, int vectors, const ProductCall& call, const Stretch& stretch, std::int64_t vector,
             std::int64_t row, Ahead ahead) {
  if constexpr (Rows > 1) {
    if (rows < Rows)
      return tile_of<Precision, Rows - 1>(rows, vectors, call, stretch, vector, row, ahead);
  }
  tile_of_vectors<Precision, Rows, most_vectors(Rows)>(vectors, call, stretch, vector, row, ahead);
}

template <typename Precision>
void product_stretch(const ProductCall& call, const Stretch& stretch) {
  const std::int64_t tiles = (call.rows + kTileRows - 1) / kTileRows, end = call.last * kPanelVectors;
  const int most = most_vectors(static_cast<int>((call.rows + tiles - 1) / tiles));
  int vectors = most;
  for (std::int64_t vector = call.first * kPanelVectors; vector < end; vector += vectors) {
    vectors = most;
    while (vector + vectors > end) vectors /= 2;
    // The first tile brings the weights in for the others, which meanwhile bring in the next: one tile has to run
    // ahead of itself.
    const std::int64_t next = vector + vectors < end ? vector + vectors : vector;
    const char* here = stretch.weights + vector / kPanelVectors * stretch.panel_bytes;
    const char* there = stretch.weights + next / kPanelVectors * stretch.panel_bytes;
    const std::int64_t part = kStepBytes / tiles;
    for (std::int64_t i = 0; i < tiles; ++i) {  // as even as can be
      const std::int64_t row = call.rows * i / tiles, last = call.rows * (i + 1) / tiles;
      const Ahead ahead = tiles == 1 ? Ahead{here + 16 * kStepBytes, kStepBytes}
                                     : Ahead{there + i * stretch.steps * part, part};
      tile_of<Precision, kTileRows>(static_cast<int>(last - row), vectors, call, stretch, vector, row, ahead);
    }
  }
}

template <typename Precision>
void product(const ProductCall& call) {
  if (!call.rows) return;
  const Linear& linear = *call.linear;
  constexpr std::int64_t together = Precision::kInputs;
  const std::int64_t panel_bytes = (linear.inputs + together - 1) / together * kStepBytes;
  // Only sums that are added onto others can be added in parts.
  const std::int64_t depth = call.epilogue == Epilogue::add ? kDepth : linear.inputs;
  for (std::int64_t from = 0; from < linear.inputs; from += depth) {
    const std::int64_t inputs = linear.inputs - from < depth ? linear.inputs - from : depth;
    product_stretch<Precision>(call, {static_cast<const char*>(linear.weights) + from / together * kStepBytes,
                                      panel_bytes, (inputs + together - 1) / together, from,
                                      from ? nullptr : linear.bias});
  }
}

}  // namespace jowa::engine::JOWA_ISA
