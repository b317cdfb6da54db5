// jowa._native: what C++ does for Python. Each part checks its own arguments.

#include <pybind11/pybind11.h>

#include "parallel.h"

namespace jowa {
void bind_trees(pybind11::module_& module);  // bind_trees.cpp
}
void bind_engine(pybind11::module_& module);   // bind_engine.cpp
void bind_kernels(pybind11::module_& module);  // bind_kernels.cpp
void bind_shards(pybind11::module_& module);   // bind_shards.cpp

PYBIND11_MODULE(_native, module) {
  module.doc() =
      "The native core of jowa: the model's forward pass on a CPU (use it through jowa.planner.native_engine), search "
      "trees (jowa.planner.tree), rows of sharded arrays (jowa.data.rows) and kernels of a CPU (jowa.kernels), over NumPy "
      "buffers and addresses.";
  module.def("num_threads", &jowa::num_threads);
  module.def("set_num_threads", &jowa::set_num_threads, pybind11::arg("count"));
  bind_shards(module);
  jowa::bind_trees(module);
  bind_engine(module);
  bind_kernels(module);
}
