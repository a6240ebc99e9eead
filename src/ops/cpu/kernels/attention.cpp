// Attention in tiles of 64 queries by 64 keys, f32 inside (Dao et al. 2022; the recurrence of Milakov & Gimelshein 2018 for
// the softmax). Tiles that a query tile cannot see are never touched.
#include "ops/cpu/kernels/local.h"
#include "ops/cpu/kernels/simd.h"
#include "ops/cpu/kernels/tile_product.h"

namespace temper::ops::cpu::TEMPER_KERNEL_NS {
namespace {

constexpr Index kTile = kAttentionTile;

/// Keys [begin, end) of the span that some query sees.
struct KeyRange {
  Index begin, end;
};

KeyRange visible(const AttentionTask& t, Index query) {
  const Index end = t.keys - t.queries + query + 1;
  return {t.window > 0 && end > t.window ? end - t.window : 0, end};
}

Index least(Index a, Index b) { return a < b ? a : b; }
Index clamp_to_tile(Index key, Index tile) { return key < tile * kTile ? 0 : least(key - tile * kTile, kTile); }

void fill(float* x, Index n, float value) {
  for (Index i = 0; i < n; i += kLanes) store(x + i, Vec(value));
}

/// True if every query of the tile sees every key of the key tile.
bool fully_visible(const AttentionTask& t, Index query_tile, Index key_tile) {
  const Index last = query_tile * kTile + kTile - 1;
  return last < t.queries && visible(t, query_tile * kTile).end >= (key_tile + 1) * kTile &&
         visible(t, last).begin <= key_tile * kTile;
}

/// Writes `value` where query `row` of the tile does not see the key.
void mask_row(const AttentionTask& t, Index query_tile, Index key_tile, Index row, float* scores, float value) {
  const KeyRange range = visible(t, query_tile * kTile + row);
  for (Index j = 0; j < clamp_to_tile(range.begin, key_tile); ++j) scores[j] = value;
  for (Index j = clamp_to_tile(range.end, key_tile); j < kTile; ++j) scores[j] = value;
}

/// The pairs of a query tile and a key tile, as products need them.
struct TilePair {
  Index queries, keys, shift;

  TilePair(const AttentionTask& t, Index query_tile, Index key_tile)
      : queries(least(t.queries - query_tile * kTile, kTile)),
        keys(least(t.keys - key_tile * kTile, kTile)),
        shift(t.keys - t.queries + query_tile * kTile - key_tile * kTile) {}

