// Random searches over both trees with their invariants checked after every step: fuzz_trees [steps [seed]].
//
// No Python, so that sanitizers see all of it (make fuzz, make fuzz-short). Ends with status 1 at the first invariant
// that does not hold; the seed it prints repeats the run.

#include <cstdio>
#include <cstdlib>
#include <limits>
#include <random>
#include <set>
#include <vector>

#ifdef __SANITIZE_ADDRESS__
#include <sanitizer/asan_interface.h>
#endif

#include "../parallel.h"
#include "../trees.h"

namespace {

using jowa::BeamTree;
using jowa::MCTSTree;

std::mt19937_64 generator;

std::int64_t below(std::int64_t count) { return static_cast<std::int64_t>(generator() % static_cast<std::uint64_t>(count)); }
std::int64_t between(std::int64_t least, std::int64_t most) { return least + below(most - least + 1); }
bool chance(double p) { return static_cast<double>(generator() >> 11) * 0x1p-53 < p; }

// Few distinct numbers, so that ties are common; sometimes one that no search may take.
float number(double faulty) {
  constexpr float kFaulty[] = {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity(),
                               -std::numeric_limits<float>::infinity()};
  if (chance(faulty)) return kFaulty[below(3)];
  return static_cast<float>(below(9) - 4) * 0.25F;
}

// The seed of this run, for the message; and the step in which it went wrong.
std::uint64_t seed = 0;
std::int64_t step = 0;

void require(bool held, const char* what) {
  if (held) return;
  std::fprintf(stderr, "step %lld of seed %llu: %s\n", static_cast<long long>(step),
               static_cast<unsigned long long>(seed), what);
  std::exit(1);
}

std::vector<float> floats(std::int64_t count, double faulty) {
  std::vector<float> numbers(static_cast<std::size_t>(count));
  for (float& x : numbers) x = number(faulty);
  return numbers;
}

std::vector<std::uint8_t> bools(std::int64_t count, double p) {
  std::vector<std::uint8_t> flags(static_cast<std::size_t>(count));
  for (std::uint8_t& x : flags) x = chance(p);
  return flags;
}

std::vector<std::int64_t> integers(std::int64_t count, std::int64_t least, std::int64_t most) {
  std::vector<std::int64_t> numbers(static_cast<std::size_t>(count));
  for (std::int64_t& x : numbers) x = between(least, most);
  return numbers;
}

// Memory for a tree's state; what lies between its arrays is forbidden under the address sanitizer.
template <typename Tree>
std::vector<std::uint64_t> attach(Tree& tree) {
  std::vector<std::uint64_t> state(tree.state_bytes() / 8 + 1);
  auto* base = reinterpret_cast<std::byte*>(state.data());
  tree.attach(base);
#ifdef __SANITIZE_ADDRESS__
  for (const jowa::Field& field : tree.fields())
    __asan_poison_memory_region(base + field.offset + field.bytes, jowa::kGuardBytes);
#endif
  return state;
}

// Every valid row's pages are its root's own, each once in the row, its own page shared with no other row.
void check_tables(const std::vector<std::uint8_t>& valid, const std::vector<std::int32_t>& table,
                  const std::vector<std::int32_t>& depths, std::int64_t roots, std::int64_t rows, std::int64_t columns,
                  std::int64_t pages) {
  for (std::int64_t root = 0; root < roots; ++root) {
    std::set<std::int32_t> owned, ancestors;
    for (std::int64_t row = 0; row < rows; ++row) {
      const std::int64_t at = root * rows + row, depth = depths[at];
      require(valid[at] ? depth >= 0 && depth < columns : depth == -1, "a row's depth");
      std::set<std::int32_t> mine;
      for (std::int64_t i = 0; i < columns; ++i) {
        const std::int32_t page = table[at * columns + i];
        require(i <= depth ? page >= root * pages && page < (root + 1) * pages : page == -1, "a page of another root");
        if (i <= depth) require(mine.insert(page).second, "a page twice in a row");
        if (i < depth) ancestors.insert(page);
      }
      if (valid[at]) require(owned.insert(table[at * columns + depth]).second, "a page of two rows");
    }
    for (const std::int32_t page : owned) require(!ancestors.count(page), "an ancestor's page given away");
  }
}

void check_beam(const BeamTree& tree) {
  const jowa::BeamView& v = tree.view();
  for (std::int64_t root = 0; root < v.roots; ++root) {
    require(v.count[root] >= 0 && v.count[root] <= v.nodes, "more nodes than there is room for");
    require(v.kept_count[root] >= 0 && v.kept_count[root] <= v.widths[root], "a beam wider than its root");
    for (std::int64_t slot = 0; slot < v.kept_count[root]; ++slot) {
      const std::int32_t node = v.kept[root * v.width + slot];
      require(node >= 0 && node < v.count[root], "a kept node that does not exist");
      require(v.rank[root * v.nodes + node] == slot, "a rank that is not the slot");
      if (slot) {
        const double before = v.score[root * v.nodes + v.kept[root * v.width + slot - 1]];
        require(!(before < v.score[root * v.nodes + node]), "a beam out of order");
      }
    }
  }
}

void search_beam() {
  const std::int64_t roots = between(1, 6), actions = between(1, 7);
  const auto widths = integers(roots, 1, 5), horizons = integers(roots, 0, 4);
  BeamTree tree(widths, horizons, actions, chance(0.2) ? 0.0 : 0.99, chance(0.5) ? 1.0 : 0.3, chance(0.7), false);
  const auto state = attach(tree);
  const jowa::BeamView& v = tree.view();
  for (std::int64_t root = 0; root < roots; ++root) {
    v.widths[root] = static_cast<std::int32_t>(widths[root]);
    v.horizons[root] = static_cast<std::int32_t>(horizons[root]);
  }
  const double faulty = chance(0.7) ? 0.0 : 0.01;
  for (std::int64_t again = between(1, 3); again; --again) {
    tree.reset(0);
    const auto legal = bools(roots * actions, 0.8);
    while (!tree.finished()) {
      ++step;
      const std::int64_t children = tree.children(), total = roots * children;
      std::vector<std::int64_t> parents(total), taken(total), slots(roots * v.width), best(roots);
      std::vector<std::uint8_t> valid(total), kept[3];
      std::vector<std::int32_t> table(total * v.table_slots()), depths(total);
      for (auto& flags : kept) flags.resize(roots * v.width);
      const auto q = floats(roots * v.slots(tree.level()) * actions, faulty);
      tree.expand(q.data(), legal.data(), {parents.data(), taken.data(), valid.data(), table.data(), depths.data()}, 0);
      check_tables(valid, table, depths, roots, children, v.table_slots(), v.pages);
      for (std::int64_t i = 0; i < total; ++i)
        require(!valid[i] || legal[i / children * actions + taken[i]], "an illegal action");
      const auto rewards = floats(total, faulty), values = floats(total, faulty);
      const auto ends = bools(total, 0.2);
      tree.keep(rewards.data(), ends.data(), values.data(),
                {slots.data(), kept[0].data(), kept[1].data(), kept[2].data()}, 0);
      check_beam(tree);
      std::vector<float> scores(roots);
      tree.best(best.data(), scores.data(), 0);
      for (std::int64_t root = 0; root < roots; ++root)
        require(v.failed[root] || legal[root * actions + best[root]], "an illegal decision");
    }
  }
}

void check_mcts(const MCTSTree& tree) {
  for (std::int64_t root = 0; root < tree.view().roots; ++root) {
    const jowa::MCTSView v = tree.view().at(root);
    if (*v.count == 0) continue;
    require(*v.count <= v.nodes && *v.leaves < *v.count, "more nodes than there is room for");
    std::set<std::int32_t> pages(v.trail, v.trail + *v.trail_count);
    require(static_cast<std::int32_t>(pages.size()) == *v.trail_count, "a page twice on the way to the root");
    std::vector<std::int32_t> visits(*v.count);
    for (std::int32_t node = *v.count - 1; node >= 0; --node) {
      require(v.pending[node] >= 0 && (*v.leaves || v.pending[node] == 0), "pending simulations between rounds");
      require((v.visits[node] == 0) == (node >= *v.count - *v.leaves), "a node without visits");
      if (node == 0) break;
      const std::int32_t parent = v.parent[node];
      require(parent >= 0 && parent < node, "a parent after its child");
      require(v.children[parent * v.actions + v.action[node]] == node, "a parent that does not know its child");
      require(v.depth[node] == v.depth[parent] + 1 && v.depth[node] <= *v.max_depth, "a depth");
      require(v.legal[v.action[node]], "an illegal action");
      visits[parent] += v.visits[node];
      if (v.page[node] >= 0) require(pages.insert(v.page[node]).second, "a page of two nodes");
    }
    std::int32_t used = 0;
    for (std::int64_t page = 0; page < v.pages; ++page) {
      used += v.page_used[page];
      require(v.page_used[page] == static_cast<std::uint8_t>(pages.count(page)), "a page lost or taken twice");
    }
    require(used == *v.pages_used, "the count of pages");
    for (std::int32_t node = 0; node < *v.count; ++node)
      if (v.visits[node] && !is_terminal(v, node))
        require(v.visits[node] == visits[node] + 1, "visits that are not the children's and one");
  }
}

// One round of `leaves` at most: select, check, back up.
void run_round(MCTSTree& tree, std::int64_t columns, double faulty) {
  const jowa::MCTSView& v = tree.view();
  const std::int64_t rows = between(1, 6), total = v.roots * rows;
  std::vector<std::int32_t> nodes(total), parents(total), table(total * columns), depths(total);
  std::vector<std::int64_t> actions(total);
  std::vector<std::uint8_t> valid(total);
  tree.select(integers(v.roots, 0, rows).data(), rows, columns,
              {nodes.data(), parents.data(), actions.data(), valid.data(), table.data(), depths.data()}, 0);
  check_tables(valid, table, depths, v.roots, rows, columns, v.pages);
  check_mcts(tree);
  tree.backup(floats(total, faulty).data(), bools(total, 0.2).data(), floats(total * v.actions, faulty).data(), 0);
  check_mcts(tree);
}

void search_mcts() {
  const std::int64_t roots = between(1, 6), actions = between(1, 7), deepest = between(1, 6);
  const jowa::MCTSSettings settings{0.99, 1.0, 1.25, 19652.0, chance(0.7), chance(0.5), 50.0, 1.0};
  MCTSTree tree(roots, between(1, 24), actions, settings, false);
  const auto state = attach(tree);
  tree.reset(0);
  const double faulty = chance(0.7) ? 0.0 : 0.005;
  for (std::int64_t again = between(1, 3); again; --again) {
    const auto active = bools(roots, 0.8), legal = bools(roots * actions, 0.8);
    const auto q = floats(roots * actions, faulty), noise = floats(roots * actions, faulty);
    const auto depths = integers(roots, 0, deepest), budget = integers(roots, 0, 30);
    jowa::StartMCTS call{};
    call.active = active.data(), call.legal = legal.data(), call.q = q.data(), call.max_depth = depths.data();
    call.gumbel = chance(0.5) ? noise.data() : nullptr;
    call.budget = settings.gumbel || chance(0.5) ? budget.data() : nullptr;
    tree.start(call, 0);
    check_mcts(tree);
    for (std::int64_t rounds = between(0, 12); rounds; --rounds) {
      ++step;
      run_round(tree, deepest, faulty);
      std::vector<std::int64_t> best(roots);
      std::vector<float> values(roots);
      tree.best(best.data(), values.data(), 0);
      for (std::int64_t root = 0; root < roots; ++root)
        require(best[root] < 0 || tree.view().legal[root * actions + best[root]], "an illegal decision");
      if (!chance(0.2)) continue;
      std::vector<std::uint8_t> kept(roots);
      tree.advance(bools(roots, 0.7).data(), best.data(), nullptr, kept.data(), 0);
      check_mcts(tree);
    }
  }
}

}  // namespace

int main(int count, char** arguments) {
  const std::int64_t steps = count > 1 ? std::atoll(arguments[1]) : 1'000'000;
  seed = count > 2 ? std::strtoull(arguments[2], nullptr, 10) : std::random_device{}();
  generator.seed(seed);
  jowa::set_num_threads(2);
  while (step < steps) {
    // Threads are started anew whenever their number changes: seldom enough not to spend the time on that.
    if (chance(0.01)) jowa::set_num_threads(static_cast<int>(between(1, 4)));
    if (chance(0.5)) search_beam();
    else search_mcts();
  }
  std::printf("%lld steps held, seed %llu\n", static_cast<long long>(step), static_cast<unsigned long long>(seed));
}
