// The search trees' steps on a GPU: a block a root, on the given stream; returns at once.
#pragma once

#include <cstdint>

#include "../beam_search.h"
#include "../mcts.h"

namespace jowa::cuda {

// Throws a runtime_error when the kernel could not be launched.
void launch(const ResetBeam& step, std::int64_t roots, std::uintptr_t stream);
void launch(const ExpandBeam& step, std::int64_t roots, std::uintptr_t stream);
void launch(const KeepBeam& step, std::int64_t roots, std::uintptr_t stream);
void launch(const BestOfBeam& step, std::int64_t roots, std::uintptr_t stream);
void launch(const ResetMCTS& step, std::int64_t roots, std::uintptr_t stream);
void launch(const StartMCTS& step, std::int64_t roots, std::uintptr_t stream);
void launch(const SelectMCTS& step, std::int64_t roots, std::uintptr_t stream);
void launch(const BackUpMCTS& step, std::int64_t roots, std::uintptr_t stream);
void launch(const BestOfMCTS& step, std::int64_t roots, std::uintptr_t stream);
void launch(const AdvanceMCTS& step, std::int64_t roots, std::uintptr_t stream);

}  // namespace jowa::cuda
