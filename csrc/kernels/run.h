// What a CPU does for jowa.kernels: the same functions, on as many threads as pays.
#pragma once

#include <vector>

#include "table.h"

namespace jowa::kernels {

// For each latent the nearest code's number and, unless `chosen` is nullptr, its vector. Returns the latents for which
// float64 cannot tell two codes apart or that are not finite, in order; their results are not written.
std::vector<std::int64_t> nearest_codes(const Table& table, const float* latents, std::int64_t rows,
                                        const float* codebook, std::int64_t codes, std::int64_t width,
                                        std::int64_t* tokens, float* chosen, int threads);

// Either way of the critic's losses over all steps; the call's range and scratch are filled in here.
void critic_losses(const Table& table, CriticCall call, bool backward, int threads);

}  // namespace jowa::kernels
