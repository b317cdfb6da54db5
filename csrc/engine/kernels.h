// What the engine asks of an instruction set: a table of functions, one table a set, chosen when an engine is made.
//
// Rows are padded to whole vectors with zeros. Every element of every result is summed in one fixed order, which does
// not depend on how many rows are computed together: this is what makes outcomes independent of the batch.
#pragma once

#include <cstdint>

namespace jowa::engine {

constexpr int kPanel = 32;      // outputs of a packed panel of weights
constexpr int kBlock = 16;      // keys that lie side by side
constexpr int kStep = 37;       // tokens of a step: its frame's, and an action
constexpr int kFrame = 36;
constexpr int kPageBlocks = 3;  // blocks of keys that hold a step

// A linear layer. Weights in panels of 32 outputs: panel, input, output; in bfloat16 two inputs lie side by side.
struct Linear {
  const void* weights = nullptr;
  const float* bias = nullptr;
  std::int64_t inputs = 0;
  std::int64_t panels = 0;
};

enum class Epilogue { plain, add, gelu, relu };

// y = epilogue(x W + b) for panels [first, last). plain and add write float32 (add: onto y), gelu and relu what the
// next product reads. Strides in elements.
struct ProductCall {
  const Linear* linear;
  const void* x;
  std::int64_t x_stride;
  std::int64_t rows;
  void* y;
  std::int64_t y_stride;
  Epilogue epilogue;
  std::int64_t first, last;
};

// Consecutive tokens of one imagined step, or of a context. `base` of keys and values: this layer's and head's part.
struct Segment {
  std::int32_t root;         // slot of the context
  std::int32_t depth;        // imagined ancestors; -1: the context's own tokens
  const std::int32_t* pages; // depth ancestors, then its own
  std::int32_t start;        // place of the first token in its step (0: the action), or in the context
  std::int32_t count;
  std::int32_t row;          // of the first token, in queries, keys and values
  std::int32_t out_row;      // where its result goes
};

// Where keys and values lie. A head's keys: blocks of 16, in each a dimension's numbers side by side; its values:
// token by token.
struct Store {
  float* data;
  std::int64_t stride;   // floats of a slot or page
  std::int64_t head;     // floats from a head to the next
  std::int64_t values;   // floats from a head's keys to its values
};

struct AttentionCall {
  const Segment* stored;       // segments of one root whose keys and values are new
  std::int64_t num_stored;
  const Segment* asking;       // segments whose queries are wanted
  std::int64_t num_asking;
  const float* queries;        // of this head; keys and values stand `key_offset` and twice that behind
  std::int64_t query_stride, key_offset;
  void* out;                   // of this head
  std::int64_t out_stride;
  Store contexts, pages;
  std::int64_t head_index;     // layer * heads + head
  std::int32_t context_length; // of an imagined step's root
  std::int32_t width;          // of a head, padded to whole vectors
  std::int32_t dims;           // of a head
  float scale;
  float* scratch;
  std::int64_t max_keys;       // floats of one query's scores
};

struct NormCall {
  const float* x;
  std::int64_t x_stride;
  void* y;
  std::int64_t y_stride;
  const float* gain;
  const float* bias;
  std::int64_t width;   // without padding
  std::int64_t first, last;
  bool mish;
};

struct Kernels {
  const char* name;
  int scratch_queries;  // rows of scores that attention uses
  void (*product[2])(const ProductCall&);        // float32, bfloat16
  void (*attend[2])(const AttentionCall&);       // by what the next product reads
  void (*normalise[2])(const NormCall&);         // LayerNorm, and Mish behind it if asked for
  std::int32_t (*argmax)(const float* x, std::int64_t count);  // lowest index on ties; NaN only if all are
  std::int32_t (*draw)(float* logits, std::int64_t count, float temperature, double u);  // overwrites the logits
  bool (*finite)(const float* x, std::int64_t count);
  // Expectations over softmaxes: q[a] of logits (actions, atoms); reads up to 15 floats behind the last.  With one
  // atom the logits are the values.
  void (*expect)(const float* logits, const float* atoms, std::int64_t actions, std::int64_t num_atoms, double* q);
  // Multiply-adds out of registers alone, to measure what the processor can do; returns how many.
  std::int64_t (*saturate[2])(std::int64_t rounds, float* out);
  // 0 exp, 1 erfc, 2 gelu, 3 mish, for tests.
  void (*function)(int which, const float* x, float* y, std::int64_t count);
};

// The best that this processor runs, or the one called `name` (nullptr: there is none of that name here).
const Kernels* find_kernels(const char* name);

}  // namespace jowa::engine
