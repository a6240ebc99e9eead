// Integer products against their definition, bit for bit, and against the decoded operands in double.
#include "quant/int_product.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>

#include "base/rng.h"
#include "quant/codec.h"

namespace temper::quant {
namespace {

std::vector<float> random_values(std::int64_t n, std::uint64_t seed) {
  Rng rng(seed);
  std::vector<float> values(static_cast<std::size_t>(n));
  for (float& v : values) v = (rng.uniform() - 0.4f) * (rng.uniform() < 0.02f ? 8.0f : 1.0f);
  return values;
}

struct Weights {
  std::vector<std::byte> bytes;
  EncodedView view;
  std::vector<float> decoded;

  Weights(const Codec& codec, std::int64_t rows, std::int64_t cols) {
    std::vector<float> values = random_values(rows * cols, 1);
    bytes.resize(static_cast<std::size_t>(rows) * codec.row_bytes(cols));
    codec.encode_rows(TensorView(values.data(), DType::F32, {rows, cols}), bytes);
    view = {&codec, rows, cols, bytes};
    decoded.resize(values.size());
    codec.decode_rows(bytes, TensorView(decoded.data(), DType::F32, {rows, cols}));
  }
};

/// Activations as they are decoded from their 8 bits.
std::vector<float> decoded_input(const InputFormat& format, const TensorView& x) {
  std::vector<float> values(static_cast<std::size_t>(x.shape.numel()));
  const TensorView wide(values.data(), DType::F32, x.shape);
  if (format.codec) {
    std::vector<std::byte> encoded(static_cast<std::size_t>(x.rows()) * format.codec->row_bytes(x.cols()));
    format.codec->encode_rows(x, encoded);
    format.codec->decode_rows(encoded, wide);
    return values;
  }
  for (std::int64_t i = 0; i < x.shape.numel(); ++i)
    values[static_cast<std::size_t>(i)] = x.dtype == DType::BF16 ? to_float(x.as<bf16>()[i]) : x.as<float>()[i];
  round_activations(format.grid, wide, wide);
  return values;
}

struct Case {
  const char* weight;
  const char* input;  // a codec, or "grid"
  std::int64_t cols;
};
constexpr Case kCases[] = {
    {"int4-sym-g32", "int8-asym", 96},
    {"int4-sym-g32", "int8-sym", 576},
    {"int4-sym-g64", "int8-asym", 192},
    {"int4-sym-g128-bf16", "int8-asym", 256},
    {"int8-sym", "int8-asym", 100},
    {"int8-sym", "int8-asym", 576},
    {"int8-sym", "int8-sym", 31},
    {"int8-symeps-bf16", "int8-asym", 577},
    {"int8-sym-g32-bf16", "int8-sym", 96},
    {"int4-asym-g32", "int8-asym", 96},
    {"int4-asym-g64-bf16", "int8-sym", 192},
    {"int4-sym-g32-f16", "int8-asym", 96},
    {"int4-tinygemm-g32", "int8-sym", 96},
    {"int4-tinygemm-g128-bf16", "int8-asym", 256},
    {"q4_0", "int8-asym", 96},
    {"q8_0", "int8-asym", 96},
    {"q6_k", "int8-asym", 256},
    {"q4_0", "grid", 96},
    {"q4_1", "grid", 576},
    {"q5_0", "grid", 96},
    {"q5_1", "grid", 96},
    {"q8_0", "grid", 576},
    {"q2_k", "grid", 512},
    {"q3_k", "grid", 256},
    {"q4_k", "grid", 512},
    {"q5_k", "grid", 256},
    {"q6_k", "grid", 512},
};

InputFormat input_format(const Case& tested) {
  if (std::string_view(tested.input) == "grid") return {activation_grid(*find_codec(tested.weight)), nullptr};
  return {ActivationGrid::None, find_codec(tested.input)};
}

struct Product {
  Arena arena{1 << 22};
  IntegerInput input;
  Tensor y;

