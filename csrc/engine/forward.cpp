#include "forward.h"

#include <algorithm>
#include <cmath>
#include <cstring>

namespace jowa::engine {
namespace {

// Rows whose distance is a multiple of 4096 bytes would share few lines of the cache.
std::int64_t stride_for(std::int64_t count) { return padded(count) + kPanel; }

std::size_t bytes(std::int64_t rows, std::int64_t stride, std::int64_t element) {
  return static_cast<std::size_t>(rows * stride * element);
}

// Mean and standard deviation over members of what each expects of the actions, (members, actions).
void summarise(const std::vector<double>& expected, std::int64_t members, float* q, float* spread) {
  const std::size_t actions = expected.size() / static_cast<std::size_t>(members);
  for (std::size_t action = 0; action < actions; ++action) {
    double mean = 0.0, squares = 0.0;
    for (std::size_t at = action; at < expected.size(); at += actions) mean += expected[at];
    mean /= static_cast<double>(members);
    for (std::size_t at = action; at < expected.size(); at += actions)
      squares += (expected[at] - mean) * (expected[at] - mean);
    q[action] = static_cast<float>(mean);
    spread[action] = static_cast<float>(std::sqrt(squares / static_cast<double>(members)));
  }
}

}  // namespace

Forward::Forward(const Model& model, const Kernels& kernels, std::int64_t max_rows)
    : model_(model),
      kernels_(kernels),
      max_rows_(max_rows),
      width_(stride_for(model.sizes.width)),
      qkv_width_(stride_for(3 * model.sizes.mixed())),
      mixed_width_(stride_for(model.sizes.mixed())),
      wide_width_(stride_for(4 * model.sizes.width)),
      q_width_(stride_for(model.sizes.members * padded(model.sizes.q_width))),
      q_out_width_(model.sizes.members * stride_for(model.sizes.actions * model.sizes.atoms)),
      logits_stride_(stride_for(model.sizes.vocab)) {
  const Sizes& sizes = model.sizes;
  const std::int64_t element = sizes.element();
  max_keys_ = padded(sizes.context_steps * kStep, kBlock) + sizes.context_steps * kPageBlocks * kBlock;
  scratch_stride_ = kernels.scratch_queries * (max_keys_ + sizes.head_width());
  for (Memory* floats : {&x_, &kept_}) floats->need(bytes(max_rows, width_, 4));
  for (Memory* narrow : {&normed_, &hidden_}) narrow->need(bytes(max_rows, width_, element));
  qkv_.need(bytes(max_rows, qkv_width_, 4));
  mixed_.need(bytes(max_rows, mixed_width_, element));
  wide_.need(bytes(max_rows, wide_width_, element));
  logits_.need(bytes(max_rows, logits_stride_, 4));
  q_.need(bytes(max_rows, q_width_, 4));
  q_narrow_.need(bytes(max_rows, q_width_, element));
  q_out_.need(bytes(max_rows, q_out_width_, 4));
}

void Forward::make_room(int threads) { scratch_.need(bytes(threads, scratch_stride_, 4)); }

void Forward::prepare(const Pass& pass, const std::vector<std::int32_t>& context_lengths) {
  groups_.clear();
  cost_ = 0;
  for (std::size_t s = 0; s < pass.segments.size(); ++s) {
    const Segment& segment = pass.segments[s];
    const std::int32_t steps = context_lengths[static_cast<std::size_t>(segment.root)];
    if (groups_.empty() || pass.segments[s - 1].root != segment.root)
      groups_.push_back({static_cast<std::int32_t>(s), 0, steps * kStep - 1, cost_});
    ++groups_.back().count;
    cost_ += static_cast<std::int64_t>(segment.count) * (steps + std::max(segment.depth, 0) + 2);
  }
}

void Forward::embed(const Pass& pass, std::int64_t first, std::int64_t last) {
  const std::int64_t width = padded(model_.sizes.width);
  for (std::int64_t row = first; row < last; ++row) {
    const Token& token = pass.tokens[static_cast<std::size_t>(row)];
    const float* entry = (token.action ? model_.actions : model_.frames) + token.id * width;
    const float* position = model_.positions + token.position * width;
    float* x = x_.as<float>() + row * width_;
    for (std::int64_t j = 0; j < width; ++j) x[j] = entry[j] + position[j];
    if (!model_.sizes.task_embedding) continue;
    const float* task = (token.action ? model_.action_tasks : model_.frame_tasks) + token.task * width;
    for (std::int64_t j = 0; j < width; ++j) x[j] += task[j];
  }
}

void Forward::normalise(Team& team, int rank, const Norm& norm, const float* x, void* y, std::int64_t stride,
                        std::int64_t rows) {
  const Share share(team, rank, rows);
  kernels_.normalise[model_.sizes.narrow](
      {x, stride, y, stride, norm.gain, norm.bias, norm.width, share.first, share.last, false});
}

void Forward::product(Team& team, int rank, const Linear& linear, const void* x, std::int64_t x_stride,
                      std::int64_t rows, void* y, std::int64_t y_stride, Epilogue epilogue) {
  const Share share(team, rank, linear.panels);
  kernels_.product[model_.sizes.narrow]({&linear, x, x_stride, rows, y, y_stride, epilogue, share.first, share.last});
}

void Forward::attend(Team& team, int rank, std::int64_t layer, const Pass& pass, bool fewer, const Store& contexts,
                     const Store& pages) {
  const Sizes& sizes = model_.sizes;
  const std::int64_t total = cost_ * sizes.heads;
  for (std::int64_t head = 0; head < sizes.heads; ++head) {
    for (std::size_t g = 0; g < groups_.size(); ++g) {
      const Group& group = groups_[g];
      if ((head * cost_ + group.cost_before) * team.size() / total != rank) continue;
      const Segment* stored = pass.segments.data() + group.first;
      const std::int64_t at = head * sizes.head_width();
      const Segment* asking = fewer ? pass.wanted.data() + g : stored;
      kernels_.attend[sizes.narrow]({stored, group.count, asking, fewer ? 1 : group.count,
                                     qkv_.as<float>() + at, qkv_width_, sizes.mixed(),
                                     mixed_.as<char>() + at * sizes.element(), mixed_width_, contexts, pages,
                                     layer * sizes.heads + head, group.context_length,
                                     static_cast<std::int32_t>(sizes.head_width()),
                                     static_cast<std::int32_t>(sizes.dims()),
                                     1.0F / std::sqrt(static_cast<float>(sizes.dims())),
                                     scratch_.as<float>() + rank * scratch_stride_, max_keys_});
    }
  }
}

void Forward::run(Team& team, int rank, const Pass& pass, const Store& contexts, const Store& pages) {
  float* x = x_.as<float>();
  auto rows = static_cast<std::int64_t>(pass.tokens.size());
  const Share mine(team, rank, rows);
  embed(pass, mine.first, mine.last);
  for (std::size_t layer = 0; layer < model_.blocks.size(); ++layer) {
    const Block& block = model_.blocks[layer];
    normalise(team, rank, block.norm1, x, normed_.as<void>(), width_, rows);
    team.barrier();
    product(team, rank, block.qkv, normed_.as<void>(), width_, rows, qkv_.as<void>(), qkv_width_, Epilogue::plain);
    team.barrier();
    const bool fewer = layer + 1 == model_.blocks.size() && !pass.wanted.empty();
    attend(team, rank, static_cast<std::int64_t>(layer), pass, fewer, contexts, pages);
    if (fewer) {
      rows = static_cast<std::int64_t>(pass.wanted.size());
      const Share share(team, rank, rows);
      for (std::int64_t row = share.first; row < share.last; ++row)
        std::copy_n(x + pass.wanted[static_cast<std::size_t>(row)].row * width_, width_,
                    kept_.as<float>() + row * width_);
      x = kept_.as<float>();
    }
    team.barrier();
    product(team, rank, block.proj, mixed_.as<void>(), mixed_width_, rows, x, width_, Epilogue::add);
    team.barrier();
    normalise(team, rank, block.norm2, x, normed_.as<void>(), width_, rows);
    team.barrier();
    product(team, rank, block.up, normed_.as<void>(), width_, rows, wide_.as<void>(), wide_width_, Epilogue::gelu);
    team.barrier();
    product(team, rank, block.down, wide_.as<void>(), wide_width_, rows, x, width_, Epilogue::add);
    team.barrier();
  }
  normalise(team, rank, model_.final_norm, x, hidden_.as<void>(), width_, rows);
  team.barrier();
}

void Forward::predict(Team& team, int rank, std::int64_t rows) {
  product(team, rank, model_.frame1, hidden_.as<void>(), width_, rows, wide_.as<void>(), wide_width_, Epilogue::relu);
  team.barrier();
  product(team, rank, model_.frame2, wide_.as<void>(), wide_width_, rows, logits_.as<void>(), logits_stride_,
          Epilogue::plain);
  team.barrier();
}

void Forward::judge(Team& team, int rank, const void* hidden, std::int64_t rows) {
  product(team, rank, model_.outcome1, hidden, width_, rows, wide_.as<void>(), wide_width_, Epilogue::relu);
  team.barrier();
  product(team, rank, model_.outcome2, wide_.as<void>(), wide_width_, rows, logits_.as<void>(), logits_stride_,
          Epilogue::plain);
  team.barrier();
}

void Forward::normalise_members(Team& team, int rank, const std::vector<Norm>& norms, std::int64_t rows) {
  const Share share(team, rank, rows);
  const std::int64_t hidden = padded(model_.sizes.q_width);
  for (std::size_t member = 0; member < norms.size(); ++member) {
    const std::int64_t at = static_cast<std::int64_t>(member) * hidden;
    kernels_.normalise[model_.sizes.narrow]({q_.as<float>() + at, q_width_,
                                             q_narrow_.as<char>() + at * model_.sizes.element(), q_width_,
                                             norms[member].gain, norms[member].bias, norms[member].width, share.first,
                                             share.last, true});
  }
  team.barrier();
}

void Forward::value(Team& team, int rank, const void* hidden, std::int64_t rows, float* q, float* spread) {
  const Sizes& sizes = model_.sizes;
  const std::int64_t inner = padded(sizes.q_width), out = q_out_width_ / sizes.members;
  product(team, rank, model_.q1, hidden, width_, rows, q_.as<void>(), q_width_, Epilogue::plain);
  team.barrier();
  normalise_members(team, rank, model_.q_norm1, rows);
  for (std::int64_t member = 0; member < sizes.members; ++member)
    product(team, rank, model_.q2[static_cast<std::size_t>(member)],
            q_narrow_.as<char>() + member * inner * sizes.element(), q_width_, rows, q_.as<float>() + member * inner,
            q_width_, Epilogue::plain);
  team.barrier();
  normalise_members(team, rank, model_.q_norm2, rows);
  for (std::int64_t member = 0; member < sizes.members; ++member)
    product(team, rank, model_.q3[static_cast<std::size_t>(member)],
            q_narrow_.as<char>() + member * inner * sizes.element(), q_width_, rows, q_out_.as<float>() + member * out,
            q_out_width_, Epilogue::plain);
  team.barrier();
  const Share share(team, rank, rows);
  std::vector<double> expected(static_cast<std::size_t>(sizes.members * sizes.actions));
  for (std::int64_t row = share.first; row < share.last; ++row) {
    for (std::int64_t member = 0; member < sizes.members; ++member)
      kernels_.expect(q_out_.as<float>() + row * q_out_width_ + member * out, model_.atoms, sizes.actions, sizes.atoms,
                      expected.data() + member * sizes.actions);
    summarise(expected, sizes.members, q + row * sizes.actions, spread + row * sizes.actions);
  }
  team.barrier();
}

}  // namespace jowa::engine
