#include "model.h"

#include <algorithm>
#include <cstring>
#include <stdexcept>

namespace jowa::engine {
namespace {

std::uint16_t to_bfloat16(float x) {
  std::uint32_t bits;
  std::memcpy(&bits, &x, sizeof bits);
  if (x != x) return 0x7FC0;
  return static_cast<std::uint16_t>((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16);
}

std::string shape(std::int64_t rows, std::int64_t columns) {
  return "(" + std::to_string(rows) + ", " + std::to_string(columns) + ")";
}

}  // namespace

Model::Model(const Sizes& given) : sizes(given) {
  blocks.resize(static_cast<std::size_t>(sizes.layers));
  for (auto* list : {&q2, &q3}) list->resize(static_cast<std::size_t>(sizes.members));
  for (auto* list : {&q_norm1, &q_norm2}) list->resize(static_cast<std::size_t>(sizes.members));
  lay_out();
  memory_ = Memory(used_);
  used_ = 0;
  slots_.clear();
  pass_bytes_ = pass_products_ = 0;
  lay_out();
}

void Model::lay_out() {
  const std::int64_t width = sizes.width, mixed = sizes.mixed(), members = sizes.members;
  table("frame_embedding", frames, sizes.vocab, width);
  table("action_embedding", actions, sizes.actions, width);
  table("position_embedding", positions, sizes.context_steps * kStep, width);
  if (sizes.task_embedding) {
    table("frame_task_embedding", frame_tasks, sizes.tasks, width);
    table("action_task_embedding", action_tasks, sizes.tasks, width);
  }
  table("atoms", atoms, 1, sizes.atoms);
  for (std::size_t layer = 0; layer < blocks.size(); ++layer) {
    const std::string name = "blocks." + std::to_string(layer) + ".";
    Block& block = blocks[layer];
    norm(name + "ln1", block.norm1, width);
    linear(name + "qkv", block.qkv, 3 * mixed, width);
    linear(name + "proj", block.proj, width, mixed);
    norm(name + "ln2", block.norm2, width);
    linear(name + "up", block.up, 4 * width, width);
    linear(name + "down", block.down, width, 4 * width);
  }
  norm("ln_f", final_norm, width);
  linear("frame1", frame1, width, width);
  linear("frame2", frame2, sizes.vocab, width);
  const std::int64_t bytes = pass_bytes_, products = pass_products_;
  linear("outcome1", outcome1, 2 * width, width);
  linear("outcome2", outcome2, 5, 2 * width);
  const std::int64_t hidden = padded(sizes.q_width);
  linear("q1", q1, members * hidden, width);
  for (std::size_t member = 0; member < q2.size(); ++member) {
    const std::string name = "q." + std::to_string(member) + ".";
    norm(name + "norm1", q_norm1[member], sizes.q_width);
    linear(name + "linear2", q2[member], sizes.q_width, sizes.q_width);
    norm(name + "norm2", q_norm2[member], sizes.q_width);
    linear(name + "linear3", q3[member], sizes.actions * sizes.atoms, sizes.q_width);
  }
  pass_bytes_ = bytes;
  pass_products_ = products;
}

void* Model::take(std::int64_t bytes) {
  char* base = memory_.as<char>();
  void* at = base ? base + used_ : nullptr;
  used_ += static_cast<std::size_t>(padded(bytes, 64));
  return at;
}

void Model::table(const std::string& name, float*& where, std::int64_t rows, std::int64_t columns) {
  const std::int64_t stride = padded(columns);
  where = static_cast<float*>(take(rows * stride * 4));
  slots_[name] = {nullptr, where, rows, columns, stride};
}

void Model::norm(const std::string& name, Norm& where, std::int64_t width) {
  where.width = width;
  table(name + ".weight", where.gain, 1, width);
  table(name + ".bias", where.bias, 1, width);
}

void Model::linear(const std::string& name, Linear& where, std::int64_t outputs, std::int64_t inputs) {
  const std::int64_t bytes = padded(outputs) * padded(inputs, 4 / sizes.element()) * sizes.element();
  float* bias = nullptr;
  table(name + ".bias", bias, 1, outputs);
  where = {take(bytes), bias, inputs, padded(outputs) / kPanel};
  slots_[name + ".weight"] = {&where, nullptr, outputs, inputs, 0};
  pass_bytes_ += bytes;
  pass_products_ += outputs * inputs;
}

void Model::load(const std::string& name, const float* data, std::int64_t rows, std::int64_t columns) {
  const auto found = slots_.find(name);
  if (found == slots_.end()) throw std::invalid_argument("this model has no array called " + name);
  Slot& slot = found->second;
  if (rows != slot.rows || columns != slot.columns)
    throw std::invalid_argument(name + " must have shape " + shape(slot.rows, slot.columns) + ", got " +
                                shape(rows, columns));
  if (slot.linear)
    pack(*slot.linear, data, rows, columns);
  else
    for (std::int64_t row = 0; row < rows; ++row)
      std::copy_n(data + row * columns, columns, slot.table + row * slot.stride);
  slot.set = true;
}

void Model::pack(const Linear& to, const float* weights, std::int64_t outputs, std::int64_t inputs) {
  const std::int64_t together = 4 / sizes.element(), steps = (inputs + together - 1) / together;
  char* out = static_cast<char*>(const_cast<void*>(to.weights));
  for (std::int64_t output = 0; output < outputs; ++output) {
    char* column = out + ((output / kPanel) * steps * kPanel + output % kPanel) * 4;
    for (std::int64_t input = 0; input < inputs; ++input) {
      const float weight = weights[output * inputs + input];
      char* at = column + input / together * kPanel * 4 + input % together * 2;
      const std::uint16_t narrow = to_bfloat16(weight);
      if (sizes.narrow)
        std::memcpy(at, &narrow, 2);
      else
        std::memcpy(at, &weight, 4);
    }
  }
}

void Model::check_complete() const {
  for (const auto& [name, slot] : slots_)
    if (!slot.set) throw std::invalid_argument("the array " + name + " was not set");
}

}  // namespace jowa::engine
