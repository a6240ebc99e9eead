// iq2_xxs, iq2_xs, iq2_s, iq3_xxs, iq3_s, iq1_s, iq1_m (GGUF types 16, 17, 22, 18, 21, 19, 29), read only: superblocks of
// 256 elements in groups that a grid names, with signs apart and a scale for each 16 or 32 elements. s is a group's sign
// bits, one per element, set if negative; 7 bits stand for 8, of which an even number is set.
//
//     iq2_xxs   | f16 d | 8 x { u8 grid[4], u32: 4 x 7 bits s, 4 bits sc } |              x' = d (sc + 1/2)/4 · ±grid
//     iq2_xs    | f16 d | 32 x u16: 9 bits grid, 7 bits s | u8 sc[8] |                    the same, sc a nibble for 16
//     iq2_s     | f16 d | u8 grid[32] | u8 s[32] | u8 high[8] | u8 sc[8] |                the same; high: 2 bits of each
//     grid iq3_xxs   | f16 d | u8 grid[64] | 8 x u32: 4 x 7 bits s, 4 bits sc |                x' = d (sc + 1/2)/2 · ±grid
//     iq3_s     | f16 d | u8 grid[64] | u8 high[8] | u8 s[32] | u8 sc[4] |                x' = d (2 sc + 1) · ±grid
//     iq1_s     | f16 d | u8 grid[32] | 8 x u16: 4 x 3 bits of grid, 3 bits sc, δ |       x' = d (2 sc + 1) (grid ± 1/8)
//     iq1_m     | u8 grid[32] | 16 x u8: 2 x (3 bits of grid, δ) | 4 x u16: 4 x 3 bits sc, 4 bits of d |   the same, sc for
//     16
#include <bit>
#include <cstring>

#include "quant/bits.h"
#include "quant/checks.h"
#include "quant/formats.h"
#include "quant/iq_grids.h"

namespace temper::quant {
namespace {

constexpr std::size_t kSuper = 256;

/// x' = scale[i / 16] * code[i]; iq1 counts eighths.
struct Unpacked {
  float scale[16];
  std::int32_t code[kSuper];

