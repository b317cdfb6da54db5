// Attention of one head over a root's context and pages. All scores of a query are kept, then normalised, then its
// values are summed key by key in order: nothing depends on which queries are taken together.
#pragma once

#include "kernels.h"
#include "vectors.h"

namespace jowa::engine::JOWA_ISA {

#if defined(__AVX512F__)
constexpr int kQueries = 8;
#else
constexpr int kQueries = 4;
#endif

// The queries that are taken together: of one root, consecutive in the call's segments.
struct Tile {
  int size = 0;
  const float* query[kQueries];
  const Segment* segment[kQueries];
  std::int32_t place[kQueries];    // of the token in its step or context
  std::int64_t out_row[kQueries];
};

inline std::int64_t blocks_of(std::int64_t keys) { return (keys + kBlock - 1) / kBlock; }

constexpr int kBlockVectors = kBlock / kLanes;

// Scores of `Queries` queries against `Vectors` vectors of keys, the first of which is number `first`.
template <int Queries, int Vectors>
JOWA_INLINE void score_part(const AttentionCall& call, const float* const* query, const float* keys,
                            std::int64_t first, float* const* scores) {
  Floats sums[Queries][Vectors] = {};
  const float* from[Vectors] = {};
#pragma GCC unroll 4
  for (int v = 0; v < Vectors; ++v)
    from[v] = keys + (first + v) / kBlockVectors * call.width * kBlock + (first + v) % kBlockVectors * kLanes;
  for (int j = 0; j < call.dims; ++j) {
    Floats taken[Vectors];
#pragma GCC unroll 4
    for (int v = 0; v < Vectors; ++v) taken[v] = load(from[v] + j * kBlock);
#pragma GCC unroll 8
    for (int q = 0; q < Queries; ++q)
#pragma GCC unroll 4
      for (int v = 0; v < Vectors; ++v) sums[q][v] = sums[q][v] + taken[v] * splat(query[q][j]);
  }
#pragma GCC unroll 8
  for (int q = 0; q < Queries; ++q)
#pragma GCC unroll 4
    for (int v = 0; v < Vectors; ++v) store(scores[q] + (first + v) * kLanes, sums[q][v] * splat(call.scale));
}

// Scores of `Queries` queries against whole blocks of keys.
template <int Queries>
__attribute__((noinline)) void score(const AttentionCall& call, const float* const* query, const float* keys,
                                     std::int64_t blocks, float* const* scores) {
  constexpr int kMany = Queries * 4 <= kQueries ? 4 : 2;  // vectors at a time, as registers allow
  const std::int64_t vectors = blocks * kBlockVectors;
  std::int64_t v = 0;
  for (; v + kMany <= vectors; v += kMany) score_part<Queries, kMany>(call, query, keys, v, scores);
  if constexpr (kMany > 2) {
    if (v + 3 == vectors) return score_part<Queries, 3>(call, query, keys, v, scores);
    if (v + 2 == vectors) return score_part<Queries, 2>(call, query, keys, v, scores);
  }
  if (v < vectors) score_part<Queries, 1>(call, query, keys, v, scores);
}

template <int Queries, int Vectors>
JOWA_INLINE void mix_part(const float* const* weights, const float* values, std::int64_t width, std::int64_t first,
                          std::int64_t last, float* const* sums, std::int64_t from) {
  Floats total[Queries][Vectors];
#pragma GCC unroll 8
  for (int q = 0; q < Queries; ++q)
#pragma GCC unroll 4
    for (int v = 0; v < Vectors; ++v) total[q][v] = load(sums[q] + from + v * kLanes);
  for (std::int64_t key = first; key < last; ++key) {
    Floats taken[Vectors];
#pragma GCC unroll 4
    for (int v = 0; v < Vectors; ++v) taken[v] = load(values + key * width + from + v * kLanes);
#pragma GCC unroll 8
    for (int q = 0; q < Queries; ++q)
#pragma GCC unroll 4
      for (int v = 0; v < Vectors; ++v) total[q][v] = total[q][v] + taken[v] * splat(weights[q][key]);
  }
#pragma GCC unroll 8
  for (int q = 0; q < Queries; ++q)
#pragma GCC unroll 4
    for (int v = 0; v < Vectors; ++v) store(sums[q] + from + v * kLanes, total[q][v]);
}

// Adds the values of keys [first, last), weighted by `weights`, to the sums of `Queries` queries.
template <int Queries>
__attribute__((noinline)) void mix(const float* const* weights, const float* values, std::int64_t width,
                                   std::int64_t first, std::int64_t last, float* const* sums) {
  constexpr int kMany = Queries <= kQueries / 2 ? 4 : 2;  // vectors at a time, as registers allow
  std::int64_t from = 0;
  for (; from + kMany * kLanes <= width; from += kMany * kLanes)
    mix_part<Queries, kMany>(weights, values, width, first, last, sums, from);
  for (; from < width; from += kLanes) mix_part<Queries, 1>(weights, values, width, first, last, sums, from);
}

template <int Queries>
void score_of(int count, const AttentionCall& call, const float* const* query, const float* keys, std::int64_t blocks,
              float* const* scores) {
  if constexpr (Queries > 1) {
    if (count < Queries) return score_of<Queries - 1>(count, call, query, keys, blocks, scores);
  }
  score<Queries>(call, query, keys, blocks, scores);
}

template <int Queries>
void mix_of(int count, const float* const* weights, const float* values, std::int64_t width, std::int64_t first,
            std::int64_t last, float* const* sums) {
  if constexpr (Queries > 1) {
    if (count < Queries) return mix_of<Queries - 1>(count, weights, values, width, first, last, sums);
  }
  mix<Queries>(weights, values, width, first, last, sums);
}

inline void hide(float* scores, std::int64_t first, std::int64_t last) {
  for (std::int64_t i = first; i < last; ++i) scores[i] = -__builtin_inff();
}

// Turns scores into weights that are not divided by their sum yet; returns that sum.
inline float soften(float* scores, std::int64_t count) {
  Floats most = load(scores);
  for (std::int64_t i = kLanes; i < count; i += kLanes) most = larger(most, load(scores + i));
  const Floats top = splat(largest(most));
  Floats total = {};
  for (std::int64_t i = 0; i < count; i += kLanes) {
    const Floats weight = exp(load(scores + i) - top);
    store(scores + i, weight);
    total = total + weight;
  }
  return sum(total);
}

inline const float* head_of(const Store& store, std::int64_t index, std::int64_t head) {
  return store.data + index * store.stride + head * store.head;
}

// Walks the keys that a tile of queries sees, in order: visit(first query, queries, keys, values, place of the scores,
// keys that the i-th of these queries sees).
template <typename Visit>
JOWA_INLINE void walk(const AttentionCall& call, const Tile& tile, std::int64_t* places, Visit visit) {
  std::int64_t seen[kQueries] = {};
  for (int q = 0; q < tile.size; ++q) {
    seen[q] = tile.segment[q]->depth < 0 ? tile.place[q] + 1 : call.context_length;
    places[q] = 0;
  }
  const float* context = head_of(call.contexts, tile.segment[0]->root, call.head_index);
  visit(0, tile.size, context, context + call.contexts.values, seen);
  for (int first = 0, end; first < tile.size; first = end) {
    const Segment* segment = tile.segment[first];
    for (end = first + 1; end < tile.size && tile.segment[end] == segment;) ++end;
    for (std::int32_t level = 0; level <= segment->depth; ++level) {
      for (int q = first; q < end; ++q) seen[q] = level < segment->depth ? kStep : tile.place[q] + 1;
      const float* page = head_of(call.pages, segment->pages[level], call.head_index);
      visit(first, end - first, page, page + call.pages.values, seen + first);
    }
  }
}

template <typename Element>
void attend_tile(const AttentionCall& call, const Tile& tile) {
  float* scores[kQueries] = {};
  float* sums[kQueries] = {};
  std::int64_t places[kQueries] = {};
  for (int q = 0; q < tile.size; ++q) {
    scores[q] = call.scratch + q * call.max_keys;
    sums[q] = call.scratch + kQueries * call.max_keys + q * call.width;
  }
  walk(call, tile, places, [&](int first, int count, const float* keys, const float*, const std::int64_t* seen) {
    std::int64_t most = seen[0];
    for (int q = 1; q < count; ++q) most = seen[q] > most ? seen[q] : most;
    const std::int64_t blocks = blocks_of(most);
    float* at[kQueries] = {};
    for (int q = 0; q < count; ++q) at[q] = scores[first + q] + places[first + q];
    score_of<kQueries>(count, call, tile.query + first, keys, blocks, at);
    for (int q = 0; q < count; ++q) {
      hide(at[q], seen[q], blocks * kBlock);
      places[first + q] += blocks * kBlock;
    }
  });
  float totals[kQueries] = {};
  for (int q = 0; q < tile.size; ++q) {
    totals[q] = soften(scores[q], places[q]);
    for (std::int64_t j = 0; j < call.width; j += kLanes) store(sums[q] + j, Floats{});
  }
  walk(call, tile, places, [&](int first, int count, const float*, const float* values, const std::int64_t* seen) {
    std::int64_t least = seen[0], most = seen[0];
    for (int q = 1; q < count; ++q) {
      least = seen[q] < least ? seen[q] : least;
      most = seen[q] > most ? seen[q] : most;
    }
    const float* at[kQueries] = {};
    for (int q = 0; q < count; ++q) at[q] = scores[first + q] + places[first + q];
    mix_of<kQueries>(count, at, values, call.width, 0, least, sums + first);
    for (int q = 0; q < count; ++q) {  // what only some of them see
      if (seen[q] > least) mix<1>(at + q, values, call.width, least, seen[q], sums + first + q);
      places[first + q] += blocks_of(most) * kBlock;
    }
  });
  for (int q = 0; q < tile.size; ++q) {
    auto* out = static_cast<Element*>(call.out) + tile.out_row[q] * call.out_stride;
    const Floats share = splat(1.0F / totals[q]);
    for (std::int64_t j = 0; j < call.width; j += kLanes) store_as(out + j, load(sums[q] + j) * share);
  }
}

inline void keep_keys(const AttentionCall& call, const Segment& segment) {
  const bool context = segment.depth < 0;
  const Store& where = context ? call.contexts : call.pages;
  const std::int64_t index = context ? segment.root : segment.pages[segment.depth];
  float* base = where.data + index * where.stride + call.head_index * where.head;
  for (std::int32_t i = 0; i < segment.count; ++i) {
    const std::int64_t place = segment.start + i;
    const float* key = call.queries + (segment.row + i) * call.query_stride + call.key_offset;
    const float* value = key + call.key_offset;
    float* column = base + place / kBlock * kBlock * call.width + place % kBlock;
    for (std::int32_t j = 0; j < call.width; ++j) column[static_cast<std::int64_t>(j) * kBlock] = key[j];
    float* row = base + where.values + place * call.width;
    for (std::int32_t j = 0; j < call.width; j += kLanes) store(row + j, load(value + j));
  }
}

template <typename Element>
void attend(const AttentionCall& call) {
  for (std::int64_t s = 0; s < call.num_stored; ++s) keep_keys(call, call.stored[s]);
  Tile tile;
  for (std::int64_t s = 0; s < call.num_asking; ++s) {
    const Segment& segment = call.asking[s];
    for (std::int32_t i = 0; i < segment.count; ++i) {
      tile.query[tile.size] = call.queries + (segment.row + i) * call.query_stride;
      tile.segment[tile.size] = &segment;
      tile.place[tile.size] = segment.start + i;
      tile.out_row[tile.size] = segment.out_row + i;
      if (++tile.size < kQueries) continue;
      attend_tile<Element>(call, tile);
      tile.size = 0;
    }
  }
  if (tile.size) attend_tile<Element>(call, tile);
}

}  // namespace jowa::engine::JOWA_ISA
