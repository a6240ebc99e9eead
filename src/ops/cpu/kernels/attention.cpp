// Attention in tiles of 64 queries by 64 keys (Dao et al. 2022; the recurrence of Milakov & Gimelshein 2018 for the
// softmax). Tiles that a query tile cannot see are never touched. Sums and the softmax are f32; operands of products are
// f32, or bf16 where activations are and the CPU multiplies them: then probabilities and their gradients are rounded to
// bf16.
#include "ops/cpu/kernels/local.h"
#include "ops/cpu/kernels/pack.h"
#include "ops/cpu/kernels/simd.h"
#include "ops/cpu/kernels/tile_product.h"

namespace temper::ops::cpu::TEMPER_KERNEL_NS {
namespace {

constexpr Index kTile = kRowTile;

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
/// their sum is kept; the output gathered so far is scaled to match. The probabilities are left operand's units.
template <typename Unit>
void softmax_step(float* scores, float& largest, float& total, float* out, Index dim) {
  Vec top(largest);
  for (Index j = 0; j < kTile; j += kLanes) top = max(load(scores + j), top);
  const float now = maximum(top);
  if (now == -__builtin_inff()) return fill(scores, kTile, 0.0f);  // nothing seen yet
  const Vec shift(now);
  Vec sums(0.0f);
  for (Index j = 0; j < kTile; j += kLanes) {
    const Vec p = exp(load(scores + j) - shift);
    Unit::put_left(scores, j, p);
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
  float *q, *q_rows, *dout, *dout_rows;  // all queries, as left and as right operand
  float *dq, *lse, *delta;
  float *p, *ds, *ds_left, *dk, *dv;  // one tile
};

template <typename Unit>
GradScratch carve(const AttentionGradTask& task) {
  const AttentionTask& t = task.forward;
  const Index packed = attention_packed_size(t.queries, t.head_dim), rows = row_tiles(t.queries) * kTile;
  constexpr bool kBothForms = Unit::kDepth > 1;  // one f32 operand serves as either
  GradScratch s;
  s.q = task.scratch;
  s.q_rows = s.q + (kBothForms ? packed / Unit::kDepth : 0);
  s.dout = s.q + packed;
  s.dout_rows = s.dout + (kBothForms ? packed / Unit::kDepth : 0);
  s.dq = s.dout + packed;
  s.lse = s.dq + packed;
  s.delta = s.lse + rows;
  s.p = s.delta + rows;
  s.ds = s.p + kTile * kTile;
  s.ds_left = kBothForms ? s.ds + kTile * kTile : s.ds;
  s.dk = s.ds + 2 * kTile * kTile;
  s.dv = s.dk + kTile * padded(t.head_dim);
  return s;
}

/// delta[i] = Σ out · dout, the term that the softmax's normalisation subtracts.
template <typename Unit, typename T>
void prepare(const AttentionGradTask& task, const GradScratch& s) {
  const AttentionTask& t = task.forward;
  pack_left<Unit, T>(t.q, t.queries, t.head_dim, s.q);
  pack_left<Unit, T>(task.dout, t.queries, t.head_dim, s.dout);
  if constexpr (Unit::kDepth > 1) {
    pack_rows<Unit, T>(t.q, t.queries, t.head_dim, s.q_rows);
    pack_rows<Unit, T>(task.dout, t.queries, t.head_dim, s.dout_rows);
  }
  fill(s.dq, attention_packed_size(t.queries, t.head_dim), 0.0f);
  fill(s.p, 3 * kTile * kTile, 0.0f);  // p, ds and ds_left: what products leave out must not be a NaN
  for (Index i = 0; i < t.queries; ++i) {
    const T *out = row_of<T>(t.out, i), *dout = row_of<T>(task.dout, i);
    Vec products(0.0f);
    for_columns(t.head_dim,
                [&](Index c, auto get, auto) { products = multiply_add(get(out + c), get(dout + c), products); });
    s.delta[i] = sum(products);
    s.lse[i] = t.lse[i * t.lse_stride];
  }
}

/// p and ds of one pair of tiles, from scores in p and dout · vᵀ in ds. They become left operands: p and ds that of the
/// transposed matrix, in place, and ds_left that of ds itself.
template <typename Unit>
void probabilities(const AttentionTask& t, const GradScratch& s, Index query_tile, Index key_tile) {
  constexpr Index kDepth = Unit::kDepth;
  const Index queries = TilePair(t, query_tile, key_tile).queries;
  if (t.softcap > 0) softcap(s.p, queries * kTile, t.scale, t.softcap);
  const Vec scale(t.scale), scored(t.softcap > 0 ? 1.0f : t.scale), inverse_cap(t.softcap > 0 ? 1.0f / t.softcap : 0.0f);
  if (!fully_visible(t, query_tile, key_tile))
    for (Index row = 0; row < queries; ++row) mask_row(t, query_tile, key_tile, row, s.p + row * kTile, -__builtin_inff());
  for (Index first = 0; first < queries; first += kDepth)
    for (Index j = 0; j < kTile; j += kLanes) {
      Vec p[kDepth], ds[kDepth];
      for (Index r = 0; r < kDepth; ++r) {
        const Index row = first + r, query = query_tile * kTile + row;
        p[r] = ds[r] = Vec(0.0f);
        if (row >= queries) continue;
        const Vec score = load(s.p + row * kTile + j) * scored;
        p[r] = exp(score - Vec(s.lse[query]));
        ds[r] = p[r] * (load(s.ds + row * kTile + j) - Vec(s.delta[query])) * scale;
        if (t.softcap <= 0) continue;
        const Vec bent = max(score, Vec(-t.softcap)) * inverse_cap;  // what is hidden stands at -inf: its p is 0
        ds[r] = ds[r] * (Vec(1.0f) - bent * bent);
      }
      store(s.p + first / kDepth * kTile + j, Unit::stack(p));
      store(s.ds + first / kDepth * kTile + j, Unit::stack(ds));
      if constexpr (kDepth > 1)
        for (Index r = 0; r < kDepth; ++r) Unit::put_left(s.ds_left + (first + r) * kTile, j, ds[r]);
    }
}

template <typename Unit, typename T>
void tile_forward(const AttentionTask& t, const AttentionPacked& packed, Index query_tile, float* scratch) {
  const Index dim = padded(t.head_dim), units = dim / Unit::kDepth;
  const Index first = query_tile * kTile, count = least(t.queries - first, kTile);
  float *q = scratch, *out = q + kTile * dim, *scores = out + kTile * dim;
  Rows queries = t.q;
  queries.data = row_of<T>(t.q, first);
  const KeyRange range{visible(t, first).begin, visible(t, first + count - 1).end};
  float largest[kTile], total[kTile];
  fill(largest, kTile, -__builtin_inff());
  fill(total, kTile, 0.0f);
  fill(out, kTile * dim, 0.0f);
  pack_left<Unit, T>(queries, count, t.head_dim, q);
  for (Index key_tile = range.begin / kTile; key_tile * kTile < range.end; ++key_tile) {
    const TilePair pair(t, query_tile, key_tile);
    tile_product<Unit>({q, units, 1}, packed.k_columns + key_tile * kTile * units, scores, kTile, pair.scores(t.head_dim),
                       false);
    if (t.softcap > 0)
      softcap(scores, count * kTile, t.scale, t.softcap);
    else
      scale(scores, count * kTile, t.scale);
    const bool masked = !fully_visible(t, query_tile, key_tile);
    for (Index row = 0; row < count; ++row) {
      if (masked) mask_row(t, query_tile, key_tile, row, scores + row * kTile, -__builtin_inff());
      softmax_step<Unit>(scores + row * kTile, largest[row], total[row], out + row * dim, dim);
    }
    tile_product<Unit>({scores, kTile, 1}, packed.v_rows + key_tile * kTile / Unit::kDepth * dim, out, dim, pair.over_keys(),
                       true);
  }
  for (Index row = 0; row < count; ++row) {
    const Vec inverse(1.0f / total[row]);
    T* to = row_of<T>(t.out, first + row);
    for_columns(t.head_dim, [&](Index c, auto, auto put) { put(to + c, load(out + row * dim + c) * inverse); });
    if (t.lse) t.lse[(first + row) * t.lse_stride] = largest[row] + __builtin_logf(total[row]);
  }
}

template <typename Unit, typename T>
void backward(const AttentionGradTask& task) {
  const AttentionTask& t = task.forward;
  const Index dim = padded(t.head_dim), units = dim / Unit::kDepth;
  const GradScratch s = carve<Unit>(task);
  prepare<Unit, T>(task, s);
  for (Index key_tile = 0; key_tile < row_tiles(t.keys); ++key_tile) {
    const Index keys = key_tile * kTile;
    fill(s.dk, 2 * kTile * dim, 0.0f);  // dk and dv lie one after the other
    for (Index query_tile = 0; query_tile < row_tiles(t.queries); ++query_tile) {
      const Index first = query_tile * kTile, last = least(first + kTile, t.queries) - 1;
      if (visible(t, last).end <= keys || visible(t, first).begin >= keys + kTile) continue;
      const Index row = first / Unit::kDepth * dim;  // of this tile in an operand that is deep in rows
      const TilePair pair(t, query_tile, key_tile);
      tile_product<Unit>({s.q + first * units, units, 1}, task.packed.k_columns + keys * units, s.p, kTile,
                         pair.scores(t.head_dim), false);
      tile_product<Unit>({s.dout + first * units, units, 1}, task.packed.v_columns + keys * units, s.ds, kTile,
                         pair.scores(t.head_dim), false);
      probabilities<Unit>(t, s, query_tile, key_tile);
      tile_product<Unit>({s.p, 1, kTile}, s.dout_rows + row, s.dv, dim, pair.over_queries(), true);
      tile_product<Unit>({s.ds, 1, kTile}, s.q_rows + row, s.dk, dim, pair.over_queries(), true);
      tile_product<Unit>({s.ds_left, kTile, 1}, task.packed.k_rows + keys / Unit::kDepth * dim, s.dq + first * dim, dim,
                         pair.over_keys(), true);
    }
    for (Index j = 0; j < least(kTile, t.keys - keys); ++j)
      for_columns(t.head_dim, [&](Index c, auto, auto put) {
        put(task.dk + (keys + j) * t.head_dim + c, load(s.dk + j * dim + c));
        put(task.dv + (keys + j) * t.head_dim + c, load(s.dv + j * dim + c));
      });
  }
  convert({s.dq, dim, Elem::F32}, task.dq, t.queries, t.head_dim);
}

}  // namespace

void attention_pack_rows(Rows x, Index rows, Index head_dim, float* out) {
  with_types(x.type, [&](auto unit, auto* tag) { pack_rows<decltype(unit), TEMPER_TYPE(tag)>(x, rows, head_dim, out); });
}

void attention_pack_columns(Rows x, Index rows, Index head_dim, float* out) {
  with_types(x.type,
             [&](auto unit, auto* tag) { pack_columns<decltype(unit), TEMPER_TYPE(tag)>(x, rows, head_dim, kTile, out); });
}

void attention_tile(const AttentionTask& t, const AttentionPacked& packed, Index query_tile, float* scratch) {
  with_types(t.q.type,
             [&](auto unit, auto* tag) { tile_forward<decltype(unit), TEMPER_TYPE(tag)>(t, packed, query_tile, scratch); });
}

void attention_backward(const AttentionGradTask& task) {
  with_types(task.forward.q.type, [&](auto unit, auto* tag) { backward<decltype(unit), TEMPER_TYPE(tag)>(task); });
}

}  // namespace temper::ops::cpu::TEMPER_KERNEL_NS
