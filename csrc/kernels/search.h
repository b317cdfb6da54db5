// The scores of a vector quantiser's codes, with the engine's matrix products.
#pragma once

#include "../engine/products.h"
#include "table.h"

namespace jowa::kernels::JOWA_ISA {

using namespace jowa::engine::JOWA_ISA;
static_assert(kPanel == jowa::engine::kPanel && kLanes <= kMostLanes);

// -2 e of the codes from `first` on: input by input, 32 codes side by side, 0 where there are no more.
inline void pack(const SearchCall& call, std::int64_t first) {
  constexpr std::int64_t kStretch = 64;  // inputs whose numbers stay in the fastest cache
  for (std::int64_t from = 0; from < call.width; from += kStretch) {
    const std::int64_t to = from + kStretch < call.width ? from + kStretch : call.width;
    for (std::int64_t code = 0; code < kPanel; ++code) {
      const bool exists = first + code < call.codes;
      const float* row = call.codebook + (first + code) * call.width;
      for (std::int64_t j = from; j < to; ++j) call.panel[j * kPanel + code] = exists ? -2.0F * row[j] : 0.0F;
    }
  }
}

// One latent's scores for a panel into its lanes.
JOWA_INLINE void merge(Lanes& lanes, const float* scores, std::int64_t first) {
  Floats best = load(lanes.best), second = load(lanes.second);
  typedef int LooseInts __attribute__((vector_size(4 * JOWA_LANES), may_alias, aligned(4)));
  auto& codes = *reinterpret_cast<LooseInts*>(lanes.code);
  Ints code = codes;
#pragma GCC unroll 8
  for (int v = 0; v < kPanelVectors; ++v) {
    const Floats score = load(scores + v * kLanes);
    const Ints better = score < best;
    const Floats loser = better ? best : score;
    second = loser < second ? loser : second;
    best = better ? score : best;
    code = better ? lane_numbers() + static_cast<int>(first + v * kLanes) : code;
  }
  store(lanes.best, best);
  store(lanes.second, second);
  codes = code;
}

inline void search(const SearchCall& call) {
  const float infinity = __builtin_inff();
  for (std::int64_t row = 0; row < call.rows; ++row)
    for (int lane = 0; lane < kMostLanes; ++lane) {
      call.lanes[row].best[lane] = call.lanes[row].second[lane] = infinity;
      call.lanes[row].code[lane] = 0;
    }
  for (std::int64_t panel = call.first; panel < call.last; ++panel) {
    pack(call, panel * kPanel);
    const jowa::engine::Linear linear{call.panel, call.squares + panel * kPanel, call.width, 1};
    for (std::int64_t row = 0; row < call.rows; row += kRows) {
      const std::int64_t rows = call.rows - row < kRows ? call.rows - row : kRows;
      product<Float32>({&linear, call.latents + row * call.width, call.width, rows, call.scores, kPanel,
                        jowa::engine::Epilogue::plain, 0, 1});
      for (std::int64_t i = 0; i < rows; ++i) merge(call.lanes[row + i], call.scores + i * kPanel, panel * kPanel);
    }
  }
}

}  // namespace jowa::kernels::JOWA_ISA
