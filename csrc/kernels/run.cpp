#include "run.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <memory>
#include <new>

#include "../engine/kernels.h"
#include "../parallel.h"

namespace jowa::kernels {

#if defined(JOWA_X86)
namespace v4 {
extern const Table kTable;
}
namespace v3 {
extern const Table kTable;
}
#endif
namespace portable {
extern const Table kTable;
}

const Table* find_table(const char* name) {
  const engine::Kernels* chosen = engine::find_kernels(name);
  if (!chosen) return nullptr;
#if defined(JOWA_X86)
  if (!std::strcmp(chosen->name, "v3")) return &v3::kTable;
  if (std::strcmp(chosen->name, "portable")) return &v4::kTable;  // bf16 is v4, and products of bfloat16
#endif
  return &portable::kTable;
}

namespace {

constexpr std::int64_t kBlock = 768;  // latents for which a panel is packed once
constexpr double kUnit = 0x1p-24;     // what float32 rounds by, relative

struct Aligned {
  explicit Aligned(std::size_t floats)
      : data(static_cast<float*>(::operator new(floats * sizeof(float), std::align_val_t{64}))) {}
  ~Aligned() { ::operator delete(data, std::align_val_t{64}); }
  Aligned(const Aligned&) = delete;
  Aligned& operator=(const Aligned&) = delete;
  float* data;
};

// term(0) + ... + term(count - 1), eight sums at once, always in this order.
template <typename Term>
double add_up(std::int64_t count, Term term) {
  double part[8] = {};
  std::int64_t i = 0;
  for (; i + 8 <= count; i += 8)
    for (int k = 0; k < 8; ++k) part[k] += term(i + k);
  for (int k = 0; i + k < count; ++k) part[k] += term(i + k);
  return ((part[0] + part[1]) + (part[2] + part[3])) + ((part[4] + part[5]) + (part[6] + part[7]));
}

double square(const float* x, std::int64_t count) {
  return add_up(count, [x](std::int64_t i) { return static_cast<double>(x[i]) * static_cast<double>(x[i]); });
}

// NaN stays.
double longer(double one, double other) { return other > one || std::isnan(other) ? other : one; }

struct Search {
  const Table& table;
  const float* latents;
  std::int64_t rows;
  const float* codebook;
  std::int64_t codes, width, panels;
  std::int64_t* tokens;
  float* chosen;
  std::vector<float> squares;

  // Of the error of a score, where `longest` is the largest |e|^2, from the usual bound for chains of multiply-adds; what underflows is in it too.
  double rounding(const float* latent, double longest) const {
    const double tiny = static_cast<double>(width) * std::numeric_limits<float>::min();
    const double size = std::sqrt(square(latent, width));
    return kUnit * static_cast<double>(width + 4) * (longest + 2.0 * std::sqrt(longest) * size) + 4.0 * tiny;
  }

  double distance(const float* latent, std::int64_t code) const {
    const float* e = codebook + code * width;
    return add_up(width, [latent, e](std::int64_t i) {
      const double apart = static_cast<double>(latent[i]) - static_cast<double>(e[i]);
      return apart * apart;
    });
  }

  // Writes a latent's result, from its lanes in `parts` searches of a stretch of panels each, or says that it cannot.
  bool settle(std::int64_t row, double longest, const Lanes* const* parts, int count) const;
  std::int64_t first_panel(int part, int count) const { return panels * part / count; }
  void write(std::int64_t row, std::int64_t code) const {
    tokens[row] = code;
    if (chosen) std::copy_n(codebook + code * width, width, chosen + row * width);
  }
};

// The lowest in float64 of the codes that are tried, the first of equal ones; whether another is as near but not equal.
struct Nearest {
  const Search& search;
  const float* latent;
  double lowest = std::numeric_limits<double>::infinity();
  std::int64_t code = -1;
  bool undecided = false;

