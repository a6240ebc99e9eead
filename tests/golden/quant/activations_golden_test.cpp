// Activations as torchao rounds them (tools/oracles/make_activation_goldens.py), in f32 and in bf16, by the scalar
// definition and by the fast path of every instruction set.
#include <gtest/gtest.h>

#include <algorithm>

#include "arrays.h"
#include "quant/activations.h"

namespace temper::quant {
namespace {

constexpr std::int64_t kCols = 256;

std::vector<float> widened(const Array& array) {
  std::vector<float> values(array.bytes.size() / sizeof(bf16));
  for (std::size_t i = 0; i < values.size(); ++i) {
    bf16 x;
    std::memcpy(&x, array.bytes.data() + i * sizeof(x), sizeof(x));
    values[i] = to_float(x);
  }
  return values;
}

bool all_zero(std::span<const float> row) {
  return std::ranges::all_of(row, [](float v) { return v == 0.0f; });
}

/// Torchao makes NaN of a row of zeros in some formats; ours are zeros.
void expect_rows(std::span<const float> found, std::span<const float> expected, std::span<const float> x,
                 const std::string& what) {
  ASSERT_EQ(found.size(), expected.size()) << what;
  for (std::size_t i = 0; i < found.size(); ++i) {
    const bool zeros = all_zero(x.subspan(i / kCols * kCols, kCols));
    // As numbers: a code has one zero, torch may keep its sign.
    ASSERT_EQ(found[i], zeros ? 0.0f : expected[i]) << what << ": row " << i / kCols << ", column " << i % kCols;
  }
}

/// The definition, each row as a matrix of its own.
std::vector<float> by_definition(const Codec& codec, std::span<const float> x) {
  std::vector<float> out(x.size()), params(static_cast<std::size_t>(codec.params_per_row(kCols)));
  std::vector<std::byte> encoded(codec.row_bytes(kCols));
  for (std::size_t at = 0; at < x.size(); at += kCols) {
    codec.fit(x.subspan(at, kCols), params);
    codec.join(params, 1, kCols);
    codec.round(x.subspan(at, kCols), params, encoded);
    codec.decode(encoded, std::span(out).subspan(at, kCols));
  }
  return out;
}

struct ActivationGolden : ::testing::TestWithParam<std::string> {};

TEST_P(ActivationGolden, EqualsTorchao) {
  static const auto arrays = read_arrays("activations.bin");
  const Codec& format = activation_codec(GetParam());
  std::vector<float> x = arrays.at("x").floats();
  const std::int64_t rows = arrays.at("x").rows;
  std::vector<bf16> x16;
  for (const float v : x) x16.push_back(to_bf16(v));
  std::vector<float> rounded;
  for (const bf16 v : x16) rounded.push_back(to_float(v));

  const std::vector<float> expected = arrays.at(GetParam() + ".f32").floats(),
                           expected16 = widened(arrays.at(GetParam() + ".bf16"));
  const Codec &f32 = in_dtype(format, DType::F32), &b16 = in_dtype(format, DType::BF16);
  expect_rows(by_definition(f32, x), expected, x, "definition");
  std::vector<float> defined16 = by_definition(b16, rounded);
  for (float& v : defined16) v = to_float(to_bf16(v));
  expect_rows(defined16, expected16, rounded, "definition in bf16");

  for (const Isa isa : available_isas()) {
    set_row_kernels(isa);
    std::vector<float> found = x, found16(x.size());
    const TensorView view(found.data(), DType::F32, {rows, kCols});
    round_activations(f32, view, view);
    expect_rows(found, expected, x, fmt::format("{}", isa_name(isa)));
    std::vector<bf16> out(x.size());
    round_activations(b16, TensorView(x16.data(), DType::BF16, {rows, kCols}),
                      TensorView(out.data(), DType::BF16, {rows, kCols}));
    std::ranges::transform(out, found16.begin(), [](bf16 v) { return to_float(v); });
    expect_rows(found16, expected16, rounded, fmt::format("{} in bf16", isa_name(isa)));
  }
  set_row_kernels(active_isa());
}

INSTANTIATE_TEST_SUITE_P(Formats, ActivationGolden,
                         ::testing::Values("int8-asym", "fp8-e4m3", "int8-symeps", "mxfp8-e4m3", "mxfp4", "nvfp4",
                                           "nvfp4-local"),
                         [](const auto& format) {
                           std::string name = format.param;
                           std::ranges::replace(name, '-', '_');
                           return name;
                         });

/// Fast paths equal the definition for every format that a scheme may round activations to, also of few and strange rows.
TEST(ActivationFormats, FastPathsEqualTheDefinition) {
  static const auto arrays = read_arrays("activations.bin");
  std::vector<float> x = arrays.at("x").floats();
  for (const std::string& name : activation_formats()) {
    const Codec& codec = in_dtype(activation_codec(name), DType::F32);
    if (has_static_range(codec)) continue;  // these have a row only together with a range: static_range_test.cpp
    const std::vector<float> expected = by_definition(codec, x);
    for (const Isa isa : available_isas()) {
      set_row_kernels(isa);
      std::vector<float> found(x.size());
      round_activations(codec, TensorView(x.data(), DType::F32, {arrays.at("x").rows, kCols}),
                        TensorView(found.data(), DType::F32, {arrays.at("x").rows, kCols}));
      expect_same_floats(found, expected, kCols, fmt::format("{} on {}", name, isa_name(isa)));
    }
    set_row_kernels(active_isa());
  }
}

TEST(ActivationFormats, RowsThatAreNotFiniteStayAsTheyAre) {
  for (const float bad : {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity()}) {
    std::vector<float> x, out(2 * 64);
    for (int i = 0; i < 2 * 64; ++i) x.push_back(static_cast<float>(i - 90) * 0.017f);
    x[5] = bad;
    round_activations(activation_codec("int8-asym"), TensorView(x.data(), DType::F32, {2, 64}),
                      TensorView(out.data(), DType::F32, {2, 64}));
    EXPECT_EQ(std::memcmp(out.data(), x.data(), 64 * sizeof(float)), 0);
    std::vector<float> alone(x.begin() + 64, x.end());
    const TensorView view(alone.data(), DType::F32, {1, 64});
    round_activations(activation_codec("int8-asym"), view, view);
    EXPECT_EQ(std::memcmp(out.data() + 64, alone.data(), 64 * sizeof(float)), 0);
  }
}

}  // namespace
}  // namespace temper::quant