  /// Elements 8g … 8g + 7 of the grids of 2 bits per element.
  void set8(int g, unsigned entry, const int* values, unsigned signs, int factor = 1, int offset = 0) {
    for (int i = 0; i < 8; ++i) {
      const int value = values[entry >> 2 * i & 3] * factor + offset;
      code[g * 8 + i] = signs >> i & 1 ? -value : value;
    }
  }
  /// Elements 4h … 4h + 3 of the grids of 3 bits per element.
  void set4(int h, unsigned entry, const int* values, unsigned signs) {
    for (int i = 0; i < 4; ++i) {
      const int value = values[entry >> 3 * i & 7];
      code[h * 4 + i] = signs >> i & 1 ? -value : value;
    }
  }
};

constexpr int kIq2Values[4] = {8, 25, 43, 0};
constexpr int kIq3XxsValues[8] = {4, 12, 20, 28, 36, 44, 52, 62};
constexpr int kIq3SValues[8] = {1, 3, 5, 7, 9, 11, 13, 15};
constexpr int kTernaryValues[4] = {-1, 0, 1, 0};

unsigned eight_signs(u32 seven) {
  seven &= 127;
  return seven | (static_cast<unsigned>(std::popcount(seven)) & 1u) << 7;
}

float two_bit_scale(float d, u32 code) { return d * (0.5f + static_cast<float>(code & 15)) * 0.25f; }

void unpack_iq2_xxs(const u8* block, Unpacked& out) {
  for (int b = 0; b < 8; ++b) {
    const u8* part = block + 2 + b * 8;
    const u32 signs = load<u32>(part + 4);
    out.scale[2 * b] = out.scale[2 * b + 1] = two_bit_scale(from_half(load<u16>(block)), signs >> 28);
    for (int k = 0; k < 4; ++k) out.set8(b * 4 + k, kIq2XxsGrid[part[k]], kIq2Values, eight_signs(signs >> 7 * k));
  }
}

void unpack_iq2_xs(const u8* block, Unpacked& out) {
  for (int s = 0; s < 16; ++s)
    out.scale[s] = two_bit_scale(from_half(load<u16>(block)), static_cast<u32>(block[66 + s / 2] >> s % 2 * 4));
  for (int g = 0; g < 32; ++g) {
    const u16 q = load<u16>(block + 2 + g * 2);
    out.set8(g, kIq2XsGrid[q & 511], kIq2Values, eight_signs(q >> 9));
  }
}

void unpack_iq2_s(const u8* block, Unpacked& out) {
  for (int s = 0; s < 16; ++s)
    out.scale[s] = two_bit_scale(from_half(load<u16>(block)), static_cast<u32>(block[74 + s / 2] >> s % 2 * 4));
  for (int g = 0; g < 32; ++g) {
    const int high = block[66 + g / 4] >> g % 4 * 2 & 3;
    out.set8(g, kIq2SGrid[block[2 + g] | high << 8], kIq2Values, block[34 + g]);
  }
}

void unpack_iq3_xxs(const u8* block, Unpacked& out) {
  for (int b = 0; b < 8; ++b) {
    const u32 signs = load<u32>(block + 66 + b * 4);
    out.scale[2 * b] = out.scale[2 * b + 1] = from_half(load<u16>(block)) * (0.5f + static_cast<float>(signs >> 28)) * 0.5f;
    for (int k = 0; k < 8; ++k)
      out.set4(b * 8 + k, kIq3XxsGrid[block[2 + b * 8 + k]], kIq3XxsValues, eight_signs(signs >> k / 2 * 7) >> k % 2 * 4);
  }
}

void unpack_iq3_s(const u8* block, Unpacked& out) {
  for (int s = 0; s < 16; ++s)
    out.scale[s] = from_half(load<u16>(block)) * static_cast<float>(1 + 2 * (block[106 + s / 4] >> s / 2 % 2 * 4 & 15));
  for (int h = 0; h < 64; ++h) {
    const int high = block[66 + h / 8] >> h % 8 & 1;
    out.set4(h, kIq3SGrid[block[2 + h] | high << 8], kIq3SValues, static_cast<unsigned>(block[74 + h / 2] >> h % 2 * 4));
  }
}

void unpack_iq1_s(const u8* block, Unpacked& out) {
  for (int b = 0; b < 8; ++b) {
    const u32 high = load<u16>(block + 34 + b * 2);
    out.scale[2 * b] = out.scale[2 * b + 1] =
        from_half(load<u16>(block)) * static_cast<float>(2 * (high >> 12 & 7) + 1) * 0.125f;
    for (int k = 0; k < 4; ++k)
      out.set8(b * 4 + k, kIq1Grid[block[2 + b * 4 + k] | (high >> 3 * k & 7) << 8], kTernaryValues, 0, 8,
               high & 0x8000 ? -1 : 1);
  }
}

void unpack_iq1_m(const u8* block, Unpacked& out) {
  u32 d = 0;
  for (int i = 0; i < 4; ++i) d |= static_cast<u32>(load<u16>(block + 48 + i * 2) >> 12) << 4 * i;
  for (int s = 0; s < 16; ++s) {
    const int code = load<u16>(block + 48 + s / 4 * 2) >> s % 4 * 3 & 7;
    out.scale[s] = from_half(static_cast<u16>(d)) * static_cast<float>(2 * code + 1) * 0.125f;
  }
  for (int g = 0; g < 32; ++g) {
    const u32 high = static_cast<u32>(block[32 + g / 2] >> g % 2 * 4);
    out.set8(g, kIq1Grid[block[g] | (high & 7) << 8], kTernaryValues, 0, 8, high & 8 ? -1 : 1);
  }
}

class GridCodec final : public Codec {
 public:
  using Unpack = void (*)(const u8* block, Unpacked& out);
  GridCodec(const char* name, std::size_t bytes, Unpack unpack)
      : Codec(name, kSuper, false), bytes_(bytes), unpack_(unpack) {}

