// llm-int8: activations as LLM.int8 multiplies them (Dettmers et al. 2022; bitsandbytes 0.50.2, int8_vectorwise_quant and
// int8_vectorwise_dequant). With h = f16(x), whatever the dtype of x:
//
//     outlier  |h| >= 6, the threshold that transformers and bitsandbytes have; x stays as it is
//     else     absmax = max |h| of the row below the threshold,
//              q = rint(h · (1 / absmax · 127)), x' = (q · absmax) · f32(1/127)
//
// A row of zeros and outliers has q = 0. Of one token that is bitsandbytes bit for bit. Of several, bitsandbytes exempts the
// whole column in which any of them has an outlier; here each row has its own, so that what a token becomes depends neither
// on its neighbours nor on how documents are packed.
//
//     | f32 absmax | f32 outliers[cols], 0 where there is none | i8 q[cols] |
#include "quant/isa/llm_int8.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "base/error.h"
#include "quant/checks.h"
#include "quant/formats.h"

namespace temper::quant {
namespace {

float half(float x) { return to_float(to_f16(x)); }
bool is_outlier(float x) { return !(std::fabs(half(x)) < kOutlierThreshold); }

std::size_t outlier_at(std::size_t i) { return sizeof(float) * (1 + i); }
std::size_t code_at(std::size_t cols, std::size_t i) { return sizeof(float) * (1 + cols) + i; }

template <typename T>
T load(std::span<const std::byte> row, std::size_t at) {
  T value;
  std::memcpy(&value, row.data() + at, sizeof(T));
  return value;
}
template <typename T>
void store(std::span<std::byte> row, std::size_t at, T value) {
  std::memcpy(row.data() + at, &value, sizeof(T));
}

int code(std::span<const std::byte> row, std::size_t cols, std::size_t i) {
  return load<std::int8_t>(row, code_at(cols, i));
}

class LlmInt8 final : public Codec {
 public:
  LlmInt8() : Codec("llm-int8", 0, true) {}

  std::size_t row_bytes(std::int64_t cols) const override {
    check_cols(*this, cols);
    return sizeof(float) + static_cast<std::size_t>(cols) * (sizeof(float) + 1);
  }
  std::int64_t params_per_row(std::int64_t) const override { return 1; }

  void fit(std::span<const float> row, std::span<float> params) const override {
    check_size(*this, "parameters of a row", 1, params.size());
    params[0] = 0.0f;
    for (const float x : row)
      if (!is_outlier(x)) params[0] = std::max(params[0], std::fabs(half(x)));
  }

  void round(std::span<const float> row, std::span<const float> params, std::span<std::byte> encoded) const override {
    check_size(*this, "parameters of a row", 1, params.size());
    check_row(row.size(), encoded.size());
    store(encoded, 0, params[0]);
    const float factor = params[0] != 0.0f ? 1.0f / params[0] * 127.0f : 0.0f;
    for (std::size_t i = 0; i < row.size(); ++i) {
      const bool outlier = is_outlier(row[i]);
      const float code = outlier ? 0.0f : std::clamp(std::nearbyint(half(row[i]) * factor), -127.0f, 127.0f);
      store(encoded, outlier_at(i), outlier ? row[i] : 0.0f);
      store(encoded, code_at(row.size(), i), static_cast<std::int8_t>(code));
    }
  }

  void reround(std::span<const float> row, std::span<std::byte> encoded) const override {
    check_row(row.size(), encoded.size());
    const auto absmax = load<float>(encoded, 0);
    round(row, {&absmax, 1}, encoded);
  }

  void decode(std::span<const std::byte> encoded, std::span<float> row) const override {
    check_row(row.size(), encoded.size());
    const auto absmax = load<float>(encoded, 0);
    for (std::size_t i = 0; i < row.size(); ++i) {
      const auto outlier = load<float>(encoded, outlier_at(i));
      const auto rounded = static_cast<float>(code(encoded, row.size(), i));
      row[i] = outlier != 0.0f ? outlier : rounded * absmax * kInt8Step;
    }
  }

  void encode_rows(const TensorView& values, std::span<std::byte> encoded) const override {
    encode_matrix(*this, kLlmInt8Rows.in_use(), 0, values, encoded);
  }
  void decode_rows(std::span<const std::byte> encoded, const TensorView& out) const override {
    decode_matrix(*this, kLlmInt8Rows.in_use(), 0, encoded, out);
  }

  void codes(std::span<const std::byte> encoded, std::span<std::int32_t> out) const override {
    check_row(out.size(), encoded.size());
    for (std::size_t i = 0; i < out.size(); ++i) out[i] = code(encoded, out.size(), i);
  }
  CodeStats stats(std::span<const std::byte>, std::span<const std::byte>, std::int64_t, std::int64_t) const override {
    throw LogicError("{}: statistics of codes are those of weights", name());
  }

 private:
  void check_row(std::size_t cols, std::size_t bytes) const {
    check_size(*this, "bytes of a row", row_bytes(static_cast<std::int64_t>(cols)), bytes);
  }
};

}  // namespace

CodecPtr make_llm_int8() { return std::make_unique<LlmInt8>(); }

}  // namespace temper::quant
