#include "quant/isa/iq4.h"

#include "quant/iq4_format.h"
#include "quant/isa/lanes.h"
#include "quant/isa/tables.h"

namespace temper::quant::TEMPER_ISA_LEVEL {
namespace {

template <typename T>
void decode_nl(const u8* block, i64 cols, i64, T* values) {
  for (i64 i = 0; i < cols; i += 32, block += 18) decode_pairs(kValues, block + 2, from_half(load<u16>(block)), values + i);
}

template <typename T>
void decode_xs(const u8* block, i64 cols, i64, T* values) {
  for (i64 i = 0; i < cols; i += 256, block += 136) {
    const float d = from_half(load<u16>(block));
    const u32 high = load<u16>(block + 2), low = load<u32>(block + 4);
    for (int s = 0; s < 8; ++s) {
      const auto scale = static_cast<i32>((low >> s * 4 & 15) | (high >> s * 2 & 3) << 4);
      decode_pairs(kValues, block + 8 + s * 16, d * static_cast<float>(scale - 32), values + i + s * 32);
    }
  }
}

/// Searches as many groups of 32 at once as a vector has lanes.
template <typename Format>
void fit(const float* x, const float* importance, i64 cols, float* params) {
  constexpr int kGroups = Format::kElements / 32;
  constexpr int kAtOnce = kLanes > kGroups ? kLanes / kGroups : 1;  // blocks
  for (i64 i = 0; i < cols; i += kAtOnce * Format::kElements) {
    const i64 left = (cols - i) / Format::kElements;
    const int count = left < kAtOnce ? static_cast<int>(left) : kAtOnce, groups = count * kGroups;
    float scales[kAtOnce * kGroups + kLanes], energy[kAtOnce] = {};
    for (int b = 0; importance && b < count; ++b) energy[b] = energy_of<Format::kElements>(x + i + b * Format::kElements);
    for (int g = 0; g < groups; g += kLanes) {
      const auto at = [&](int l) { return (g + l) % groups; };  // lanes past the end repeat the first ones
      Floats values[32], given[32], weights[32], energies;
      transpose<32>([&](int l) { return x + i + at(l) * 32; }, values);
      if (importance) transpose<32>([&](int l) { return importance + i + at(l) * 32; }, given);
      for (int l = 0; l < kLanes; ++l) energies[l] = energy[at(l) / kGroups];
      table_weights<Floats>(values, importance ? given : nullptr, energies, weights);
      const Floats found = fit_to_table<32>(values, weights);
      __builtin_memcpy(scales + g, &found, sizeof(found));
    }
    for (int b = 0; b < count; ++b, params += Format::kParams) Format::finish(scales + b * kGroups, params);
  }
}

template <typename Format>
void round(const float* x, const float* params, i64 cols, u8* encoded) {
  for (i64 i = 0; i < cols; i += Format::kElements, params += Format::kParams, encoded += sizeof(typename Format::Block)) {
    typename Format::Block block;
    Format::round(x + i, params, block);
    __builtin_memcpy(encoded, &block, sizeof(block));
  }
}

template <typename Format>
void reround(const float* x, i64 cols, u8* encoded) {
  for (i64 i = 0; i < cols; i += Format::kElements, encoded += sizeof(typename Format::Block)) {
    typename Format::Block block;
    __builtin_memcpy(&block, encoded, sizeof(block));
    reround_to_table<Format>(x + i, block);
    __builtin_memcpy(encoded, &block, sizeof(block));
  }
}

}  // namespace

const RowKernels kIq4NlRows = {nullptr, nullptr, decode_nl<float>, decode_nl<u16>, nullptr};
const RowKernels kIq4XsRows = {nullptr, nullptr, decode_xs<float>, decode_xs<u16>, nullptr};
const SearchKernels kIq4NlSearch = {fit<Iq4Nl>, round<Iq4Nl>};
const SearchKernels kIq4XsSearch = {fit<Iq4Xs>, round<Iq4Xs>};
const KeptKernels kIq4NlKept = {reround<Iq4Nl>};
const KeptKernels kIq4XsKept = {reround<Iq4Xs>};

}  // namespace temper::quant::TEMPER_ISA_LEVEL