  void offer(std::int64_t other) {
    const double distance = search.distance(latent, other);
    // What summing in another order may change.
    const double margin = 0x1p-52 * static_cast<double>(search.width + 2) * std::min(distance, lowest);
    if (code >= 0 && std::abs(distance - lowest) <= margin && !equal(other)) undecided = true;
    if (distance < lowest - margin) undecided = false;
    if (distance < lowest || (distance == lowest && other < code)) {
      lowest = distance;
      code = other;
    }
  }
  bool equal(std::int64_t other) const {
    const float *a = search.codebook + code * search.width, *b = search.codebook + other * search.width;
    return std::equal(a, a + search.width, b);
  }
};

bool Search::settle(std::int64_t row, double longest, const Lanes* const* parts, int count) const {
  const float* latent = latents + row * width;
  const double error = rounding(latent, longest);
  if (!(error < std::numeric_limits<float>::max() * kUnit)) return false;
  float best = std::numeric_limits<float>::infinity();
  for (int part = 0; part < count; ++part)
    for (int lane = 0; lane < table.lanes; ++lane) best = std::min(best, parts[part]->best[lane]);
  const double within = static_cast<double>(best) + 2.0 * error;
  int candidates = 0;
  bool several = false;  // in one lane
  std::int64_t only = 0;
  for (int part = 0; part < count; ++part)
    for (int lane = 0; lane < table.lanes; ++lane) {
      if (static_cast<double>(parts[part]->best[lane]) > within) continue;
      ++candidates;
      only = parts[part]->code[lane];
      several |= static_cast<double>(parts[part]->second[lane]) <= within;
    }
  if (candidates == 1 && !several) return write(row, only), true;
  Nearest nearest{*this, latent};
  for (int part = 0; part < count; ++part)
    for (int lane = 0; lane < table.lanes; ++lane) {
      const Lanes& lanes = *parts[part];
      if (static_cast<double>(lanes.best[lane]) > within) continue;
      if (static_cast<double>(lanes.second[lane]) > within) {
        nearest.offer(lanes.code[lane]);
        continue;
      }
      const std::int64_t end = std::min(codes, first_panel(part + 1, count) * kPanel);
      for (std::int64_t code = first_panel(part, count) * kPanel + lane; code < end; code += table.lanes)
        nearest.offer(code);
    }
  if (nearest.undecided) return false;
  return write(row, nearest.code), true;
}

}  // namespace

std::vector<std::int64_t> nearest_codes(const Table& table, const float* latents, std::int64_t rows,
                                        const float* codebook, std::int64_t codes, std::int64_t width,
                                        std::int64_t* tokens, float* chosen, int threads) {
  const std::int64_t panels = (codes + kPanel - 1) / kPanel;
  if (!width) {  // all are equal
    std::fill_n(tokens, rows, 0);
    return {};
  }
  Search search{table, latents, rows, codebook, codes, width, panels, tokens, chosen, {}};
  search.squares.assign(static_cast<std::size_t>(panels * kPanel), std::numeric_limits<float>::infinity());
  std::vector<std::uint8_t> unsettled(static_cast<std::size_t>(rows));
  // Few latents: a stretch of the codes a thread; many: a stretch of the latents.
  const bool by_codes = rows < 2 * kRows * threads;
  const std::int64_t block = std::min(rows, kBlock);
  const auto most = static_cast<int>(std::min<std::int64_t>(threads, by_codes ? panels : (rows + kRows - 1) / kRows));
  const std::unique_ptr<Lanes[]> lanes(new Lanes[static_cast<std::size_t>(block * most)]);
  const Aligned scratch(static_cast<std::size_t>(most * (width + kRows) * kPanel));
  std::vector<double> lengths(static_cast<std::size_t>(most), 0.0);
  std::vector<const Lanes*> places(static_cast<std::size_t>(most) * static_cast<std::size_t>(most));
  run_team(most, [&](Team& team, int rank) {
    const int size = team.size();
    for (std::int64_t code = codes * rank / size; code < codes * (rank + 1) / size; ++code) {
      const double of_code = square(codebook + code * width, width);
      search.squares[static_cast<std::size_t>(code)] = static_cast<float>(of_code);
      lengths[static_cast<std::size_t>(rank)] = longer(lengths[static_cast<std::size_t>(rank)], of_code);
    }
    team.barrier();
    double longest = 0.0;
    for (const double of_rank : lengths) longest = longer(longest, of_rank);
    float* panel = scratch.data + rank * (width + kRows) * kPanel;
    SearchCall call{};
    call.codebook = codebook;
    call.codes = codes;
    call.width = width;
    call.squares = search.squares.data();
    call.panel = panel;
    call.scores = panel + width * kPanel;
    call.lanes = lanes.get() + rank * block;
    call.first = by_codes ? search.first_panel(rank, size) : 0;
    call.last = by_codes ? search.first_panel(rank + 1, size) : panels;
    const int parts = by_codes ? size : 1;
    const std::int64_t from = by_codes ? 0 : rows * rank / size, to = by_codes ? rows : rows * (rank + 1) / size;
    const Lanes** found = places.data() + rank * most;
    for (std::int64_t row = from; row < to; row += block) {
      call.latents = latents + row * width;
      call.rows = std::min(block, to - row);
      table.search(call);
      if (by_codes) team.barrier();
      // A stretch of the latents, whose lanes everybody has filled, or all of one's own.
      const std::int64_t first = by_codes ? call.rows * rank / size : 0;
      const std::int64_t last = by_codes ? call.rows * (rank + 1) / size : call.rows;
      for (std::int64_t i = first; i < last; ++i) {
        for (int part = 0; part < parts; ++part) found[part] = (by_codes ? lanes.get() + part * block : call.lanes) + i;
        unsettled[static_cast<std::size_t>(row + i)] = !search.settle(row + i, longest, found, parts);
      }
      if (by_codes) team.barrier();
    }
  });
  std::vector<std::int64_t> left;
  for (std::int64_t row = 0; row < rows; ++row)
    if (unsettled[static_cast<std::size_t>(row)]) left.push_back(row);
  return left;
}

void critic_losses(const Table& table, CriticCall call, bool backward, int threads) {
  // A step takes some microseconds: fewer than these are not worth waking a thread.
  const std::int64_t grain = std::max<std::int64_t>(1, 8192 / (call.members * call.actions * call.atoms));
  const auto size = static_cast<std::size_t>((critic_scratch(call) + 15) / 16 * 16);
  const auto most = static_cast<int>(std::clamp<std::int64_t>(call.steps / grain, 1, threads));
  const Aligned scratch(size * static_cast<std::size_t>(most));
  run_team(most, [&](Team& team, int rank) {
    CriticCall own = call;
    own.first = call.steps * rank / team.size();
    own.last = call.steps * (rank + 1) / team.size();
    own.scratch = scratch.data + size * static_cast<std::size_t>(rank);
    (backward ? table.critic_backward : table.critic_forward)(own);
  });
}

}  // namespace jowa::kernels
