// jowa._native, kernels of a CPU: arguments were checked by Python's side, jowa/kernels.

#include <pybind11/stl.h>

#include <stdexcept>

#include "arrays.h"
#include "kernels/run.h"

namespace {

namespace py = pybind11;
namespace kernels = jowa::kernels;
using jowa::at;
using Address = std::uintptr_t;

const kernels::Table& table_called(const std::optional<std::string>& name) {
  const kernels::Table* table = kernels::find_table(name ? name->c_str() : nullptr);
  if (!table) throw py::value_error("this processor or build has no instructions called " + *name);
  return *table;
}

std::vector<std::int64_t> nearest_codes(Address latents, std::int64_t rows, Address codebook, std::int64_t codes,
                                        std::int64_t width, Address tokens, Address chosen, int threads,
                                        const std::optional<std::string>& instructions) {
  const kernels::Table& table = table_called(instructions);
  const py::gil_scoped_release release;
  return kernels::nearest_codes(table, at<const float>(latents), rows, at<const float>(codebook), codes, width,
                                at<std::int64_t>(tokens), at<float>(chosen), threads);
}

kernels::CriticCall critic_call(Address logits, Address taken, Address successor, Address rewards, Address discounts,
                                const std::array<std::int64_t, 4>& sizes, const std::array<float, 3>& numbers) {
  kernels::CriticCall call{};
  call.logits = at<const float>(logits);
  call.taken = at<const std::int64_t>(taken);
  call.successor = at<const float>(successor);
  call.rewards = at<const float>(rewards);
  call.discounts = at<const float>(discounts);
  call.members = sizes[0];
  call.steps = sizes[1];
  call.actions = sizes[2];
  call.atoms = sizes[3];
  call.v_min = numbers[0];
  call.v_max = numbers[1];
  call.epsilon = numbers[2];
  // Which logits are read depends on them; a number of an action that there is not must not be an address.
  for (std::int64_t n = 0; n < call.steps; ++n)
    if (call.taken[n] < 0 || call.taken[n] >= call.actions)
      throw py::value_error("actions must be in [0, " + std::to_string(call.actions) + "), got " +
                            std::to_string(call.taken[n]));
  return call;
}

void critic_forward(Address logits, Address taken, Address successor, Address rewards, Address discounts, Address td,
                    Address gap, const std::array<std::int64_t, 4>& sizes, const std::array<float, 3>& numbers,
                    int threads, const std::optional<std::string>& instructions) {
  const kernels::Table& table = table_called(instructions);
  kernels::CriticCall call = critic_call(logits, taken, successor, rewards, discounts, sizes, numbers);
  call.td = at<float>(td);
  call.gap = at<float>(gap);
  const py::gil_scoped_release release;
  kernels::critic_losses(table, call, false, threads);
}

void critic_backward(Address logits, Address taken, Address successor, Address rewards, Address discounts,
                     Address td_gradient, Address gap_gradient, Address gradient,
                     const std::array<std::int64_t, 4>& sizes, const std::array<float, 3>& numbers, int threads,
                     const std::optional<std::string>& instructions) {
  const kernels::Table& table = table_called(instructions);
  kernels::CriticCall call = critic_call(logits, taken, successor, rewards, discounts, sizes, numbers);
  call.td_gradient = at<const float>(td_gradient);
  call.gap_gradient = at<const float>(gap_gradient);
  call.gradient = at<float>(gradient);
  const py::gil_scoped_release release;
  kernels::critic_losses(table, call, true, threads);
}

}  // namespace

void bind_kernels(py::module_& module) {
  module.def("nearest_codes", &nearest_codes, py::arg("latents"), py::arg("rows"), py::arg("codebook"),
             py::arg("codes"), py::arg("width"), py::arg("tokens"), py::arg("chosen"), py::arg("threads"),
             py::arg("instructions") = py::none());
  module.def("critic_forward", &critic_forward, py::arg("logits"), py::arg("taken"), py::arg("successor"),
             py::arg("rewards"), py::arg("discounts"), py::arg("td"), py::arg("gap"), py::arg("sizes"),
             py::arg("numbers"), py::arg("threads"), py::arg("instructions") = py::none());
  module.def("critic_backward", &critic_backward, py::arg("logits"), py::arg("taken"), py::arg("successor"),
             py::arg("rewards"), py::arg("discounts"), py::arg("td_gradient"), py::arg("gap_gradient"),
             py::arg("gradient"), py::arg("sizes"), py::arg("numbers"), py::arg("threads"),
             py::arg("instructions") = py::none());
}
