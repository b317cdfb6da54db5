// Which instruction sets were compiled, and which of them this processor runs.

#include <cstring>

#include "kernels.h"

namespace jowa::engine {

#if defined(JOWA_X86)
namespace bf16 {
extern const Kernels kTable;
}
namespace v4 {
extern const Kernels kTable;
}
namespace v3 {
extern const Kernels kTable;
}
#endif
namespace portable {
extern const Kernels kTable;
}

const Kernels* find_kernels(const char* name) {
  const auto wanted = [name](const Kernels& table) { return !name || !std::strcmp(name, table.name); };
#if defined(JOWA_X86)
  __builtin_cpu_init();
  const bool has_v3 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
                      __builtin_cpu_supports("bmi2");
  const bool has_v4 = has_v3 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                      __builtin_cpu_supports("avx512cd") && __builtin_cpu_supports("avx512dq") &&
                      __builtin_cpu_supports("avx512vl");
  if (has_v4 && __builtin_cpu_supports("avx512bf16") && wanted(bf16::kTable)) return &bf16::kTable;
  if (has_v4 && wanted(v4::kTable)) return &v4::kTable;
  if (has_v3 && wanted(v3::kTable)) return &v3::kTable;
#endif
  return wanted(portable::kTable) ? &portable::kTable : nullptr;
}

}  // namespace jowa::engine
