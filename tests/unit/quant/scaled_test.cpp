// Every format of groups with a scale, in all its combinations: fast paths against the scalar definition on every
// instruction set, zeros, extremes, rows of any length, parameters that rows share.
#include <gtest/gtest.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>

#include "base/rng.h"
#include "quant/double_quant.h"
#include "quant/formats.h"
#include "quant/scaled_codec.h"

namespace temper::quant {
namespace {

std::vector<std::string> int_names() {
  std::vector<std::string> names;
  for (const int bits : {2, 3, 4, 5, 6, 8})
    for (const char* rule : {"sym", "symeps", "symfull", "mslk", "ctsym", "asym", "ctasym", "tinygemm"})
      for (const char* group : {"", "-g32", "-g64", "-g128", "-g256"})
        for (const char* type : {"", "-bf16", "-f16"}) names.push_back(fmt::format("int{}-{}{}{}", bits, rule, group, type));
  return names;
}

std::vector<std::string> float_names() {
  std::vector<std::string> names;
  for (const ScaledFormat& format : float_formats()) names.push_back(format.name);
  return names;
}

std::vector<std::string> all_names() {
  std::vector<std::string> names = int_names();
  for (const std::string& name : float_names()) names.push_back(name);
  return names;
}

const ScaledCodec& scaled(const Codec& codec) { return dynamic_cast<const ScaledCodec&>(codec); }

/// A matrix of bf16 values in which every element type, rule and scale meets its corners. All finite.
std::vector<float> corners(std::int64_t cols) {
  Rng rng(11);
  std::vector<float> values;
  const auto add = [&](auto&& value) {
    for (std::int64_t i = 0; i < cols; ++i) values.push_back(to_float(to_bf16(static_cast<float>(value(i)))));
  };
  const auto normal = [&] { return rng.uniform() + rng.uniform() - rng.uniform() - rng.uniform(); };
  for (const float c : {0.0f, -0.0f, 0.7f, -0.7f, 1e-40f, 3e38f, -3e38f}) add([&](auto) { return c; });
  add([](auto i) { return i % 2 ? -0.0f : 0.0f; });
  for (const float scale : {0.02f, 1.0f, 1e37f, 1e-30f, 2e-38f, 1e-39f}) add([&](auto) { return normal() * scale; });
  add([&](auto) { return rng.uniform(); });
  add([&](auto) { return -rng.uniform() - 1.0f; });
  for (const float largest : {8.0f, -8.0f, 7.5f, 6.0f, 127.5f, 448.0f}) {
    add([&](auto i) { return i % 16 == 0 ? largest : (static_cast<float>(rng.below(31)) - 15.0f) / 4; });
  }
  add([&](auto i) { return i % 64 == 3 ? 100.0f : normal() * 0.01f; });
  for (int repeat = 0; repeat < 6; ++repeat)
    add([&](auto) {
      std::uint32_t bits = rng.next() & (repeat % 2 ? 0xffff0000u : 0x83ff0000u);
      if (repeat % 2 == 0) bits |= 0x3c000000u;
      if ((bits & 0x7f800000u) == 0x7f800000u) bits &= 0x807fffffu;
      return std::bit_cast<float>(bits);
    });
  return values;
}

struct Encoded {
  std::vector<std::byte> bytes;
  std::vector<float> decoded;
};

/// By the scalar functions, parameters joined.
Encoded by_definition(const Codec& codec, std::span<const float> values, std::int64_t cols) {
  const std::size_t rows = values.size() / static_cast<std::size_t>(cols), bytes = codec.row_bytes(cols);
  const auto per_row = static_cast<std::size_t>(codec.params_per_row(cols)), n = static_cast<std::size_t>(cols);
  Encoded result{std::vector<std::byte>(rows * bytes), std::vector<float>(values.size())};
  std::vector<float> params(rows * per_row);
  for (std::size_t r = 0; r < rows; ++r)
    codec.fit(values.subspan(r * n, n), std::span(params).subspan(r * per_row, per_row));
  codec.join(params, static_cast<std::int64_t>(rows), cols);
  for (std::size_t r = 0; r < rows; ++r) {
    const auto row = std::span(result.bytes).subspan(r * bytes, bytes);
    codec.round(values.subspan(r * n, n), std::span(params).subspan(r * per_row, per_row), row);
    codec.decode(row, std::span(result.decoded).subspan(r * n, n));
  }
  return result;
}

void expect_fast_paths(const Codec& codec, const std::vector<float>& values, std::int64_t cols) {
  const std::int64_t rows = static_cast<std::int64_t>(values.size()) / cols;
  const Encoded expected = by_definition(codec, values, cols);
  for (const float x : expected.decoded) ASSERT_FALSE(std::isnan(x)) << codec.name() << " cols " << cols;
  std::vector<bf16> halves;
  for (const float x : values) halves.push_back(to_bf16(x));
  for (const Isa isa : available_isas()) {
    set_row_kernels(isa);
    for (const bool half : {false, true}) {
      const TensorView in = half ? TensorView(halves.data(), DType::BF16, {rows, cols})
                                 : TensorView(const_cast<float*>(values.data()), DType::F32, {rows, cols});
      const std::string what = fmt::format("{} {} {} cols {}", codec.name(), isa_name(isa), half ? "bf16" : "f32", cols);
      std::vector<std::byte> bytes(expected.bytes.size());
      codec.encode_rows(in, bytes);
      const auto different = std::ranges::mismatch(bytes, expected.bytes);
      const auto at = static_cast<std::size_t>(different.in1 - bytes.begin());
      ASSERT_EQ(different.in1, bytes.end())
          << what << ": row " << at / codec.row_bytes(cols) << " byte " << at % codec.row_bytes(cols);
      Tensor out(half ? DType::BF16 : DType::F32, {rows, cols});
      codec.decode_rows(bytes, out);
      for (std::size_t i = 0; i < values.size(); ++i) {
        const float found = half ? to_float(out.span<bf16>()[i]) : out.span<float>()[i];
        const float wanted = half ? to_float(to_bf16(expected.decoded[i])) : expected.decoded[i];
        ASSERT_EQ(std::bit_cast<std::uint32_t>(found), std::bit_cast<std::uint32_t>(wanted)) << what << ": " << i;
      }
    }
  }
  set_row_kernels(active_isa());
}

TEST(Scaled, NamesStandForFormats) {
  for (const std::string& name : all_names()) {
    const CodecPtr codec = make_scaled(name);
    ASSERT_TRUE(codec) << name;
    EXPECT_EQ(codec->name(), name);
  }
  for (const char* name : {"int7-sym", "int4", "int4-sym-g16", "int4-sym-g32-f32", "int4-sym-bf16-g32", "int4-symm-g32",
                           "int4-sym-g32-g32", "int4-sym-f16-bf16", "nf5", ""})
    EXPECT_FALSE(make_scaled(name)) << name;
}

TEST(Scaled, FastPathsEqualTheDefinition) {
  const std::vector<float> values = corners(256);
  for (const std::string& name : all_names()) expect_fast_paths(*make_scaled(name), values, 256);
}

TEST(Scaled, PerRowFormatsTakeAnyLength) {
  for (const std::string& name : all_names()) {
    const CodecPtr codec = make_scaled(name);
    if (codec->group() != 0) continue;
    for (const std::int64_t cols : {1, 15, 31, 33, 100}) expect_fast_paths(*codec, corners(cols), cols);
  }
}

TEST(Scaled, ManyGroupsInARow) {
  for (const char* name : {"int3-asym-g32-bf16", "nvfp4", "mxfp6-e2m3", "nf4-dq", "fp8-e4m3-b128"})
    expect_fast_paths(*make_scaled(name), corners(64 * 300 / 64 * 128), 64 * 300 / 64 * 128);
}

TEST(Scaled, ZerosStayZeros) {
  const std::vector<float> zeros(512);
  for (const std::string& name : all_names()) {
    const CodecPtr codec = make_scaled(name);
    for (const float x : by_definition(*codec, zeros, 256).decoded) ASSERT_EQ(x, 0.0f) << name;
  }
}

TEST(Scaled, SmallFloatsAreNearestTiesToEven) {
  for (const SmallFloat& format : {kE4M3, kE5M2, kE2M3, kE3M2, kE2M1}) {
    std::vector<double> values;  // of the non-negative finite codes, ascending
    for (unsigned code = 0; code < 1u << (format.bits() - 1); ++code) {
      const float value = to_float(format, code);
      if (std::isfinite(value)) values.push_back(value);
    }
    EXPECT_EQ(values.back(), format.largest);
    for (std::uint32_t bits = 0; bits < 0x7f80; ++bits) {  // every finite bf16 of either sign
      const float x = to_float(bf16{static_cast<std::uint16_t>(bits)});
      const auto above = static_cast<std::size_t>(std::ranges::lower_bound(values, x) - values.begin());
      std::size_t nearest = std::min(above, values.size() - 1);
      if (above > 0 && above < values.size()) {
        const double below = x - values[above - 1], over = values[above] - x;
        if (below < over || (below == over && above % 2 == 1)) nearest = above - 1;
      }
      ASSERT_EQ(to_small(format, x), nearest) << x;
      ASSERT_EQ(to_small(format, -x), nearest | 1u << (format.bits() - 1)) << -x;
    }
  }
}

TEST(Scaled, CodesAreTheNearestOfTheirGrid) {
  // Where a scale is stored in f32 or a power of two, decode multiplies by what round divided by: no other code is nearer.
  Rng rng(12);
  std::vector<float> values(4 * 256);
  for (float& x : values) x = (rng.uniform() + rng.uniform() - 1.0f) * 0.1f;
  for (const std::string& name : all_names()) {
    const CodecPtr codec = make_scaled(name);
    const ScaledFormat& format = scaled(*codec).format();
    if (format.scale != ScaleType::F32 && format.scale != ScaleType::E8M0 && format.scale != ScaleType::E4M3) continue;
    const Encoded encoded = by_definition(*codec, values, 256);
    for (std::size_t r = 0; r < 4; ++r) {
      const std::size_t bytes = codec->row_bytes(256);
      const auto stored = scaled(*codec).stored(std::span(encoded.bytes).subspan(r * bytes, bytes), 256);
      const std::size_t n = 256 / stored.scales.size();
      for (std::size_t i = 0; i < 256; ++i) {
        const double w = values[r * 256 + i], scale = stored.scales[i / n];
        const double error = std::fabs(w - encoded.decoded[r * 256 + i]);
        double best = HUGE_VAL;
        for (int raw = 0; raw < 1 << format.bits(); ++raw) {
          double value = raw - (1 << (format.bits() - 1)) - stored.zeros[i / n];
          if (small_float(format.element))
            value = to_float(*small_float(format.element), static_cast<unsigned>(raw));
          else if (!format.integer())
            value = code_values(format.element)[static_cast<std::size_t>(raw)];
          if (std::isfinite(value)) best = std::min(best, std::fabs(w - (value * scale + stored.shifts[i / n])));
        }
        // Rounding w/s, the product and the sum each in f32: at most 448 steps, 2^-24 of each.
        ASSERT_LE(error, best + 3 * 448 * 0x1p-24 * scale + 0x1p-24) << name << ": " << i;
      }
    }
  }
}

TEST(Scaled, StatsCountCodesOneByOne) {
  const std::vector<float> values = corners(256);
  std::vector<float> moved = values;
  Rng rng(13);
  for (float& x : moved)
    if (rng.below(5) == 0) x *= 0.7f;
  const std::size_t rows = values.size() / 256;
  for (const std::string& name : all_names()) {
    const CodecPtr codec = make_scaled(name);
    const Encoded now = by_definition(*codec, moved, 256), before = by_definition(*codec, values, 256);
    const auto [low, high] = scaled(*codec).end_codes();
    CodeStats expected{};
    const std::size_t bytes = codec->row_bytes(256);
    std::vector<std::int32_t> a(256), b(256);
    for (std::size_t r = 0; r < rows; ++r) {
      codec->codes(std::span(now.bytes).subspan(r * bytes, bytes), a);
      codec->codes(std::span(before.bytes).subspan(r * bytes, bytes), b);
      for (std::size_t i = 0; i < 256; ++i) {
        expected.changed += a[i] != b[i];
        expected.saturated += a[i] == low || a[i] == high;
      }
    }
    ASSERT_GT(expected.changed, 0) << name;
    ASSERT_GT(expected.saturated, 0) << name;
    for (const Isa isa : available_isas()) {
      set_row_kernels(isa);
      const CodeStats found = codec->stats(now.bytes, before.bytes, static_cast<std::int64_t>(rows), 256);
      EXPECT_EQ(found.total, static_cast<std::int64_t>(values.size()));
      EXPECT_EQ(found.changed, expected.changed) << name;
      EXPECT_EQ(found.saturated, expected.saturated) << name;
    }
    set_row_kernels(active_isa());
  }
}

TEST(Scaled, ValuesThatAreNotFiniteAreSurvived) {
  std::vector<float> values(256, 1.0f);
  values[3] = NAN;
  values[40] = INFINITY;
  values[70] = -INFINITY;
  for (const std::string& name : all_names()) {
    const CodecPtr codec = make_scaled(name);
    by_definition(*codec, values, 256);
    std::vector<std::byte> bytes(codec->row_bytes(256));
    for (const Isa isa : available_isas()) {
      set_row_kernels(isa);
      codec->encode_rows(TensorView(values.data(), DType::F32, {1, 256}), bytes);
      std::vector<float> out(256);
      codec->decode_rows(bytes, TensorView(out.data(), DType::F32, {1, 256}));
    }
  }
  set_row_kernels(active_isa());
}

/// Any bytes decode alike, and without harm: rows may come from files.
TEST(Scaled, AnyBytesDecodeAlike) {
  Rng rng(14);
  for (const std::string& name : all_names()) {
    const CodecPtr codec = make_scaled(name);
    std::vector<std::byte> bytes(codec->row_bytes(256));
    for (std::byte& b : bytes) b = static_cast<std::byte>(rng.next());
    std::vector<float> expected(256), found(256);
    codec->decode(bytes, expected);
    for (const Isa isa : available_isas()) {
      set_row_kernels(isa);
      codec->decode_rows(bytes, TensorView(found.data(), DType::F32, {1, 256}));
      for (std::size_t i = 0; i < 256; ++i) {
        if (std::isnan(expected[i]) && std::isnan(found[i])) continue;
        ASSERT_EQ(found[i], expected[i]) << name << ": " << i;
      }
    }
  }
  set_row_kernels(active_isa());
}

TEST(Scaled, SharedParametersAreOfTheWholeMatrix) {
  constexpr std::int64_t kRows = 300, kCols = 256;
  Rng rng(15);
  std::vector<float> values(kRows * kCols);
  for (float& x : values) x = rng.uniform() - 0.5f;
  values[5 * kCols + 7] = 3.0f;
  values[200 * kCols + 130] = -5.0f;
  const TensorView all(values.data(), DType::F32, {kRows, kCols});
  const auto rows_of = [&](const char* name) {
    const CodecPtr codec = make_scaled(name);
    std::vector<std::byte> bytes(kRows * codec->row_bytes(kCols));
    codec->encode_rows(all, bytes);
    std::vector<ScaledCodec::Stored> rows;
    for (std::size_t r = 0; r < kRows; ++r)
      rows.push_back(
          scaled(*codec).stored(std::span(bytes).subspan(r * codec->row_bytes(kCols), codec->row_bytes(kCols)), kCols));
    return rows;
  };
  for (const auto& row : rows_of("fp8-e4m3-tensor")) EXPECT_EQ(row.scales, (std::vector<float>{5.0f / 448.0f}));
  const auto blocks = rows_of("fp8-e4m3-b128");
  for (std::size_t r = 0; r < kRows; ++r) {
    EXPECT_EQ(blocks[r].scales, blocks[r / 128 * 128].scales);
    EXPECT_EQ(blocks[r].scales[0] == 3.0f / 448.0f, r < 128);
    EXPECT_EQ(blocks[r].scales[1] == 5.0f / 448.0f, r >= 128 && r < 256);
  }
  const auto nv = rows_of("nvfp4");
  for (const auto& row : nv) {
    float tensor;
    std::memcpy(&tensor, row.header.data(), sizeof(tensor));
    EXPECT_EQ(tensor, 5.0f / 2688.0f);
  }
}

TEST(Scaled, DoubleQuantizationFollowsTheBlocksOfTheMatrix) {
  constexpr std::int64_t kRows = 70, kCols = 576;  // 9 absmaxes a row: blocks of 256 end within rows
  Rng rng(16);
  std::vector<float> values(kRows * kCols);
  for (std::size_t i = 0; i < values.size(); ++i) values[i] = (rng.uniform() - 0.5f) * (1.0f + static_cast<float>(i / 9000));
  std::vector<float> absmax;
  for (std::size_t i = 0; i < values.size(); i += 64) {
    float a = 0;
    for (std::size_t j = i; j < i + 64; ++j) a = std::max(a, std::fabs(values[j]));
    absmax.push_back(a);
  }
  double sum = 0;
  for (const float a : absmax) sum += a;
  const auto offset = static_cast<float>(sum / static_cast<double>(absmax.size()));
  std::vector<float> expected;
  for (std::size_t i = 0; i < absmax.size(); ++i) {
    float nested = 0;
    for (std::size_t j = i / 256 * 256; j < std::min(absmax.size(), i / 256 * 256 + 256); ++j)
      nested = std::max(nested, std::fabs(absmax[j] - offset));
    const float t = (absmax[i] - offset) * (1.0f / nested);
    const auto nearest =
        std::ranges::min_element(signed_dynamic_map().values(), {}, [&](float v) { return std::fabs(v - t); });
    expected.push_back(*nearest * nested + offset);
  }
  const CodecPtr codec = make_scaled("nf4-dq");
  std::vector<std::byte> bytes(kRows * codec->row_bytes(kCols));
  codec->encode_rows(TensorView(values.data(), DType::F32, {kRows, kCols}), bytes);
  for (std::size_t r = 0; r < kRows; ++r) {
    const auto stored =
        scaled(*codec).stored(std::span(bytes).subspan(r * codec->row_bytes(kCols), codec->row_bytes(kCols)), kCols);
    for (std::size_t g = 0; g < 9; ++g) EXPECT_EQ(stored.scales[g], expected[r * 9 + g]) << r << ", " << g;
  }
}

}  // namespace
}  // namespace temper::quant
