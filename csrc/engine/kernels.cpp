// The table of one instruction set: compiled several times, with other flags and another JOWA_ISA.

#include "attention.h"
#include "kernels.h"
#include "products.h"
#include "vectors.h"

namespace jowa::engine::JOWA_ISA {
namespace {

template <typename Element>
void normalise(const NormCall& call) {
  const std::int64_t whole = call.width / kLanes * kLanes, end = (call.width + kPanel - 1) / kPanel * kPanel;
  const Ints rest = splat(static_cast<int>(call.width - whole));
  const Floats zero = {};
  for (std::int64_t row = call.first; row < call.last; ++row) {
    const float* x = call.x + row * call.x_stride;
    auto* y = static_cast<Element*>(call.y) + row * call.y_stride;
    Floats total = {};
    for (std::int64_t j = 0; j < end; j += kLanes) total = total + load(x + j);  // padding is zero
    const float mean = sum(total) / static_cast<float>(call.width);
    Floats squares = {};
    for (std::int64_t j = 0; j < whole; j += kLanes) {
      const Floats off = load(x + j) - splat(mean);
      squares = squares + off * off;
    }
    if (whole < call.width) {
      const Floats off = lane_numbers() < rest ? load(x + whole) - splat(mean) : zero;
      squares = squares + off * off;
    }
    const float scale = 1.0F / __builtin_sqrtf(sum(squares) / static_cast<float>(call.width) + 1e-5F);
    for (std::int64_t j = 0; j < end; j += kLanes) {
      const Floats normed = (load(x + j) - splat(mean)) * splat(scale) * load(call.gain + j) + load(call.bias + j);
      store_as(y + j, call.mish ? mish(normed) : normed);
    }
  }
}

std::int32_t first_of_none(const float* x, std::int64_t count) {
  for (std::int64_t i = 0; i < count; ++i)
    if (x[i] == x[i]) return static_cast<std::int32_t>(i);
  return 0;
}

std::int32_t argmax(const float* x, std::int64_t count) {
  Floats best = splat(-__builtin_inff());
  Ints where = splat(0x7FFFFFFF), at = lane_numbers();
  std::int64_t i = 0;
  for (; i + kLanes <= count; i += kLanes, at = at + kLanes) {
    const Floats value = load(x + i);
    const Ints better = value > best;
    best = better ? value : best;
    where = better ? at : where;
  }
  float most = -__builtin_inff();
  std::int32_t found = 0x7FFFFFFF;
  for (int lane = 0; lane < kLanes; ++lane) {
    if (where[lane] == 0x7FFFFFFF) continue;
    if (best[lane] > most || (best[lane] == most && where[lane] < found)) {
      most = best[lane];
      found = where[lane];
    }
  }
  for (; i < count; ++i)
    if (x[i] > most) {
      most = x[i];
      found = static_cast<std::int32_t>(i);
    }
  return found == 0x7FFFFFFF ? first_of_none(x, count) : found;
}

// Whether no number is NaN or infinite.
bool finite(const float* x, std::int64_t count) {
  Floats wrong = splat(0.0F);
  std::int64_t i = 0;
  for (; i + kLanes <= count; i += kLanes) wrong = wrong + (load(x + i) - load(x + i));
  float all = 0.0F;
  for (int lane = 0; lane < kLanes; ++lane) all += wrong[lane];
  for (; i < count; ++i) all += x[i] - x[i];
  return all == 0.0F;
}

// The lowest class whose cumulative probability exceeds u; if rounding leaves the sum below it, the last that can be.
std::int32_t draw(float* logits, std::int64_t count, float temperature, double u) {
  const std::int32_t likeliest = argmax(logits, count);
  const Floats top = splat(logits[likeliest]), heat = splat(temperature), zero = {};
  const std::int64_t whole = count / kLanes * kLanes;
  for (std::int64_t i = 0; i < whole; i += kLanes) {
    const Floats weight = exp((load(logits + i) - top) / heat);
    store(logits + i, weight == weight ? weight : zero);
  }
  for (std::int64_t i = whole; i < count; ++i) {
    const float weight = exp((splat(logits[i]) - top) / heat)[0];
    logits[i] = weight == weight ? weight : 0.0F;
  }
  double total = 0.0;
  for (std::int64_t i = 0; i < count; ++i) total += static_cast<double>(logits[i]);
  if (!(total > 0.0)) return likeliest;
  double cumulative = 0.0;
  std::int32_t last = likeliest;
  for (std::int64_t i = 0; i < count; ++i) {
    if (!(logits[i] > 0.0F)) continue;
    cumulative += static_cast<double>(logits[i]);
    last = static_cast<std::int32_t>(i);
    if (cumulative > u * total) return last;
  }
  return last;
}

void expect(const float* logits, const float* atoms, std::int64_t actions, std::int64_t num_atoms, double* q) {
  for (std::int64_t a = 0; a < actions; ++a) {
    const float* row = logits + a * num_atoms;
    if (num_atoms == 1) {  // the value itself; NaN where it is infinite
      q[a] = static_cast<double>(row[0]) + static_cast<double>(row[0] - row[0]);
      continue;
    }
    const float* end = row + num_atoms;
    float most = row[0];
    for (const float* x = row; x < end; ++x) most = *x > most ? *x : most;
    double total = 0.0, mean = 0.0;
    for (std::int64_t z = 0; z < num_atoms; z += kLanes) {
      const Floats weight = exp(load(row + z) - splat(most));
      const std::int64_t here = num_atoms - z < kLanes ? num_atoms - z : kLanes;
      for (std::int64_t lane = 0; lane < here; ++lane) {
        total += static_cast<double>(weight[lane]);
        mean += static_cast<double>(weight[lane]) * static_cast<double>(atoms[z + lane]);
      }
    }
    q[a] = mean / total;
  }
}

template <bool PairsAtOnce>
std::int64_t saturate(std::int64_t rounds, float* out) {
  constexpr int kChains = kTileRows * kLeastVectors;
  const unsigned short pair[2] = {};
  Floats factor = {}, sums[kChains] = {};
#pragma GCC unroll 24
  for (int i = 0; i < kChains; ++i) sums[i] = splat(static_cast<float>(i));  // equal chains could be made one
  for (std::int64_t round = 0; round < rounds; ++round) {
    asm volatile("" : "+m"(factor));  // who knows what it is now: a product known before would not be made again
#pragma GCC unroll 24
    for (int i = 0; i < kChains; ++i)
      sums[i] = PairsAtOnce ? BFloat16::fma(sums[i], reinterpret_cast<const Ints&>(factor), pair, 0)
                            : sums[i] * factor + factor;
  }
  Floats total = {};
#pragma GCC unroll 24
  for (int i = 0; i < kChains; ++i) total = total + sums[i];
  *out = sum(total);
  return rounds * kChains * kLanes * (PairsAtOnce ? 2 : 1);
}

void function(int which, const float* x, float* y, std::int64_t count) {
  for (std::int64_t i = 0; i < count; ++i) {
    const Floats value = splat(x[i]);
    y[i] = (which == 0   ? exp(value)
            : which == 1 ? erfc_of_positive(value)
            : which == 2 ? gelu(value)
                         : mish(value))[0];
  }
}

}  // namespace

extern const Kernels kTable;
const Kernels kTable = {
    JOWA_ISA_NAME,
    kQueries,
    {&product<Float32>, &product<BFloat16>},
    {&attend<float>, &attend<unsigned short>},
    {&normalise<float>, &normalise<unsigned short>},
    &argmax,
    &draw,
    &finite,
    &expect,
    {&saturate<false>, &saturate<kMultipliesPairs>},
    &function,
};

}  // namespace jowa::engine::JOWA_ISA
