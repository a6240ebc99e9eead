// Attention one query at a time, straight from the rows of k and v: what generation needs.
#include "ops/cpu/kernels/local.h"
#include "ops/cpu/kernels/simd.h"

namespace temper::ops::cpu::TEMPER_KERNEL_NS {
namespace {

constexpr Index kKeyTile = 64;

/// Scores of kKeys keys from `key` on: independent sums that hide each other's latency.
template <typename T, int kKeys>
TEMPER_INLINE void dots(const AttentionTask& t, const float* query, Index key, float* scores) {
  Vec total[kKeys];
  for (Vec& sum : total) sum = Vec(0.0f);
  for_columns(t.head_dim, [&](Index c, auto get, auto) {
    const Vec q = get(query + c);
    for (int j = 0; j < kKeys; ++j) total[j] = multiply_add(q, get(row_of<T>(t.k, key + j) + c), total[j]);
  });
  for (int j = 0; j < kKeys; ++j) scores[j] = sum(total[j]);
}

/// sums[c…] · keep + Σ scores · v over `count` keys from `key` on, for kGroups groups of lanes: independent sums, too.
template <typename T, int kGroups, typename Get, typename Put>
TEMPER_INLINE void add_values(const AttentionTask& t, const float* scores, Index key, Index count, Index c, const Vec& keep,
                              float* sums, Get&& get, Put&& put) {
  Vec total[kGroups];
  for (int g = 0; g < kGroups; ++g) total[g] = get(sums + c + g * kLanes) * keep;
  for (Index j = 0; j < count; ++j) {
    const T* v = row_of<T>(t.v, key + j) + c;
    for (int g = 0; g < kGroups; ++g) total[g] = multiply_add(Vec(scores[j]), get(v + g * kLanes), total[g]);
  }
  for (int g = 0; g < kGroups; ++g) put(sums + c + g * kLanes, total[g]);
}

/// Asks for one head's columns of some rows, which lie far apart in a cache, before their turn.
template <typename T>
TEMPER_INLINE void prefetch(const Rows& rows, Index begin, Index end, Index head_dim) {
  for (Index r = begin; r < end; ++r)
    for (Index c = 0; c < head_dim; c += 64 / static_cast<Index>(sizeof(T))) __builtin_prefetch(row_of<T>(rows, r) + c);
}

/// Running softmax over tiles of keys: the largest score so far, Σ exp(score − largest), Σ exp(…) · v.
template <typename T>
void attend(const AttentionTask& t, Index query, Index first_key, Index end_key) {
  const T* q = row_of<T>(t.q, query);
  float query_row[kMaxHeadDim], total_row[kMaxHeadDim], scores[kKeyTile];
  for_columns(t.head_dim, [&](Index c, auto get, auto put) {
    put(query_row + c, get(q + c) * Vec(t.scale));
    put(total_row + c, Vec(0.0f));
  });
  float largest = -__builtin_inff(), total = 0.0f;
  for (Index begin = first_key; begin < end_key; begin += kKeyTile) {
    const Index count = end_key - begin < kKeyTile ? end_key - begin : kKeyTile;
    float top = largest;
    Index done = 0;
    prefetch<T>(t.v, begin, begin + count, t.head_dim);
    prefetch<T>(t.k, begin + count, begin + 2 * count < end_key ? begin + 2 * count : end_key, t.head_dim);
    for (; done + 4 <= count; done += 4) dots<T, 4>(t, query_row, begin + done, scores + done);
    for (; done < count; ++done) dots<T, 1>(t, query_row, begin + done, scores + done);
    if (t.softcap > 0) softcap(scores, count, 1.0f, t.softcap);
    for (; done < kKeyTile; ++done) scores[done] = -__builtin_inff();
    for (Index j = 0; j < count; ++j) top = scores[j] > top ? scores[j] : top;
    float rescale[kLanes];
    store(rescale, exp(Vec(largest - top)));
    Vec sums(0.0f);
    for (Index j = 0; j < kKeyTile; j += kLanes) {
      const Vec p = exp(load(scores + j) - Vec(top));
      store(scores + j, p);
      sums = sums + p;
    }
    total = total * rescale[0] + sum(sums);
    largest = top;
    const Vec keep(rescale[0]);
    constexpr int kGroups = 4;
    Index c = 0;
    for (; c + kGroups * kLanes <= t.head_dim; c += kGroups * kLanes)
      add_values<T, kGroups>(
          t, scores, begin, count, c, keep, total_row, [](auto* p) { return load(p); },
          [](auto* p, const Vec& x) { store(p, x); });
    for_columns(t.head_dim - c, [&](Index i, auto get, auto put) {
      add_values<T, 1>(t, scores, begin, count, c + i, keep, total_row, get, put);
    });
  }
  T* out = row_of<T>(t.out, query);
  const Vec inverse(1.0f / total);
  for_columns(t.head_dim, [&](Index c, auto get, auto put) { put(out + c, get(total_row + c) * inverse); });
  if (t.lse) t.lse[query * t.lse_stride] = largest + __builtin_logf(total);
}

}  // namespace

void attention_rows(const AttentionTask& t, Index query_begin, Index query_end) {
  for (Index i = query_begin; i < query_end; ++i) {
    const Index end = t.keys - t.queries + i + 1;
    const Index first = t.window > 0 && end > t.window ? end - t.window : 0;
    with_activation(t.q.type, [&](auto* tag) { attend<TEMPER_TYPE(tag)>(t, i, first, end); });
  }
}

}  // namespace temper::ops::cpu::TEMPER_KERNEL_NS