  Limits scores(Index depth) const { return {Limits::Edge::Columns, queries, depth, shift}; }
  Limits over_keys() const { return {Limits::Edge::DepthEnd, queries, keys, shift}; }
  Limits over_queries() const { return {Limits::Edge::DepthBegin, keys, queries, shift}; }
};

/// One row's step of the running softmax: scores become probabilities relative to the row's largest score so far, which with
/// their sum is kept; the output gathered so far is scaled to match.
void softmax_step(float* scores, float& largest, float& total, float* out, Index dim) {
  Vec top(largest);
  for (Index j = 0; j < kTile; j += kLanes) top = max(load(scores + j), top);
  const float now = maximum(top);
  if (now == -__builtin_inff()) return fill(scores, kTile, 0.0f);  // nothing seen yet
  const Vec shift(now);
  Vec sums(0.0f);
  for (Index j = 0; j < kTile; j += kLanes) {
    const Vec p = exp(load(scores + j) - shift);
    store(scores + j, p);
    sums = sums + p;
  }
  if (now != largest) {
    const Vec keep = exp(Vec(largest) - shift);
    for (Index c = 0; c < dim; c += kLanes) store(out + c, load(out + c) * keep);
    float factor[kLanes];
    store(factor, keep);
    total *= factor[0];
    largest = now;
  }
  total += sum(sums);
}

/// Memory of one backward task, carved from its scratch.
struct GradScratch {
  float *q, *dout, *dq, *lse, *delta;  // all queries
  float *p, *ds, *dk, *dv;             // one tile
};

GradScratch carve(const AttentionGradTask& task) {
  const AttentionTask& t = task.forward;
  const Index packed = attention_packed_size(t.queries, t.head_dim), rows = attention_tiles(t.queries) * kTile;
  GradScratch s;
  s.q = task.scratch;
  s.dout = s.q + packed;
  s.dq = s.dout + packed;
  s.lse = s.dq + packed;
  s.delta = s.lse + rows;
  s.p = s.delta + rows;
  s.ds = s.p + kTile * kTile;
  s.dk = s.ds + kTile * kTile;
  s.dv = s.dk + kTile * attention_padded_dim(t.head_dim);
  return s;
}

/// delta[i] = Σ out · dout, the term that the softmax's normalisation subtracts.
template <typename T>
void prepare(const AttentionGradTask& task, const GradScratch& s) {
  const AttentionTask& t = task.forward;
  attention_pack_rows(t.q, t.queries, t.head_dim, s.q);
  attention_pack_rows(task.dout, t.queries, t.head_dim, s.dout);
  fill(s.dq, attention_packed_size(t.queries, t.head_dim), 0.0f);
  fill(s.p, 2 * kTile * kTile, 0.0f);  // p and ds: products leave out what the mask hides, which must not be a NaN
  for (Index i = 0; i < t.queries; ++i) {
    const T *out = row_of<T>(t.out, i), *dout = row_of<T>(task.dout, i);
    Vec products(0.0f);
    for_columns(t.head_dim,
                [&](Index c, auto get, auto) { products = multiply_add(get(out + c), get(dout + c), products); });
    s.delta[i] = sum(products);
    s.lse[i] = t.lse[i * t.lse_stride];
  }
}

/// p and ds of one pair of tiles, from scores in p and dout · vᵀ in ds.
void probabilities(const AttentionTask& t, const GradScratch& s, Index query_tile, Index key_tile) {
  const Vec scale(t.scale);
  const bool masked = !fully_visible(t, query_tile, key_tile);
  for (Index row = 0; row < TilePair(t, query_tile, key_tile).queries; ++row) {
    const Vec lse(s.lse[query_tile * kTile + row]), delta(s.delta[query_tile * kTile + row]);
    float *p = s.p + row * kTile, *ds = s.ds + row * kTile;
    for (Index j = 0; j < kTile; j += kLanes) store(p + j, exp(load(p + j) * scale - lse));
    if (masked) mask_row(t, query_tile, key_tile, row, p, 0.0f);
    for (Index j = 0; j < kTile; j += kLanes) store(ds + j, load(p + j) * (load(ds + j) - delta) * scale);
  }
}

}  // namespace

void attention_pack_rows(Rows x, Index rows, Index head_dim, float* out) {
  const Index dim = attention_padded_dim(head_dim), total = attention_tiles(rows) * kTile;
  with_activation(x.type, [&](auto* tag) {
    for (Index i = 0; i < rows; ++i) {
      const auto* row = row_of<TEMPER_TYPE(tag)>(x, i);
      for_columns(head_dim, [&](Index c, auto get, auto) { store(out + i * dim + c, get(row + c)); });
    }
  });
  fill(out + rows * dim, (total - rows) * dim, 0.0f);
}

void attention_pack_columns(Rows x, Index rows, Index head_dim, float* out) {
  const Index dim = attention_padded_dim(head_dim), total = attention_tiles(rows) * kTile;
  with_activation(x.type, [&](auto* tag) {
    for (Index first = 0; first < total; first += kLanes) {  // sixteen rows become sixteen lanes
      float* tile = out + first / kTile * kTile * dim + first % kTile;
      for_columns(head_dim, [&](Index c, auto get, auto) {
        float lanes[kLanes][kLanes];
        for (Index i = 0; i < kLanes; ++i)
          store(lanes[i], first + i < rows ? get(row_of<TEMPER_TYPE(tag)>(x, first + i) + c) : Vec(0.0f));
        for (Index j = 0; j < kLanes; ++j)
          for (Index i = 0; i < kLanes; ++i) tile[(c + j) * kTile + i] = lanes[i][j];
      });
    }
  });
}

void attention_tile(const AttentionTask& t, const AttentionPacked& packed, Index query_tile, float* scratch) {
  const Index dim = attention_padded_dim(t.head_dim), first = query_tile * kTile, count = least(t.queries - first, kTile);
  float *q = scratch, *out = q + kTile * dim, *scores = out + kTile * dim;
  Rows queries = t.q;
  const KeyRange range{visible(t, first).begin, visible(t, first + count - 1).end};
  float largest[kTile], total[kTile];
  fill(largest, kTile, -__builtin_inff());
  fill(total, kTile, 0.0f);
  fill(out, kTile * dim, 0.0f);
  with_activation(t.q.type, [&](auto* tag) { queries.data = row_of<TEMPER_TYPE(tag)>(t.q, first); });
  attention_pack_rows(queries, count, t.head_dim, q);
  scale(q, kTile * dim, t.scale);
  for (Index key_tile = range.begin / kTile; key_tile * kTile < range.end; ++key_tile) {
    const TilePair pair(t, query_tile, key_tile);
    tile_product({q, dim, 1}, packed.k_columns + key_tile * kTile * dim, scores, kTile, pair.scores(t.head_dim), false);
    const bool masked = !fully_visible(t, query_tile, key_tile);
    for (Index row = 0; row < count; ++row) {
      if (masked) mask_row(t, query_tile, key_tile, row, scores + row * kTile, -__builtin_inff());
      softmax_step(scores + row * kTile, largest[row], total[row], out + row * dim, dim);
    }
    tile_product({scores, kTile, 1}, packed.v_rows + key_tile * kTile * dim, out, dim, pair.over_keys(), true);
  }
  for (Index row = 0; row < count; ++row) {
    const Vec inverse(1.0f / total[row]);
    with_activation(t.out.type, [&](auto* tag) {
      auto* to = row_of<TEMPER_TYPE(tag)>(t.out, first + row);
      for_columns(t.head_dim, [&](Index c, auto, auto put) { put(to + c, load(out + row * dim + c) * inverse); });
    });
    if (t.lse) t.lse[(first + row) * t.lse_stride] = largest[row] + __builtin_logf(total[row]);
  }
}

void attention_backward(const AttentionGradTask& task) {
  const AttentionTask& t = task.forward;
  const Index dim = attention_padded_dim(t.head_dim);
  const GradScratch s = carve(task);
  with_activation(t.q.type, [&](auto* tag) { prepare<TEMPER_TYPE(tag)>(task, s); });
  for (Index key_tile = 0; key_tile < attention_tiles(t.keys); ++key_tile) {
    const Index keys = key_tile * kTile;
    fill(s.dk, 2 * kTile * dim, 0.0f);  // dk and dv lie one after the other
    for (Index query_tile = 0; query_tile < attention_tiles(t.queries); ++query_tile) {
      const Index first = query_tile * kTile, last = least(first + kTile, t.queries) - 1;
      if (visible(t, last).end <= keys || visible(t, first).begin >= keys + kTile) continue;
      const float *q = s.q + first * dim, *dout = s.dout + first * dim;
      const TilePair pair(t, query_tile, key_tile);
      tile_product({q, dim, 1}, task.packed.k_columns + keys * dim, s.p, kTile, pair.scores(t.head_dim), false);
      tile_product({dout, dim, 1}, task.packed.v_columns + keys * dim, s.ds, kTile, pair.scores(t.head_dim), false);
      probabilities(t, s, query_tile, key_tile);
      tile_product({s.p, 1, kTile}, dout, s.dv, dim, pair.over_queries(), true);
      tile_product({s.ds, 1, kTile}, q, s.dk, dim, pair.over_queries(), true);
      tile_product({s.ds, kTile, 1}, task.packed.k_rows + keys * dim, s.dq + first * dim, dim, pair.over_keys(), true);
    }
    for (Index j = 0; j < least(kTile, t.keys - keys); ++j)
      for_columns(t.head_dim, [&](Index c, auto, auto put) {
        put(task.dk + (keys + j) * t.head_dim + c, load(s.dk + j * dim + c));
        put(task.dv + (keys + j) * t.head_dim + c, load(s.dv + j * dim + c));
      });
  }
  convert({s.dq, dim, Elem::F32}, task.dq, t.queries, t.head_dim);
}

}  // namespace temper::ops::cpu::TEMPER_KERNEL_NS