  std::size_t row_bytes(std::int64_t cols) const override {
    check_cols(*this, cols);
    return static_cast<std::size_t>(cols) / kSuper * bytes_;
  }
  std::int64_t params_per_row(std::int64_t) const override { refuse_to_write(*this); }
  void fit(std::span<const float>, std::span<float>) const override { refuse_to_write(*this); }
  void round(std::span<const float>, std::span<const float>, std::span<std::byte>) const override { refuse_to_write(*this); }
  void reround(std::span<const float>, std::span<std::byte>) const override { refuse_to_write(*this); }
  void encode_rows(const TensorView&, std::span<std::byte>) const override { refuse_to_write(*this); }
  CodeStats stats(std::span<const std::byte>, std::span<const std::byte>, std::int64_t, std::int64_t) const override {
    refuse_to_write(*this);
  }

  void decode(std::span<const std::byte> encoded, std::span<float> row) const override {
    visit(encoded, row.size(), [&](const Unpacked& block, std::size_t at) {
      for (std::size_t i = 0; i < kSuper; ++i) row[at + i] = block.scale[i / 16] * static_cast<float>(block.code[i]);
    });
  }
  void codes(std::span<const std::byte> encoded, std::span<std::int32_t> out) const override {
    visit(encoded, out.size(),
          [&](const Unpacked& block, std::size_t at) { std::memcpy(out.data() + at, block.code, sizeof(block.code)); });
  }
  void decode_rows(std::span<const std::byte> encoded, const TensorView& out) const override {
    check_matrix(*this, out, encoded.size());
    std::vector<float> row(static_cast<std::size_t>(out.cols()));
    const std::size_t bytes = row_bytes(out.cols());
    for (std::int64_t r = 0; r < out.rows(); ++r) {
      decode(encoded.subspan(static_cast<std::size_t>(r) * bytes, bytes), row);
      for (std::size_t i = 0; i < row.size(); ++i) {
        const std::int64_t at = r * out.row_stride + static_cast<std::int64_t>(i);
        if (out.dtype == DType::F32)
          out.as<float>()[at] = row[i];
        else
          out.as<bf16>()[at] = to_bf16(row[i]);
      }
    }
  }

 private:
  template <typename Visitor>
  void visit(std::span<const std::byte> encoded, std::size_t elements, Visitor&& visitor) const {
    check_size(*this, "encoded bytes", row_bytes(static_cast<std::int64_t>(elements)), encoded.size());
    const auto* block = reinterpret_cast<const u8*>(encoded.data());
    for (std::size_t at = 0; at < elements; at += kSuper, block += bytes_) {
      Unpacked unpacked;
      unpack_(block, unpacked);
      visitor(unpacked, at);
    }
  }

  std::size_t bytes_;
  Unpack unpack_;
};

}  // namespace

std::vector<CodecPtr> make_grid_formats() {
  std::vector<CodecPtr> formats;
  const auto add = [&](const char* name, std::size_t bytes, GridCodec::Unpack unpack) {
    formats.push_back(std::make_unique<GridCodec>(name, bytes, unpack));
  };
  add("iq2_xxs", 66, unpack_iq2_xxs);
  add("iq2_xs", 74, unpack_iq2_xs);
  add("iq2_s", 82, unpack_iq2_s);
  add("iq3_xxs", 98, unpack_iq3_xxs);
  add("iq3_s", 110, unpack_iq3_s);
  add("iq1_s", 50, unpack_iq1_s);
  add("iq1_m", 56, unpack_iq1_m);
  return formats;
}

}  // namespace temper::quant
