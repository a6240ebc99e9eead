// Encoding of superblocks: the search runs on as many sub-blocks at once as a vector has lanes; what remains for each
// superblock is the definition's own code, for the vectoriser.
#include "quant/isa/k_quants.h"
#include "quant/isa/lanes.h"
#include "quant/k_formats.h"

namespace temper::quant::TEMPER_ISA_LEVEL {
namespace {

template <typename K>
constexpr i64 kFloats = sizeof(typename K::Params) / sizeof(float);

/// Searches the sub-blocks of `count` superblocks, kAtOnce at most.
template <typename K, int kAtOnce>
void search(const float* x, const float* importance, int count, SubFits<K::kSubs>* subs) {
  constexpr int kSub = K::kElements;
  float energy[kAtOnce] = {};
  for (int b = 0; importance && b < count; ++b) energy[b] = K::kEnergy * mean_square(x + b * kSuper);
  for (int s = 0; s < kAtOnce * K::kSubs; s += kLanes) {
    // Lanes past the end repeat the first ones.
    const auto at = [&](int l) { return (s + l) % (count * K::kSubs); };
    Floats values[kSub], weights[kSub], energies;
    transpose<kSub>([&](int l) { return x + at(l) * kSub; }, values);
    if (importance) transpose<kSub>([&](int l) { return importance + at(l) * kSub; }, weights);
    for (int l = 0; l < kLanes; ++l) energies[l] = energy[at(l) / K::kSubs];
    const SubFit<Floats> fit = K::template fit<Floats>(values, importance ? weights : nullptr, energies);
    for (int l = 0; l < kLanes && s + l < count * K::kSubs; ++l) {
      SubFits<K::kSubs>& into = subs[(s + l) / K::kSubs];
      const int sub = (s + l) % K::kSubs;
      into.scale[sub] = fit.scale[l];
      into.minimum[sub] = fit.minimum[l];
      into.step[sub] = fit.step[l];
      into.origin[sub] = fit.origin[l];
      into.weight[sub] = fit.weight[l];
    }
  }
}

template <typename K>
void fit(const float* x, const float* importance, i64 cols, float* params) {
  constexpr int kAtOnce = kLanes > K::kSubs ? kLanes / K::kSubs : 1;
  for (i64 i = 0; i < cols; i += kAtOnce * kSuper) {
    const int count = cols - i >= kAtOnce * kSuper ? kAtOnce : static_cast<int>((cols - i) / kSuper);
    SubFits<K::kSubs> subs[kAtOnce];
    search<K, kAtOnce>(x + i, importance ? importance + i : nullptr, count, subs);
    for (int b = 0; b < count; ++b, params += kFloats<K>) {
      const typename K::Params found = K::finish(subs[b], importance != nullptr);
      __builtin_memcpy(params, &found, sizeof(found));
    }
  }
}

template <typename K>
void round(const float* x, const float* params, i64 cols, u8* encoded) {
  for (i64 i = 0; i < cols; i += kSuper, params += kFloats<K>, encoded += sizeof(typename K::Block)) {
    typename K::Params given;
    __builtin_memcpy(&given, params, sizeof(given));
    u8 codes[kSuper];
    round_codes<K>(x + i, given, codes);
    typename K::Block block;
    K::put(given, codes, block);
    __builtin_memcpy(encoded, &block, sizeof(block));
  }
}

template <typename K>
void reround(const float* x, i64 cols, u8* encoded) {
  for (i64 i = 0; i < cols; i += kSuper, encoded += sizeof(typename K::Block)) {
    typename K::Block block;
    typename K::Params params{};
    u8 codes[kSuper];
    __builtin_memcpy(&block, encoded, sizeof(block));
    K::get(block, params, codes);
    reround_codes<K>(x + i, params, codes);
    K::put(params, codes, block);
    __builtin_memcpy(encoded, &block, sizeof(block));
  }
}

}  // namespace

const KeptKernels kQ2KKept = {reround<Q2K>};
const SearchKernels kQ2KSearch = {fit<Q2K>, round<Q2K>};
const KeptKernels kQ3KKept = {reround<Q3K>};
const SearchKernels kQ3KSearch = {fit<Q3K>, round<Q3K>};
const KeptKernels kQ4KKept = {reround<Q4K>};
const SearchKernels kQ4KSearch = {fit<Q4K>, round<Q4K>};
const KeptKernels kQ5KKept = {reround<Q5K>};
const SearchKernels kQ5KSearch = {fit<Q5K>, round<Q5K>};
const KeptKernels kQ6KKept = {reround<Q6K>};
const SearchKernels kQ6KSearch = {fit<Q6K>, round<Q6K>};

}  // namespace temper::quant::TEMPER_ISA_LEVEL