  Product(const Case& tested, const Weights& weights, const TensorView& x, DType y_type, bool accumulate = false)
      : input(arena, input_format(tested), x.rows(), x.cols(), minimum_group(*weights.view.codec, x.cols())),
        y(y_type, {x.rows(), weights.view.rows}, true) {
    if (accumulate)
      for (float& v : y.span<float>()) v = 0.5f;
    input.round(x, 0, x.rows());
    integer_product(weights.view, input, 0, x.rows(), y, accumulate);
  }
};

std::vector<std::byte> bytes_of(const Tensor& x) {
  std::vector<std::byte> bytes(x->bytes());
  std::memcpy(bytes.data(), x->data, bytes.size());
  return bytes;
}

class IntProductTest : public ::testing::TestWithParam<IntKernels> {
 protected:
  IntProductTest() { set_int_kernels(GetParam()); }
  ~IntProductTest() override { set_int_kernels(int_kernels_of(active_isa())); }
};

/// The product of the decoded operands in double, up to the roundings of the definition: an integer's to f32, two for a
/// product of scales, one of the product, one of each sum and of the minimum's part, one of x's scale; each of a partial sum
/// no larger than the magnitudes together. With zero points, decode itself rounds (q - z) · s.
TEST_P(IntProductTest, EqualsTheDecodedOperands) {
  for (const Case& tested : kCases)
    for (const std::int64_t m : {1, 2, 5, 13}) {
      SCOPED_TRACE(fmt::format("{} x {} [{}, {}]", tested.weight, tested.input, m, tested.cols));
      ASSERT_TRUE(has_integer_product(*find_codec(tested.weight), input_format(tested), tested.cols));
      const std::int64_t n = 37, k = tested.cols;
      const Weights w(*find_codec(tested.weight), n, k);
      std::vector<float> values = random_values(m * k, 2);
      const TensorView x(values.data(), DType::F32, {m, k});
      const std::vector<float> rounded = decoded_input(input_format(tested), x);
      const Product product(tested, w, x, DType::F32);
      const double groups = static_cast<double>(k) / 16;
      for (std::int64_t i = 0; i < m; ++i)
        for (std::int64_t j = 0; j < n; ++j) {
          double sum = 0, magnitude = 0;
          for (std::int64_t p = 0; p < k; ++p) {
            const double term = static_cast<double>(rounded[static_cast<std::size_t>(i * k + p)]) *
                                static_cast<double>(w.decoded[static_cast<std::size_t>(j * k + p)]);
            sum += term;
            magnitude += std::abs(term);
          }
          // A code times a scale is 0 or larger than the minimum that is added to it, or smaller by less than 64 times.
          const double part = minimum_group(*w.view.codec, k) > 0 ? 64.0 : 1.0;
          const double error = 0x1p-24 * (2 * groups + 8) * part * magnitude;
          ASSERT_NEAR(static_cast<double>(product.y.span<float>()[static_cast<std::size_t>(i * n + j)]), sum, error)
              << i << ", " << j;
        }
    }
}

/// Every compilation, and any cut of rows and columns, gives the bits of the scalar one.
TEST_P(IntProductTest, SameBitsEverywhere) {
  for (const Case& tested : kCases)
    for (const DType type : {DType::F32, DType::BF16}) {
      SCOPED_TRACE(fmt::format("{} x {} {}", tested.weight, tested.input, dtype_name(type)));
      const std::int64_t m = 14, n = 75, k = tested.cols;
      const Weights w(*find_codec(tested.weight), n, k);
      const std::vector<float> values = random_values(m * k, 3);
      const Tensor x(type, {m, k});
      for (std::size_t i = 0; i < values.size(); ++i) {
        if (type == DType::F32)
          x.span<float>()[i] = values[i];
        else
          x.span<bf16>()[i] = to_bf16(values[i]);
      }
      set_int_kernels(IntKernels::Generic);
      const Product expected(tested, w, x, DType::F32, true), expected_half(tested, w, x, DType::BF16);
      set_int_kernels(GetParam());
      const Product found(tested, w, x, DType::F32, true), found_half(tested, w, x, DType::BF16);
      ASSERT_EQ(bytes_of(expected.y), bytes_of(found.y));
      ASSERT_EQ(bytes_of(expected_half.y), bytes_of(found_half.y));
      const Tensor parts(DType::F32, {m, n}, true);
      for (float& v : parts.span<float>()) v = 0.5f;
      for (const auto& [begin, end] : {std::pair{0, 1}, std::pair{1, 34}, std::pair{34, 75}})
        for (const auto& [first, last] : {std::pair{0, 1}, std::pair{1, 3}, std::pair{3, 6}, std::pair{6, 14}})
          integer_product({w.view.codec, end - begin, k, w.view.row_range(begin, end)}, found.input, first, last,
                          parts->slice_rows(first, last).slice_cols(begin, end), true);
      ASSERT_EQ(bytes_of(expected.y), bytes_of(parts));
    }
}

/// The definition written out, for one format of each kind: a scale per token with a zero point, one per block, minima.
TEST(IntProductDefinition, Holds) {
  for (const Case& tested : {Case{"int4-sym-g32", "int8-asym", 96}, Case{"q8_0", "grid", 96}, Case{"q4_1", "grid", 96}}) {
    SCOPED_TRACE(tested.weight);
    const std::int64_t n = 5, k = tested.cols;
    const Codec& codec = *find_codec(tested.weight);
    const Weights w(codec, n, k);
    std::vector<float> values = random_values(k, 4);
    const Product product(tested, w, TensorView(values.data(), DType::F32, {1, k}), DType::F32);
    const IntegerInput& x = product.input;
    const auto* a = x.codes.as<const std::uint8_t>();
    const int zero = x.zeros ? x.zeros.as<const std::int32_t>()[0] : 128;
    const bool token = x.format.grid == ActivationGrid::None;
    const std::size_t bytes = codec.row_bytes(k) / static_cast<std::size_t>(k / 32);
    std::vector<std::int32_t> codes(static_cast<std::size_t>(k));
    for (std::int64_t j = 0; j < n; ++j) {
      const auto row = w.view.row_range(j, j + 1);
      codec.codes(row, codes);
      float total = 0;
      for (std::int64_t g = 0; g < k / 32; ++g) {
        std::int32_t dot = 0, sum = 0;
        for (std::int64_t p = g * 32; p < (g + 1) * 32; ++p) {
          dot += (a[p] - zero) * codes[static_cast<std::size_t>(p)];
          sum += a[p] - zero;
        }
        const std::byte* block = row.data() + static_cast<std::size_t>(g) * bytes;
        f16 half[2];
        std::memcpy(half, block, sizeof(half));
        float scale = to_float(half[0]);
        if (token) std::memcpy(&scale, block, sizeof(scale));
        const float sx = x.scales.as<const float>()[token ? 0 : g];
        const volatile float both = token ? scale : scale * sx;  // volatile: rounded where it stands
        const volatile float term = static_cast<float>(dot) * both;
        total += term;
        if (tested.weight != std::string_view("q4_1")) continue;
        const volatile float input = sx * static_cast<float>(sum);
        const volatile float minimum = to_float(half[1]) * input;
        total += minimum;
      }
      if (token) total *= x.scales.as<const float>()[0];
      ASSERT_EQ(product.y.span<float>()[static_cast<std::size_t>(j)], total) << j;
    }
  }
}

TEST(IntProductDefinition, RefusesWhatHasNoKernel) {
  const Codec &nf4 = *find_codec("nf4"), &q4_0 = *find_codec("q4_0"), &int4 = *find_codec("int4-sym-g32");
  const InputFormat tokens{ActivationGrid::None, find_codec("int8-asym")};
  EXPECT_FALSE(has_integer_product(nf4, tokens, 128));
  EXPECT_FALSE(has_integer_product(int4, {ActivationGrid::Blocks32, nullptr}, 128));
  EXPECT_FALSE(has_integer_product(q4_0, {ActivationGrid::Super256, nullptr}, 256));
  EXPECT_FALSE(has_integer_product(int4, {ActivationGrid::None, find_codec("int8-sym-g32")}, 128));
  EXPECT_FALSE(has_integer_product(int4, {}, 128));
  EXPECT_FALSE(has_integer_product(int4, tokens, 100));
  EXPECT_FALSE(has_integer_product(*find_codec("int8-sym"), tokens, 65537));
  Arena arena(1 << 16);
  EXPECT_THROW(IntegerInput(arena, {ActivationGrid::None, &nf4}, 1, 64, 0), LogicError);
}

std::string kernels_test_name(const ::testing::TestParamInfo<IntKernels>& tested) {
  constexpr const char* kNames[] = {"Generic", "Avx2", "Avx2Vnni", "Avx512Vnni"};
  return kNames[static_cast<int>(tested.param)];
}
INSTANTIATE_TEST_SUITE_P(Kernels, IntProductTest, ::testing::ValuesIn(available_int_kernels()), kernels_test_name);

}  // namespace
}  // namespace temper::quant
