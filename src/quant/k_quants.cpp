// q2_k, q3_k, q4_k, q5_k, q6_k (GGUF types 10 … 14): see k_formats.h. Equal to ggml byte for byte, without and with
// importance.
#include "quant/isa/k_quants.h"

#include "quant/block_codec.h"
#include "quant/formats.h"
#include "quant/k_formats.h"

namespace temper::quant {
namespace {

/// The definition of a K format, from its search, layout and rounding.
template <typename K, const PerIsa<RowKernels>& rows, const PerIsa<SearchKernels>& search, const PerIsa<KeptKernels>& kept>
struct KFormat {
  using Block = typename K::Block;
  using Params = typename K::Params;
  static constexpr const char* kName = K::kName;
  static constexpr const PerIsa<RowKernels>& kRows = rows;
  static constexpr const PerIsa<SearchKernels>& kSearch = search;
  static constexpr const PerIsa<KeptKernels>& kKept = kept;
  static constexpr std::size_t kElements = kSuper, kParams = sizeof(Params) / sizeof(float);
  static constexpr int kLow = K::kLow, kHigh = K::kHigh;
  static constexpr bool kWeighted = true;

  static void fit(const float* x, const float* importance, float, float* out) {
    constexpr int kSub = K::kElements;
    const float energy = importance ? K::kEnergy * mean_square(x) : 0.0f;
    SubFits<K::kSubs> subs;
    for (int s = 0; s < K::kSubs; ++s) {
      const SubFit<float> sub = K::template fit<float>(x + s * kSub, importance ? importance + s * kSub : nullptr, energy);
      subs.scale[s] = sub.scale;
      subs.minimum[s] = sub.minimum;
      subs.step[s] = sub.step;
      subs.origin[s] = sub.origin;
      subs.weight[s] = sub.weight;
    }
    const Params params = K::finish(subs, importance != nullptr);
    std::memcpy(out, &params, sizeof(Params));
  }

  static void round(const float* x, const float* in, Block& block) {
    Params params;
    std::memcpy(&params, in, sizeof(Params));
    u8 unsigned_codes[kSuper];
    round_codes<K>(x, params, unsigned_codes);
    K::put(params, unsigned_codes, block);
  }

  static void reround(const float* x, Block& block) {
    Params params{};
    u8 unsigned_codes[kSuper];
    K::get(block, params, unsigned_codes);
    reround_codes<K>(x, params, unsigned_codes);
    K::put(params, unsigned_codes, block);
  }

  static void codes(const Block& block, std::int32_t* codes) {
    Params params;
    u8 unsigned_codes[kSuper];
    K::get(block, params, unsigned_codes);
    for (int i = 0; i < kSuper; ++i) codes[i] = unsigned_codes[i] + kLow;
  }

  static void decode(const Block& block, float* values) {
    Params params{};
    u8 unsigned_codes[kSuper];
    K::get(block, params, unsigned_codes);
    for (int s = 0; s < K::kSubs; ++s) {
      const float scale = params.d * params.scale[s], minimum = params.dmin * params.minimum[s];
      for (int i = s * K::kElements; i < (s + 1) * K::kElements; ++i) {
        values[i] = scale * static_cast<float>(unsigned_codes[i] + kLow);
        if constexpr (kLow == 0) values[i] -= minimum;
      }
    }
  }
};

}  // namespace

CodecPtr make_q2_k() { return std::make_unique<BlockCodec<KFormat<Q2K, kQ2KRows, kQ2KSearch, kQ2KKept>>>(); }
CodecPtr make_q3_k() { return std::make_unique<BlockCodec<KFormat<Q3K, kQ3KRows, kQ3KSearch, kQ3KKept>>>(); }
CodecPtr make_q4_k() { return std::make_unique<BlockCodec<KFormat<Q4K, kQ4KRows, kQ4KSearch, kQ4KKept>>>(); }
CodecPtr make_q5_k() { return std::make_unique<BlockCodec<KFormat<Q5K, kQ5KRows, kQ5KSearch, kQ5KKept>>>(); }
CodecPtr make_q6_k() { return std::make_unique<BlockCodec<KFormat<Q6K, kQ6KRows, kQ6KSearch, kQ6KKept>>>(); }

}  // namespace temper::quant
