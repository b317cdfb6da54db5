// jowa._native: what C++ does for Python. Each part checks its own arguments.

#include <pybind11/pybind11.h>

namespace jowa {
void bind_trees(pybind11::module_& module);  // bind_trees.cpp
}
void bind_shards(pybind11::module_& module);  // bind_shards.cpp

PYBIND11_MODULE(_native, module) {
  module.doc() =
      "The native core of jowa: search trees (use them through jowa.planner.tree) and rows of sharded arrays (through "
      "jowa.data.rows), over NumPy buffers.";
  bind_shards(module);
  jowa::bind_trees(module);
}
