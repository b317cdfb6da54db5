// What both search trees share: the device marker, faults, and state as plain arrays over one stretch of memory.
//
// A batch of trees is a "view": plain numbers and pointers, copied by value into threads and kernels. Arrays are
// roots first, and the bodies that work on them touch one root's rows alone, so the same body runs in a thread's
// loop over roots and in a block of a GPU, and one root's results never depend on another's.
#pragma once

#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <string>
#include <vector>

#ifdef __CUDACC__
#define JOWA_HD __host__ __device__
#else
#define JOWA_HD
#endif

namespace jowa {

// Why a root was taken out of the search. describe_fault() says it in words.
enum class TreeFault : std::int32_t { none, bad_q, no_legal_action, bad_reward, nan_value, bad_prior };

const char* describe_fault(std::int64_t code);

// One array of a view: what Python needs to look into the state.
struct Field {
  std::string name;
  char kind;  // 'i' int32, 'l' int64, 'f' float32, 'd' float64, 'b' bytes that are 0 or 1
  std::vector<std::int64_t> shape;
  std::size_t offset, bytes;
};

template <typename T>
constexpr char kind_of();
template <>
constexpr char kind_of<std::int32_t>() { return 'i'; }
template <>
constexpr char kind_of<std::int64_t>() { return 'l'; }
template <>
constexpr char kind_of<float>() { return 'f'; }
template <>
constexpr char kind_of<double>() { return 'd'; }
template <>
constexpr char kind_of<std::uint8_t>() { return 'b'; }

// Bytes between two arrays; the fuzzer forbids them, so that the address sanitizer sees who writes past an array's end.
#ifdef __SANITIZE_ADDRESS__
constexpr std::size_t kGuardBytes = 64;
#else
constexpr std::size_t kGuardBytes = 0;
#endif

// The arrays of `view` in their order in memory, each on a cache line of its own; points them into `base` if given.
template <typename View>
std::vector<Field> lay_out(View& view, std::byte* base, std::size_t* bytes) {
  std::vector<Field> fields;
  std::size_t offset = 0;
  view.fields([&]<typename T>(const char* name, T*& pointer, std::initializer_list<std::int64_t> shape) {
    std::size_t size = sizeof(T);
    for (const std::int64_t extent : shape) size *= static_cast<std::size_t>(extent);
    pointer = base ? reinterpret_cast<T*>(base + offset) : nullptr;
    fields.push_back({name, kind_of<T>(), shape, offset, size});
    offset += (size + 63) / 64 * 64 + kGuardBytes;
  });
  *bytes = offset;
  return fields;
}

// Whether a number is finite, or NaN, from its bits: no compiler flag and no device library changes the answer.
JOWA_HD inline bool is_nan(float x) { return x != x; }
JOWA_HD inline bool is_finite(float x) { return x - x == 0.0F; }

// The lowest free page of a root at or after `from`; `used` (P) must have one.
JOWA_HD inline std::int32_t take_page(std::uint8_t* used, std::int32_t from) {
  while (used[from]) ++from;
  used[from] = 1;
  return from;
}

}  // namespace jowa
