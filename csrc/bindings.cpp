// jowa._native: argument checks and nothing else. Python's side of the contract is jowa/planner/tree.py.

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include <string>
#include <vector>

#include "tree.h"

namespace py = pybind11;

namespace {

using jowa::BeamSearch;
using jowa::Fault;
using jowa::Status;
using Shape = std::vector<py::ssize_t>;

std::string describe(const Shape& shape) {
  std::string text = "(";
  for (std::size_t i = 0; i < shape.size(); ++i) text += (i ? ", " : "") + std::to_string(shape[i]);
  return text + (shape.size() == 1 ? ",)" : ")");
}

// `object` as a C-contiguous array of T with this shape; copies only if it is strided.
template <typename T>
py::array_t<T, py::array::c_style> checked(const char* name, const char* dtype, const py::object& object,
                                           const Shape& shape) {
  if (!py::isinstance<py::array_t<T>>(object)) {
    const std::string got = py::isinstance<py::array>(object)
                                ? "dtype " + std::string(py::str(object.attr("dtype")))
                                : std::string(py::str(py::type::handle_of(object).attr("__name__")));
    throw py::type_error(std::string(name) + " must be a NumPy array of " + dtype + ", got " + got);
  }
  const auto array = py::array_t<T, py::array::c_style>::ensure(object);
  const Shape actual(array.shape(), array.shape() + array.ndim());
  if (actual != shape)
    throw py::value_error(std::string(name) + " must have shape " + describe(shape) + ", got " + describe(actual));
  return array;
}

py::array_t<float, py::array::c_style> floats(const char* name, const py::object& object, const Shape& shape) {
  return checked<float>(name, "float32", object, shape);
}

py::array_t<bool, py::array::c_style> bools(const char* name, const py::object& object, const Shape& shape) {
  return checked<bool>(name, "bool", object, shape);
}

const std::uint8_t* bytes(const py::array_t<bool, py::array::c_style>& array) {
  return reinterpret_cast<const std::uint8_t*>(array.data());
}

std::uint8_t* bytes(py::array_t<bool>& array) { return reinterpret_cast<std::uint8_t*>(array.mutable_data()); }

void require(bool held, const char* message) {
  if (!held) throw std::runtime_error(message);
}

void raise_fault(const Status& status) {
  const std::string of = "root " + std::to_string(status.root);
  switch (status.fault) {
    case Fault::none: return;
    case Fault::nan_q: throw py::value_error("q of " + of + " is NaN for a legal action; the tree is unchanged");
    case Fault::no_legal_action: throw py::value_error("legal of " + of + " allows no action; the tree is unchanged");
    case Fault::bad_reward:
      throw py::value_error("rewards of " + of + " are not finite in a valid slot; the tree is unchanged");
    case Fault::nan_value:
      throw py::value_error("values of " + of + " are NaN in a valid slot; the tree is unchanged");
  }
}

BeamSearch make(std::int64_t num_roots, std::int64_t width, std::int64_t horizon, std::int64_t num_actions,
                double gamma, bool respect_ends) {
  const auto at_least = [](const char* name, std::int64_t value, std::int64_t least) {
    if (value < least)
      throw py::value_error(std::string(name) + " must be at least " + std::to_string(least) + ", got " +
                            std::to_string(value));
  };
  at_least("num_roots", num_roots, 1);
  at_least("width", width, 1);
  at_least("horizon", horizon, 0);
  at_least("num_actions", num_actions, 1);
  if (!(gamma >= 0.0 && gamma <= 1.0))
    throw py::value_error("gamma must lie in [0, 1], got " + std::string(py::repr(py::float_(gamma))));
  return BeamSearch({num_roots, width, horizon, num_actions, gamma, respect_ends});
}

py::tuple expand(BeamSearch& search, const py::object& q_object, const py::object& legal_object) {
  const auto& s = search.settings();
  require(!search.pending(), "expand was called twice: call keep with the children's rewards, ends and values first");
  require(!search.finished(), "the search is finished: read best() or beam(), or reset()");
  const auto q = floats("q", q_object, {s.num_roots, search.slots(), s.num_actions});
  const auto legal = bools("legal", legal_object, {s.num_roots, s.num_actions});
  const Shape shape{s.num_roots, search.children()};
  py::array_t<std::int64_t> parents(shape), actions(shape);
  py::array_t<bool> valid(shape);
  Status status;
  const float* q_data = q.data();
  const std::uint8_t* legal_data = bytes(legal);
  std::int64_t *parents_data = parents.mutable_data(), *actions_data = actions.mutable_data();
  std::uint8_t* valid_data = bytes(valid);
  {
    const py::gil_scoped_release release;
    status = search.expand(q_data, legal_data, parents_data, actions_data, valid_data);
  }
  raise_fault(status);
  return py::make_tuple(parents, actions, valid);
}

py::tuple keep(BeamSearch& search, const py::object& rewards_object, const py::object& ends_object,
               const py::object& values_object) {
  const auto& s = search.settings();
  require(search.pending(), "keep was called before expand: there are no children to keep");
  const Shape children{s.num_roots, search.children()}, kept{s.num_roots, s.width};
  const auto rewards = floats("rewards", rewards_object, children);
  const auto ends = bools("ends", ends_object, children);
  const auto values = floats("values", values_object, children);
  py::array_t<std::int64_t> slots(kept);
  py::array_t<bool> carried(kept), valid(kept), alive(kept);
  Status status;
  const float *rewards_data = rewards.data(), *values_data = values.data();
  const std::uint8_t* ends_data = bytes(ends);
  std::int64_t* slots_data = slots.mutable_data();
  std::uint8_t *carried_data = bytes(carried), *valid_data = bytes(valid), *alive_data = bytes(alive);
  {
    const py::gil_scoped_release release;
    status = search.keep(rewards_data, ends_data, values_data, slots_data, carried_data, valid_data, alive_data);
  }
  raise_fault(status);
  return py::make_tuple(slots, carried, valid, alive);
}

void decide_greedy(BeamSearch& search, const py::object& q_object, const py::object& legal_object) {
  const auto& s = search.settings();
  require(s.horizon == 0, "decide_greedy is for horizon 0: use expand and keep");
  const Shape shape{s.num_roots, s.num_actions};
  const auto q = floats("q", q_object, shape);
  const auto legal = bools("legal", legal_object, shape);
  raise_fault(search.decide_greedy(q.data(), bytes(legal)));
}

py::tuple best(const BeamSearch& search) {
  require(search.decided(), "nothing was decided yet: call expand and keep (or decide_greedy for horizon 0) first");
  const Shape shape{search.settings().num_roots};
  py::array_t<std::int64_t> action(shape);
  py::array_t<float> score(shape);
  search.best(action.mutable_data(), score.mutable_data());
  return py::make_tuple(action, score);
}

py::tuple beam(const BeamSearch& search) {
  require(search.decided(), "nothing was decided yet: call expand and keep (or decide_greedy for horizon 0) first");
  const auto& s = search.settings();
  const Shape shape{s.num_roots, s.width};
  py::array_t<float> scores(shape);
  py::array_t<std::int64_t> actions(Shape{s.num_roots, s.width, s.horizon});
  py::array_t<bool> valid(shape);
  search.beam(scores.mutable_data(), actions.mutable_data(), bytes(valid));
  return py::make_tuple(scores, actions, valid);
}

// All roots' nodes in one flat array; `convert(index in the row, index in the tree, offset of the row)`.
template <typename T, typename Convert>
py::array_t<T> gather(const jowa::Tree& tree, Convert convert) {
  std::int64_t total = 0;
  for (const std::int32_t count : tree.count) total += count;
  py::array_t<T> flat(Shape{total});
  T* out = flat.mutable_data();
  std::int64_t offset = 0;
  for (std::int64_t root = 0; root < tree.roots; ++root) {
    const std::int64_t count = tree.count[static_cast<std::size_t>(root)];
    for (std::int64_t i = 0; i < count; ++i)
      out[offset + i] = convert(root, static_cast<std::size_t>(root * tree.capacity + i), offset);
    offset += count;
  }
  return flat;
}

py::dict nodes(const BeamSearch& search) {
  const jowa::Tree& tree = search.tree();
  const auto plain = [&tree]<typename T, typename Field>(T, const Field& field) {
    return gather<T>(tree, [&](auto, std::size_t at, auto) { return static_cast<T>(field[at]); });
  };
  py::dict result;
  result["root"] = gather<std::int64_t>(tree, [](std::int64_t root, auto, auto) { return root; });
  result["parent"] = gather<std::int64_t>(tree, [&](auto, std::size_t at, std::int64_t offset) {
    return tree.parent[at] < 0 ? std::int64_t{-1} : offset + tree.parent[at];
  });
  result["depth"] = plain(std::int64_t{}, tree.depth);
  result["action"] = plain(std::int64_t{}, tree.action);
  result["reward"] = plain(float{}, tree.reward);
  result["ended"] = plain(bool{}, tree.ended);
  result["value"] = plain(float{}, tree.value);
  result["score"] = plain(float{}, tree.score);
  result["rank"] = plain(std::int64_t{}, tree.rank);
  return result;
}

}  // namespace

void bind_shards(py::module_& module);  // bind_shards.cpp
void bind_engine(py::module_& module);  // bind_engine.cpp

PYBIND11_MODULE(_native, module) {
  module.doc() =
      "The native core of jowa: search trees (use them through jowa.planner.tree), the inference engine (through "
      "jowa.planner.native_engine) and rows of sharded arrays (through jowa.data.rows), over NumPy buffers.";
  bind_shards(module);
  bind_engine(module);
  py::class_<BeamSearch>(module, "BeamTree", "A batch of beam searches; jowa.planner.tree.SearchTree is its contract.")
      .def(py::init(&make), py::arg("num_roots"), py::arg("width"), py::arg("horizon"), py::arg("num_actions"),
           py::arg("gamma"), py::arg("respect_ends"))
      .def("reset", &BeamSearch::reset)
      .def("expand", &expand, py::arg("q"), py::arg("legal"))
      .def("keep", &keep, py::arg("rewards"), py::arg("ends"), py::arg("values"))
      .def("decide_greedy", &decide_greedy, py::arg("q"), py::arg("legal"))
      .def("finished", &BeamSearch::finished)
      .def("best", &best)
      .def("beam", &beam)
      .def("nodes", &nodes);
}
