// What jowa.kernels asks of an instruction set on a CPU: a table of functions, one table a set.
//
// Every number is computed in one fixed order, which depends neither on how many rows are worked on together nor on
// who works on them.
#pragma once

#include <cstdint>

namespace jowa::kernels {

constexpr int kPanel = 32;     // codes of a packed panel, as the engine's (csrc/engine/kernels.h)
constexpr int kRows = 96;      // latents whose scores are made at once: they stay in the fastest cache
constexpr int kMostLanes = 16; // of any instruction set

// The nearest code so far, for the codes whose number is the lane's, modulo the lanes.
struct alignas(64) Lanes {
  float best[kMostLanes];
  float second[kMostLanes];  // the lowest score but one
  std::int32_t code[kMostLanes];
};

// Scores |e|^2 - 2 z.e of `rows` latents for the codes of panels [first, last).
struct SearchCall {
  const float* latents;    // (rows, width)
  std::int64_t rows;
  const float* codebook;   // (codes, width)
  std::int64_t codes, width;
  std::int64_t first, last;
  const float* squares;    // (panels * 32), infinite behind the last code
  float* panel;            // scratch: width * 32, aligned to 64
  float* scores;           // scratch: kRows * 32, aligned to 64
  Lanes* lanes;            // (rows), to be filled
};

// The losses of steps [first, last): jowa.kernels.c51_loss. Letters as there.
struct CriticCall {
  const float* logits;       // (E, N, A, Z)
  const std::int64_t* taken; // (N)
  const float* successor;    // (N, Z)
  const float* rewards;      // (N)
  const float* discounts;    // (N)
  std::int64_t members, steps, actions, atoms;
  std::int64_t first, last;
  float v_min, v_max, epsilon;
  float* scratch;            // critic_scratch floats, aligned to 64
  float* td;                 // forward (N)
  float* gap;
  const float* td_gradient;  // backward (N)
  const float* gap_gradient;
  float* gradient;           // (E, N, A, Z)
};

struct Table {
  int lanes;
  void (*search)(const SearchCall&);
  void (*critic_forward)(const CriticCall&);
  void (*critic_backward)(const CriticCall&);
};

// Floats of a row of `count`, padded to whole vectors of any instruction set.
constexpr std::int64_t padded(std::int64_t count) { return (count + kMostLanes - 1) / kMostLanes * kMostLanes; }
constexpr std::int64_t critic_scratch(const CriticCall& call) {
  return (call.members + 1) * call.actions * padded(call.atoms) + 3 * padded(call.atoms) + 2 * padded(call.actions) +
         padded(call.members * call.actions);
}

// Of the best that this processor runs, or of the one called `name` (nullptr: there is none of that name here).
const Table* find_table(const char* name);

}  // namespace jowa::kernels
