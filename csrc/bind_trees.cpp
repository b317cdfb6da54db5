// jowa._native, search trees: argument checks and nothing else. Python's side is jowa/planner/tree.py.

#include <pybind11/stl.h>

#include "arrays.h"
#include "parallel.h"
#include "trees.h"

namespace jowa {

std::string describe(const Shape& shape) {
  std::string text = "(";
  for (std::size_t i = 0; i < shape.size(); ++i) text += (i ? ", " : "") + std::to_string(shape[i]);
  return text + (shape.size() == 1 ? ",)" : ")");
}

namespace {

using Address = std::uintptr_t;

void require(bool held, const char* message) {
  if (!held) throw std::runtime_error(message);
}

// (name, kind, shape, offset in bytes) of each array of the state.
template <typename Tree>
py::list layout(const Tree& tree) {
  py::list list;
  for (const Field& field : tree.fields())
    list.append(py::make_tuple(field.name, std::string(1, field.kind), py::tuple(py::cast(field.shape)), field.offset));
  return list;
}

void expand(BeamTree& tree, const py::object& q, const py::object& legal, Address parents, Address actions,
            Address valid, Address page_table, Address depths, Stream stream) {
  const BeamView& v = tree.view();
  require(!tree.pending(), "expand was called twice: call keep with the children's rewards, ends and values first");
  require(tree.level() < v.table_slots(), "the search is finished: read best() or beam(), or reset()");
  const Input<float> q_data("q", q, {v.roots, v.slots(tree.level()), v.actions});
  const Input<bool> legal_data("legal", legal, {v.roots, v.actions});
  const py::gil_scoped_release release;
  tree.expand(q_data.data(), legal_data.bytes(),
              {at<std::int64_t>(parents), at<std::int64_t>(actions), at<std::uint8_t>(valid),
               at<std::int32_t>(page_table), at<std::int32_t>(depths)},
              stream);
}

void keep(BeamTree& tree, const py::object& rewards, const py::object& ends, const py::object& values, Address slots,
          Address carried, Address valid, Address alive, Stream stream) {
  require(tree.pending(), "keep was called before expand: there are no children to keep");
  const Shape shape{tree.view().roots, tree.children()};
  const Input<float> rewards_data("rewards", rewards, shape);
  const Input<bool> ends_data("ends", ends, shape);
  const Input<float> values_data("values", values, shape);
  const py::gil_scoped_release release;
  tree.keep(rewards_data.data(), ends_data.bytes(), values_data.data(),
            {at<std::int64_t>(slots), at<std::uint8_t>(carried), at<std::uint8_t>(valid), at<std::uint8_t>(alive)},
            stream);
}

void start(MCTSTree& tree, const py::object& active, const py::object& q, const py::object& legal,
           const py::object& max_depth, const py::object& priors, const py::object& gumbel, const py::object& budget,
           const py::object& considered, Stream stream) {
  require(!tree.pending(), "start was called in the midst of a round: call backup first");
  const MCTSView& v = tree.view();
  const Shape roots{v.roots}, edges{v.roots, v.actions};
  const Input<bool> active_data("active", active, roots), legal_data("legal", legal, edges);
  const Input<float> q_data("q", q, edges);
  const Input<std::int64_t> depth_data("max_depth", max_depth, roots);
  std::vector<Input<float>> floats;
  std::vector<Input<std::int64_t>> integers;
  StartMCTS call{};
  call.active = active_data.bytes();
  call.q = q_data.data();
  call.legal = legal_data.bytes();
  call.max_depth = depth_data.data();
  call.priors = optional_input("priors", priors, edges, floats);
  call.gumbel = optional_input("gumbel", gumbel, edges, floats);
  call.budget = optional_input("budget", budget, roots, integers);
  call.considered = optional_input("considered", considered, roots, integers);
  const py::gil_scoped_release release;
  tree.start(call, stream);
}

void select(MCTSTree& tree, const py::object& leaves, std::int64_t rows, std::int64_t columns, Address nodes,
            Address parents, Address actions, Address valid, Address page_table, Address depths, Stream stream) {
  require(!tree.pending(), "select was called twice: call backup with the leaves' rewards, ends and q first");
  const Input<std::int64_t> leaves_data("leaves", leaves, {tree.view().roots});
  const py::gil_scoped_release release;
  tree.select(leaves_data.data(), rows, columns,
              {at<std::int32_t>(nodes), at<std::int32_t>(parents), at<std::int64_t>(actions), at<std::uint8_t>(valid),
               at<std::int32_t>(page_table), at<std::int32_t>(depths)},
              stream);
}

void backup(MCTSTree& tree, const py::object& rewards, const py::object& ends, const py::object& q, Stream stream) {
  require(tree.pending(), "backup was called before select: there are no leaves to evaluate");
  const MCTSView& v = tree.view();
  const Input<float> rewards_data("rewards", rewards, {v.roots, tree.rows()});
  const Input<bool> ends_data("ends", ends, {v.roots, tree.rows()});
  const Input<float> q_data("q", q, {v.roots, tree.rows(), v.actions});
  const py::gil_scoped_release release;
  tree.backup(rewards_data.data(), ends_data.bytes(), q_data.data(), stream);
}

void advance(MCTSTree& tree, const py::object& mask, const py::object& actions, const py::object& gumbel, Address kept,
             Stream stream) {
  require(!tree.pending(), "advance was called in the midst of a round: call backup first");
  const MCTSView& v = tree.view();
  const Input<bool> mask_data("mask", mask, {v.roots});
  const Input<std::int64_t> actions_data("actions", actions, {v.roots});
  std::vector<Input<float>> floats;
  const float* noise = optional_input("gumbel", gumbel, {v.roots, v.actions}, floats);
  const py::gil_scoped_release release;
  tree.advance(mask_data.bytes(), actions_data.data(), noise, at<std::uint8_t>(kept), stream);
}

template <typename Tree, typename Class>
void bind_common(Class& bound) {
  bound.def_property_readonly("state_bytes", &Tree::state_bytes)
      .def("layout", &layout<Tree>)
      .def("attach", [](Tree& tree, Address state) { tree.attach(at<std::byte>(state)); }, py::arg("state"))
      .def("reset", &Tree::reset, py::arg("stream") = 0, py::call_guard<py::gil_scoped_release>())
      .def(
          "best",
          [](Tree& tree, Address actions, Address values, Stream stream) {
            tree.best(at<std::int64_t>(actions), at<float>(values), stream);
          },
          py::arg("actions"), py::arg("values"), py::arg("stream") = 0, py::call_guard<py::gil_scoped_release>())
      .def("pending", &Tree::pending);
}

}  // namespace

void bind_trees(py::module_& module) {
  module.def("describe_fault", &describe_fault);
#ifdef JOWA_WITH_CUDA
  module.attr("cuda_available_in_build") = true;
#else
  module.attr("cuda_available_in_build") = false;
#endif
  auto beam = py::class_<BeamTree>(module, "BeamTree", "A batch of beam searches; see jowa.planner.beam_tree.");
  beam.def(py::init<const std::vector<std::int64_t>&, const std::vector<std::int64_t>&, std::int64_t, double, double,
                    bool, bool>(),
           py::arg("widths"), py::arg("horizons"), py::arg("num_actions"), py::arg("gamma"), py::arg("td_lambda"),
           py::arg("respect_ends"), py::arg("cuda"));
  bind_common<BeamTree>(beam);
  beam.def("expand", &expand, py::arg("q"), py::arg("legal"), py::arg("parents"), py::arg("actions"), py::arg("valid"),
           py::arg("page_table"), py::arg("depths"), py::arg("stream") = 0);
  beam.def("keep", &keep, py::arg("rewards"), py::arg("ends"), py::arg("values"), py::arg("slots"), py::arg("carried"),
           py::arg("valid"), py::arg("alive"), py::arg("stream") = 0);
  beam.def("finished", &BeamTree::finished);
  beam.def_property_readonly("pages_per_root", [](const BeamTree& tree) { return tree.view().pages; });
  beam.def_property_readonly("level", &BeamTree::level);

  auto mcts = py::class_<MCTSTree>(module, "MCTSTree", "A batch of Monte-Carlo searches; see jowa.planner.mcts_tree.");
  mcts.def(py::init([](std::int64_t roots, std::int64_t capacity, std::int64_t actions, double gamma,
                       double temperature, double c_init, double c_base, bool respect_ends, bool gumbel,
                       double c_visit, double c_scale, bool cuda) {
             const MCTSSettings settings{gamma, temperature, c_init, c_base, respect_ends, gumbel, c_visit, c_scale};
             return MCTSTree(roots, capacity, actions, settings, cuda);
           }),
           py::arg("num_roots"), py::arg("capacity"), py::arg("num_actions"), py::arg("gamma"), py::arg("temperature"),
           py::arg("c_init"), py::arg("c_base"), py::arg("respect_ends"), py::arg("gumbel"), py::arg("c_visit"),
           py::arg("c_scale"), py::arg("cuda"));
  bind_common<MCTSTree>(mcts);
  mcts.def("start", &start, py::arg("active"), py::arg("q"), py::arg("legal"), py::arg("max_depth"), py::arg("priors"),
           py::arg("gumbel"), py::arg("budget"), py::arg("considered"), py::arg("stream") = 0);
  mcts.def("select", &select, py::arg("leaves"), py::arg("rows"), py::arg("columns"), py::arg("nodes"),
           py::arg("parents"), py::arg("actions"), py::arg("valid"), py::arg("page_table"), py::arg("depths"),
           py::arg("stream") = 0);
  mcts.def("backup", &backup, py::arg("rewards"), py::arg("ends"), py::arg("q"), py::arg("stream") = 0);
  mcts.def("advance", &advance, py::arg("mask"), py::arg("actions"), py::arg("gumbel"), py::arg("kept"),
           py::arg("stream") = 0);
}

}  // namespace jowa
