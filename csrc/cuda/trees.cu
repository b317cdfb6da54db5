// One block a root, one warp a block. A step's body is serial, as on a CPU; its numbers are brought near by the whole
// warp first, so that the one thread that runs it seldom waits for memory.
#include <stdexcept>
#include <string>

#include "trees.h"

namespace jowa::cuda {
namespace {

constexpr int kWarp = 32;
constexpr std::int64_t kLine = 128;

// Each lane fetches some of the lines of `count` numbers into the cache.
template <typename T>
__device__ void fetch(const T* numbers, std::int64_t count) {
  const char* first = reinterpret_cast<const char*>(numbers);
  const std::int64_t bytes = count * static_cast<std::int64_t>(sizeof(T));
  for (std::int64_t at = threadIdx.x * kLine; at < bytes; at += kWarp * kLine)
    asm volatile("prefetch.global.L2 [%0];" ::"l"(first + at));
}

template <typename Step>
__device__ void fetch_inputs(const Step&, std::int64_t) {}

__device__ void fetch_inputs(const ExpandBeam& step, std::int64_t root) {
  const std::int64_t numbers = step.v.slots(step.level) * step.v.actions;
  fetch(step.q + root * numbers, numbers);
  fetch(step.legal + root * step.v.actions, step.v.actions);
}

__device__ void fetch_inputs(const KeepBeam& step, std::int64_t root) {
  const std::int64_t children = step.v.slots(step.level) * step.v.width;
  fetch(step.rewards + root * children, children);
  fetch(step.ends + root * children, children);
  fetch(step.values + root * children, children);
}

__device__ void fetch_inputs(const BackUpMCTS& step, std::int64_t root) {
  fetch(step.rewards + root * step.rows, step.rows);
  fetch(step.q + root * step.rows * step.all.actions, step.rows * step.all.actions);
}

__device__ void fetch_inputs(const StartMCTS& step, std::int64_t root) {
  fetch(step.q + root * step.all.actions, step.all.actions);
}

template <typename Step>
__global__ void __launch_bounds__(kWarp, 1) run(const __grid_constant__ Step step) {
  const std::int64_t root = blockIdx.x;
  fetch_inputs(step, root);
  __syncwarp();
  if (threadIdx.x == 0) step(root);
}

template <typename Step>
void launch_step(const Step& step, std::int64_t roots, std::uintptr_t stream) {
  run<Step><<<static_cast<unsigned>(roots), kWarp, 0, reinterpret_cast<cudaStream_t>(stream)>>>(step);
  const cudaError_t error = cudaGetLastError();
  if (error != cudaSuccess)
    throw std::runtime_error(std::string("a search tree's kernel could not be launched: ") + cudaGetErrorString(error));
}

}  // namespace

void launch(const ResetBeam& step, std::int64_t roots, std::uintptr_t stream) { launch_step(step, roots, stream); }
void launch(const ExpandBeam& step, std::int64_t roots, std::uintptr_t stream) { launch_step(step, roots, stream); }
void launch(const KeepBeam& step, std::int64_t roots, std::uintptr_t stream) { launch_step(step, roots, stream); }
void launch(const BestOfBeam& step, std::int64_t roots, std::uintptr_t stream) { launch_step(step, roots, stream); }
void launch(const ResetMCTS& step, std::int64_t roots, std::uintptr_t stream) { launch_step(step, roots, stream); }
void launch(const StartMCTS& step, std::int64_t roots, std::uintptr_t stream) { launch_step(step, roots, stream); }
void launch(const SelectMCTS& step, std::int64_t roots, std::uintptr_t stream) { launch_step(step, roots, stream); }
void launch(const BackUpMCTS& step, std::int64_t roots, std::uintptr_t stream) { launch_step(step, roots, stream); }
void launch(const BestOfMCTS& step, std::int64_t roots, std::uintptr_t stream) { launch_step(step, roots, stream); }
void launch(const AdvanceMCTS& step, std::int64_t roots, std::uintptr_t stream) { launch_step(step, roots, stream); }

}  // namespace jowa::cuda
