// A batch of search trees in memory that its owner provides: on this machine, by all threads, or on a GPU.
//
// Pointers are the device's where `cuda` was asked for; `stream` is a cudaStream_t then, and unused otherwise.
// Calls on a GPU return at once. An object serves one thread at a time.
#pragma once

#include <stdexcept>

#include "beam_search.h"
#include "mcts.h"

namespace jowa {

using Stream = std::uintptr_t;

class BeamTree {
 public:
  // widths and horizons (R): of each root; the state must hold them too (fields "widths" and "horizons").
  BeamTree(const std::vector<std::int64_t>& widths, const std::vector<std::int64_t>& horizons,
           std::int64_t num_actions, double gamma, double td_lambda, bool respect_ends, bool cuda);

  std::size_t state_bytes() const { return bytes_; }
  const std::vector<Field>& fields() const { return fields_; }
  void attach(std::byte* state) { fields_ = lay_out(view_, state, &bytes_); }

  void reset(Stream stream);
  void expand(const float* q, const std::uint8_t* legal, const Proposals& out, Stream stream);
  void keep(const float* rewards, const std::uint8_t* ends, const float* values, const KeptSlots& out, Stream stream);
  void best(std::int64_t* actions, float* scores, Stream stream);
  bool finished() const;  // on this machine only: it reads the state

  const BeamView& view() const { return view_; }
  std::int64_t level() const { return level_; }
  std::int64_t children() const { return view_.slots(level_) * view_.width; }
  bool pending() const { return pending_; }

 private:
  BeamView view_{};
  std::vector<Field> fields_;
  std::size_t bytes_ = 0;
  bool cuda_;
  std::int64_t level_ = 0;
  double discount_ = 1.0;  // (gamma * td_lambda)^level
  bool pending_ = false;   // expand() awaits keep()
};

class MCTSTree {
 public:
  MCTSTree(std::int64_t num_roots, std::int64_t capacity, std::int64_t num_actions, const MCTSSettings& settings,
           bool cuda);

  std::size_t state_bytes() const { return bytes_; }
  const std::vector<Field>& fields() const { return fields_; }
  void attach(std::byte* state) { fields_ = lay_out(view_, state, &bytes_); }

  void reset(Stream stream);
  void start(StartMCTS call, Stream stream);  // everything but the view
  void select(const std::int64_t* wanted, std::int64_t rows, std::int64_t columns, const Leaves& out, Stream stream);
  void backup(const float* rewards, const std::uint8_t* ends, const float* q, Stream stream);
  void best(std::int64_t* actions, float* values, Stream stream);
  void advance(const std::uint8_t* mask, const std::int64_t* actions, const float* gumbel, std::uint8_t* kept,
               Stream stream);

  const MCTSView& view() const { return view_; }
  std::int64_t rows() const { return rows_; }
  bool pending() const { return pending_; }

 private:
  MCTSView view_{};
  std::vector<Field> fields_;
  std::size_t bytes_ = 0;
  bool cuda_;
  std::int64_t rows_ = 0;  // of the last select
  bool pending_ = false;   // select() awaits backup()
};

}  // namespace jowa
