// jowa._native, the inference engine: argument checks and nothing else. Python's side is jowa/planner/native_engine.py.

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <iterator>
#include <memory>
#include <string>
#include <vector>

#include "engine/engine.h"

namespace py = pybind11;

namespace {

using jowa::engine::Engine;
using jowa::engine::Kernels;
using Shape = std::vector<py::ssize_t>;

template <typename T>
using Array = py::array_t<T, py::array::c_style>;

std::string describe(const Shape& shape) {
  std::string text = "(";
  for (std::size_t i = 0; i < shape.size(); ++i) text += (i ? ", " : "") + std::to_string(shape[i]);
  return text + (shape.size() == 1 ? ",)" : ")");
}

// `object` as a C-contiguous array of T with this shape, -1 for any length; copies only if it is strided.
template <typename T>
Array<T> checked(const char* name, const py::object& object, const Shape& shape) {
  if (!py::isinstance<py::array_t<T>>(object))
    throw py::value_error(std::string(name) + " must be a NumPy array of " + std::string(py::str(py::dtype::of<T>())) +
                          ", got " + std::string(py::repr(py::type::handle_of(object))));
  const auto array = Array<T>::ensure(object);
  const Shape actual(array.shape(), array.shape() + array.ndim());
  bool fits = actual.size() == shape.size();
  for (std::size_t i = 0; fits && i < shape.size(); ++i) fits = shape[i] < 0 || shape[i] == actual[i];
  if (!fits)
    throw py::value_error(std::string(name) + " must have shape " + describe(shape) + ", got " + describe(actual));
  return array;
}

// The same, or nothing for None.
template <typename T>
Array<T> optional(const char* name, const py::object& object, const Shape& shape) {
  return object.is_none() ? Array<T>() : checked<T>(name, object, shape);
}

template <typename T>
const T* data(const py::object& object, const Array<T>& array) {
  return object.is_none() ? nullptr : array.data();
}

const Kernels& kernels_called(const py::object& name) {
  const Kernels* kernels =
      name.is_none() ? jowa::engine::find_kernels(nullptr)
                     : jowa::engine::find_kernels(py::cast<std::string>(name).c_str());
  if (!kernels)
    throw py::value_error("this processor or build has no instructions called " + std::string(py::str(name)));
  return *kernels;
}

std::unique_ptr<Engine> make(std::int64_t layers, std::int64_t heads, std::int64_t width, std::int64_t vocab,
                             std::int64_t actions, std::int64_t atoms, std::int64_t members, std::int64_t q_width,
                             std::int64_t context_steps, std::int64_t tasks, bool task_embedding, bool bfloat16,
                             const py::object& instructions) {
  for (const std::int64_t count : {layers, heads, width, vocab, actions, atoms, members, q_width, context_steps, tasks})
    if (count < 1) throw py::value_error("every size must be at least 1, got " + std::to_string(count));
  if (width % heads) throw py::value_error("width must be a multiple of heads");
  return std::make_unique<Engine>(
      jowa::engine::Sizes{layers, heads, width, vocab, actions, atoms, members, q_width, context_steps, tasks,
                          task_embedding, bfloat16},
      kernels_called(instructions));
}

void load(Engine& engine, const std::string& name, const py::object& object) {
  const auto array = checked<float>(name.c_str(), object, {-1, -1});
  engine.model().load(name, array.data(), array.shape(0), array.shape(1));
}

py::tuple encode(Engine& engine, const py::object& tokens_object, const py::object& actions_object,
                 const py::object& lengths_object, const py::object& tasks_object, const py::object& slots_object) {
  const auto tokens = checked<std::int64_t>("context.tokens", tokens_object, {-1, -1, jowa::engine::kFrame});
  const py::ssize_t roots = tokens.shape(0), steps = tokens.shape(1), num_actions = engine.model().sizes.actions;
  const auto actions = checked<std::int64_t>("context.actions", actions_object, {roots, steps});
  const auto lengths = checked<std::int64_t>("context.lengths", lengths_object, {roots});
  const auto tasks = checked<std::int64_t>("context.tasks", tasks_object, {roots});
  const auto slots = optional<std::int64_t>("slots", slots_object, {roots});
  py::array_t<float> q(Shape{roots, num_actions}), spread(Shape{roots, num_actions});
  float *q_data = q.mutable_data(), *spread_data = spread.mutable_data();
  const jowa::engine::ContextView view{roots, steps, tokens.data(), actions.data(), lengths.data(), tasks.data(),
                                       data(slots_object, slots)};
  {
    const py::gil_scoped_release release;
    engine.encode(view, q_data, spread_data);
  }
  return py::make_tuple(q, spread);
}

template <typename T>
py::array_t<T> zeros(const Shape& shape) {
  py::array_t<T> array(shape);
  std::fill_n(array.mutable_data(), array.size(), T{});
  return array;
}

py::tuple imagine(Engine& engine, const py::object& actions_object, const py::object& pages_object,
                  const py::object& depths_object, const py::object& drafts_object, const py::object& sureness_object,
                  const py::object& seeds_object, float temperature) {
  const auto actions = checked<std::int64_t>("level.actions", actions_object, {-1, -1});
  const py::ssize_t roots = actions.shape(0), rows = actions.shape(1), num_actions = engine.model().sizes.actions;
  const auto pages = checked<std::int32_t>("level.page_table", pages_object, {roots, rows, -1});
  const auto depths = checked<std::int32_t>("level.depths", depths_object, {roots, rows});
  const Shape frames{roots, rows, jowa::engine::kFrame}, values{roots, rows, num_actions};
  const auto drafts = optional<std::int64_t>("drafts.tokens", drafts_object, frames);
  const auto sureness = optional<float>("drafts.sureness", sureness_object, frames);
  const auto seeds = optional<std::int64_t>("sampling.seeds", seeds_object, {roots, rows});
  if (!(temperature > 0.0F && temperature <= 3e38F))
    throw py::value_error("sampling.temperature must be positive and finite, got " + std::to_string(temperature));
  auto tokens = zeros<std::int64_t>(frames);
  auto rewards = zeros<float>({roots, rows});
  auto ends = zeros<bool>({roots, rows});
  auto q = zeros<float>(values), spread = zeros<float>(values);
  const jowa::engine::LevelView view{roots,          rows,          pages.shape(2),
                                     actions.data(), pages.data(),  depths.data(),
                                     data(drafts_object, drafts),   data(sureness_object, sureness),
                                     data(seeds_object, seeds),     temperature};
  const jowa::engine::Imagined out{tokens.mutable_data(), rewards.mutable_data(),
                                   reinterpret_cast<std::uint8_t*>(ends.mutable_data()), q.mutable_data(),
                                   spread.mutable_data()};
  jowa::engine::Tally tally;
  {
    const py::gil_scoped_release release;
    tally = engine.imagine(view, out);
  }
  py::array_t<std::int64_t> misses(Shape{jowa::engine::kFrame});
  std::copy(tally.misses.begin(), tally.misses.end(), misses.mutable_data());
  return py::make_tuple(tokens, rewards, ends, q, spread,
                        py::make_tuple(tally.frames, tally.row_passes, tally.fed, tally.guessed, tally.accepted),
                        misses);
}

py::array_t<float> apply(const std::string& function, const py::object& object, const py::object& instructions) {
  const char* const names[] = {"exp", "erfc", "gelu", "mish"};
  const auto* const found = std::find(std::begin(names), std::end(names), function);
  if (found == std::end(names)) throw py::value_error("there is no function called " + function);
  const auto x = checked<float>("x", object, {-1});
  py::array_t<float> y(Shape{x.shape(0)});
  kernels_called(instructions)
      .function(static_cast<int>(found - std::begin(names)), x.data(), y.mutable_data(), x.shape(0));
  return y;
}

// Multiply-adds a second of all threads together, without memory.
double peak(bool bfloat16) {
  constexpr std::int64_t kRounds = 1 << 20;
  const Kernels* kernels = jowa::engine::find_kernels(nullptr);
  const py::gil_scoped_release release;
  const auto start = std::chrono::steady_clock::now();
  std::atomic<std::int64_t> total{0};
  jowa::run_team(jowa::num_threads(), [&](jowa::Team&, int) {
    float out = 0.0F;
    total += kernels->saturate[bfloat16](kRounds, &out);
  });
  return static_cast<double>(total) / std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

}  // namespace

void bind_engine(py::module_& module) {
  module.def("peak", &peak, py::arg("bfloat16"));
  module.def("apply", &apply, py::arg("function"), py::arg("x"), py::arg("instructions") = py::none());
  py::class_<Engine>(module, "Engine", "A transformer's inference; jowa.planner.engine.Engine is its contract.")
      .def(py::init(&make), py::kw_only(), py::arg("layers"), py::arg("heads"), py::arg("width"), py::arg("vocab"),
           py::arg("actions"), py::arg("atoms"), py::arg("members"), py::arg("q_width"), py::arg("context_steps"),
           py::arg("tasks"), py::arg("task_embedding"), py::arg("bfloat16"), py::arg("instructions") = py::none())
      .def("load", &load, py::arg("name"), py::arg("array"))
      .def("check_complete", [](Engine& engine) { engine.model().check_complete(); })
      .def("reserve", &Engine::reserve, py::arg("roots"), py::arg("pages"))
      .def("encode", &encode, py::arg("tokens"), py::arg("actions"), py::arg("lengths"), py::arg("tasks"),
           py::arg("slots"))
      .def("imagine", &imagine, py::arg("actions"), py::arg("page_table"), py::arg("depths"), py::arg("drafts"),
           py::arg("sureness"), py::arg("seeds"), py::arg("temperature"))
      .def("costs",
           [](Engine& engine) {
             engine.measure();
             return py::make_tuple(engine.costs().pass, engine.costs().token);
           })
      .def_property_readonly("instructions", [](const Engine& engine) { return engine.kernels().name; })
      .def_property_readonly("pass_bytes", [](Engine& engine) { return engine.model().pass_bytes(); })
      .def_property_readonly("pass_products", [](Engine& engine) { return engine.model().pass_products(); });
}
