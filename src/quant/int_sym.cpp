// int4-sym-gN, int8-sym-gN, int8-sym: symmetric integers with one f32 scale per group of N elements, or per row.
//
// The rule of torchao's IntxFakeQuantizer with symmetric mapping, in f32 (torchao 0.18, quantization/qat):
//     a = max |w|;  s = max(a / ((qmax - qmin) / 2), smallest normal f32);  q = clip(rint(w * (1/s)), qmin, qmax);  w' = q *
//     s
// The divisor is 7.5 or 127.5, so the largest positive element lands half a step past the range and is clipped.
//
// Encoded row: groups one after the other.
//     int4   | f32 s | N/32 x 16 bytes |   byte j of a chunk of 32: (q[j] + 8) | (q[j + 16] + 8) << 4
//     int8   | f32 s | N x i8          |
#include "quant/isa/int_sym.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <limits>

#include "quant/formats.h"
#include "quant/group_codec.h"

namespace temper::quant {
namespace {

constexpr std::int64_t kChunk = 32;

std::string int_sym_name(int bits, std::int64_t group) {
  return group == 0 ? fmt::format("int{}-sym", bits) : fmt::format("int{}-sym-g{}", bits, group);
}

class IntSym final : public GroupCodec {
 public:
  IntSym(int bits, std::int64_t group)
      : GroupCodec(int_sym_name(bits, group), group, bits == 4 ? kInt4SymRows : kInt8SymRows, sizeof(float), bits),
        bits_(bits),
        qmax_((1 << (bits - 1)) - 1) {}

  void fit(std::span<const float> row, std::span<float> params) const override {
    const auto cols = static_cast<std::int64_t>(row.size());
    check_row(row.size(), params.size(), row_bytes(cols));
    const std::int64_t n = group_of(cols);
    const float half_range = static_cast<float>(qmax_) + 0.5f;
    for (std::int64_t g = 0; g * n < cols; ++g) {
      float amax = 0;
      for (std::int64_t i = g * n; i < (g + 1) * n; ++i) amax = std::max(amax, std::fabs(row[i]));
      params[g] = std::max(amax / half_range, std::numeric_limits<float>::min());
    }
  }

  void round(std::span<const float> row, std::span<const float> params, std::span<std::byte> encoded) const override {
    const auto cols = static_cast<std::int64_t>(row.size());
    check_row(row.size(), params.size(), encoded.size());
    const std::int64_t n = group_of(cols);
    for (std::int64_t g = 0; g * n < cols; ++g) {
      std::byte* out = encoded.data() + static_cast<std::size_t>(g) * group_bytes(n);
      std::memcpy(out, &params[g], sizeof(float));
      const float inverse = 1.0f / params[g];
      for (std::int64_t i = 0; i < n; ++i) put(out + sizeof(float), i, code(row[g * n + i], inverse));
    }
  }

  void decode(std::span<const std::byte> encoded, std::span<float> row) const override {
    visit(encoded, row.size(), [&](std::int64_t i, int q, float scale) { row[i] = static_cast<float>(q) * scale; });
  }

  void codes(std::span<const std::byte> encoded, std::span<std::int32_t> out) const override {
    visit(encoded, out.size(), [&](std::int64_t i, int q, float) { out[i] = q; });
  }

 private:
  int code(float w, float inverse) const {
    const float t = std::nearbyint(w * inverse);
    if (!(t > static_cast<float>(-qmax_ - 1))) return -qmax_ - 1;  // NaN too
    return t < static_cast<float>(qmax_) ? static_cast<int>(t) : qmax_;
  }

  void put(std::byte* codes, std::int64_t i, int q) const {
    if (bits_ == 8) {
      codes[i] = static_cast<std::byte>(q);
      return;
    }
    std::byte& byte = codes[i / kChunk * 16 + i % 16];
    const auto nibble = static_cast<std::byte>(q + 8);
    byte = i % kChunk < 16 ? nibble : byte | nibble << 4;
  }

  int get(const std::byte* codes, std::int64_t i) const {
    if (bits_ == 8) return std::bit_cast<std::int8_t>(codes[i]);
    const auto byte = static_cast<int>(codes[i / kChunk * 16 + i % 16]);
    return (i % kChunk < 16 ? byte & 15 : byte >> 4) - 8;
  }

  template <typename Visitor>
  void visit(std::span<const std::byte> encoded, std::size_t elements, Visitor&& visitor) const {
    const auto cols = static_cast<std::int64_t>(elements);
    check_row(elements, static_cast<std::size_t>(params_per_row(cols)), encoded.size());
    const std::int64_t n = group_of(cols);
    for (std::int64_t g = 0; g * n < cols; ++g) {
      const std::byte* in = encoded.data() + static_cast<std::size_t>(g) * group_bytes(n);
      float scale;
      std::memcpy(&scale, in, sizeof(float));
      for (std::int64_t i = 0; i < n; ++i) visitor(g * n + i, get(in + sizeof(float), i), scale);
    }
  }

  int bits_, qmax_;
};

}  // namespace

CodecPtr make_int_sym(int bits, std::int64_t group) { return std::make_unique<IntSym>(bits, group); }

}  // namespace temper::quant
