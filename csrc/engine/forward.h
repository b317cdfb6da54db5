// One pass of new tokens through the blocks, by all threads of a team.
#pragma once

#include <vector>

#include "../parallel.h"
#include "model.h"

namespace jowa::engine {

struct Token {
  std::int32_t id;
  std::int32_t position;
  std::int32_t task;
  bool action;
};

// Tokens and where they stand; segments of one root lie together.
struct Pass {
  std::vector<Token> tokens;
  std::vector<Segment> segments;
  // Contexts only: of the last layer nothing is wanted but these, one segment of one token each, whose rows of the
  // result are 0, 1, ... in order. Empty: everything is wanted.
  std::vector<Segment> wanted;

  void clear() {
    tokens.clear();
    segments.clear();
    wanted.clear();
  }
};

// The part of `count` that a thread does.
struct Share {
  Share(const Team& team, int rank, std::int64_t count)
      : first(count * rank / team.size()), last(count * (rank + 1) / team.size()) {}
  std::int64_t first, last;
};

class Forward {
 public:
  // At most max_rows tokens a pass, and max_steps imagined steps behind a context.
  Forward(const Model& model, const Kernels& kernels, std::int64_t max_rows);

  void make_room(int threads);
  // By one thread before the others start on the pass.
  void prepare(const Pass& pass, const std::vector<std::int32_t>& context_lengths);
  // By all: hidden states behind the final LayerNorm, in hidden(). Ends with a barrier.
  void run(Team& team, int rank, const Pass& pass, const Store& contexts, const Store& pages);
  // By all: logits of the next frame token of all rows of hidden(). Ends with a barrier.
  void predict(Team& team, int rank, std::int64_t rows);
  // By all: rewards' and ends' logits (rows, 5), padded to 32, of hidden states, into logits(). Ends with a barrier.
  void judge(Team& team, int rank, const void* hidden, std::int64_t rows);
  // By all: mean and spread of Q (rows, actions) of hidden states. Ends with a barrier.
  void value(Team& team, int rank, const void* hidden, std::int64_t rows, float* q, float* spread);

  std::int64_t max_rows() const { return max_rows_; }
  std::int64_t hidden_bytes() const { return width_ * model_.sizes.element(); }  // of one row
  const char* hidden(std::int64_t row) const { return hidden_.as<char>() + row * hidden_bytes(); }
  float* logits(std::int64_t row) const { return logits_.as<float>() + row * logits_stride_; }

 private:
  struct Group {  // of one root
    std::int32_t first, count;    // in segments
    std::int32_t context_length;  // tokens
    std::int64_t cost_before;
  };

  void embed(const Pass& pass, std::int64_t first, std::int64_t last);
  void attend(Team& team, int rank, std::int64_t layer, const Pass& pass, bool fewer, const Store& contexts,
              const Store& pages);
  void normalise(Team& team, int rank, const Norm& norm, const float* x, void* y, std::int64_t stride,
                 std::int64_t rows);
  void product(Team& team, int rank, const Linear& linear, const void* x, std::int64_t x_stride, std::int64_t rows,
               void* y, std::int64_t y_stride, Epilogue epilogue);
  void normalise_members(Team& team, int rank, const std::vector<Norm>& norms, std::int64_t rows);

  const Model& model_;
  const Kernels& kernels_;
  const std::int64_t max_rows_;
  const std::int64_t width_, qkv_width_, mixed_width_, wide_width_, q_width_, q_out_width_, logits_stride_;  // strides
  std::int64_t max_keys_;
  Memory x_, kept_, normed_, qkv_, mixed_, wide_, hidden_, logits_, q_, q_narrow_, q_out_;
  Memory scratch_;
  std::int64_t scratch_stride_;
  std::vector<Group> groups_;
  std::int64_t cost_ = 0;
};

}  // namespace jowa::engine
