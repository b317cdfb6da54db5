// The model's weights as the kernels want them: copied, padded and packed.
#pragma once

#include <string>
#include <unordered_map>
#include <vector>

#include "kernels.h"
#include "memory.h"

namespace jowa::engine {

constexpr std::int64_t padded(std::int64_t count, std::int64_t to = kPanel) { return (count + to - 1) / to * to; }

struct Sizes {
  std::int64_t layers, heads, width, vocab, actions, atoms, members, q_width, context_steps, tasks;
  bool task_embedding;
  bool narrow;  // weights and what enters products in bfloat16

  std::int64_t dims() const { return width / heads; }
  std::int64_t head_width() const { return padded(dims(), kBlock); }
  std::int64_t mixed() const { return heads * head_width(); }  // all heads side by side
  std::int64_t element() const { return narrow ? 2 : 4; }      // bytes
};

struct Norm {
  float* gain = nullptr;
  float* bias = nullptr;
  std::int64_t width = 0;
};

struct Block {
  Norm norm1, norm2;
  Linear qkv, proj, up, down;
};

class Model {
 public:
  explicit Model(const Sizes& sizes);

  // Sets one named array, float32 (rows, columns); a vector is one row. Throws std::invalid_argument.
  void load(const std::string& name, const float* data, std::int64_t rows, std::int64_t columns);
  // Throws std::invalid_argument, naming one, unless all arrays were set.
  void check_complete() const;
  // Bytes of weights that a pass reads: blocks and frame head.
  std::int64_t pass_bytes() const { return pass_bytes_; }
  // Multiply-adds a token of the blocks and frame head, attention left out.
  std::int64_t pass_products() const { return pass_products_; }

  const Sizes sizes;
  float *frames = nullptr, *actions = nullptr, *positions = nullptr;   // (entries, padded width)
  float *frame_tasks = nullptr, *action_tasks = nullptr;
  float* atoms = nullptr;
  std::vector<Block> blocks;
  Norm final_norm;
  Linear frame1, frame2, outcome1, outcome2;  // outcome: reward and end heads side by side
  Linear q1;                                  // all members side by side
  std::vector<Linear> q2, q3;
  std::vector<Norm> q_norm1, q_norm2;

 private:
  struct Slot {
    Linear* linear = nullptr;  // else a table
    float* table = nullptr;
    std::int64_t rows = 0, columns = 0, stride = 0;
    bool set = false;
  };
  // The first walk counts the bytes, the second places everything.
  void lay_out();
  void table(const std::string& name, float*& where, std::int64_t rows, std::int64_t columns);
  void linear(const std::string& name, Linear& where, std::int64_t outputs, std::int64_t inputs);
  void norm(const std::string& name, Norm& where, std::int64_t width);
  void* take(std::int64_t bytes);
  void pack(const Linear& to, const float* weights, std::int64_t outputs, std::int64_t inputs);

  Memory memory_;
  std::size_t used_ = 0;
  std::unordered_map<std::string, Slot> slots_;
  std::int64_t pass_bytes_ = 0, pass_products_ = 0;
};

}  // namespace jowa::engine
