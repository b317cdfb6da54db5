// The table of one instruction set: compiled several times, as csrc/engine/kernels.cpp is.

#include "critic.h"
#include "search.h"

namespace jowa::kernels::JOWA_ISA {

extern const Table kTable;
const Table kTable = {kLanes, &search, &critic_forward, &critic_backward};

}  // namespace jowa::kernels::JOWA_ISA
