// Products with encoded rows against the definition in double, on every instruction set that this CPU has.
#include "quant/dot.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>

#include "base/rng.h"
#include "quant/codec.h"
#include "quant/scaled_codec.h"

namespace temper::quant {
namespace {

/// Where blocks keep f16 parameters, of the formats whose bytes are drawn at random: every code and scale comes up.
struct BlockLayout {
  std::string_view name;
  std::size_t bytes;
  std::vector<std::size_t> halves;
};
const std::vector<BlockLayout>& block_layouts() {
  static const std::vector<BlockLayout> layouts = {{"q4_0", 18, {0}},     {"q8_0", 34, {0}},    {"q4_1", 20, {0, 2}},
                                                   {"q5_0", 22, {0}},     {"q5_1", 24, {0, 2}}, {"q4_k", 144, {0, 2}},
                                                   {"q5_k", 176, {0, 2}}, {"q6_k", 210, {208}}};
  return layouts;
}

std::vector<std::byte> random_rows(const Codec& codec, std::int64_t rows, std::int64_t cols, std::uint64_t seed) {
  Rng rng(seed);
  std::vector<std::byte> encoded(static_cast<std::size_t>(rows) * codec.row_bytes(cols));
  for (const BlockLayout& layout : block_layouts()) {
    if (layout.name != codec.name()) continue;
    for (std::byte& b : encoded) b = static_cast<std::byte>(rng.next());
    for (std::size_t block = 0; block < encoded.size(); block += layout.bytes)
      for (const std::size_t at : layout.halves) {
        const f16 scale = to_f16((rng.uniform() - 0.5f) * 0.02f);
        std::memcpy(encoded.data() + block + at, &scale, sizeof(scale));
      }
    return encoded;
  }
  std::vector<float> values(static_cast<std::size_t>(rows * cols));
  for (float& v : values) v = rng.uniform() - 0.5f;
  codec.encode_rows(TensorView(values.data(), DType::F32, {rows, cols}), encoded);
  return encoded;
}

double at(const TensorView& x, std::int64_t r, std::int64_t c) {
  const std::int64_t i = r * x.row_stride + c;
  return x.dtype == DType::BF16 ? static_cast<double>(to_float(x.as<bf16>()[i])) : static_cast<double>(x.as<float>()[i]);
}

void put(const TensorView& x, std::int64_t r, std::int64_t c, float value) {
  const std::int64_t i = r * x.row_stride + c;
  if (x.dtype == DType::BF16)
    x.as<bf16>()[i] = to_bf16(value);
  else
    x.as<float>()[i] = value;
}

/// A matrix whose rows lie apart.
struct Matrix {
  Tensor storage;
  TensorView view;
  Matrix(DType dtype, std::int64_t rows, std::int64_t cols, std::uint64_t seed)
      : storage(dtype, {rows, cols + 3}, true), view(storage.view().slice_cols(0, cols)) {
    Rng rng(seed);
    for (std::int64_t r = 0; r < rows; ++r)
      for (std::int64_t c = 0; c < cols; ++c) put(view, r, c, 2.0f * rng.uniform() - 1.0f);
  }
};

/// What a product multiplies: decode, rounded to bf16 where x is.
std::vector<double> operand(const Codec& codec, std::span<const std::byte> row, std::int64_t cols, DType x) {
  std::vector<float> values(static_cast<std::size_t>(cols));
  codec.decode(row, values);
  std::vector<double> out;
  for (const float v : values) out.push_back(static_cast<double>(x == DType::BF16 ? to_float(to_bf16(v)) : v));
  return out;
}

class DotTest : public ::testing::TestWithParam<Isa> {
 protected:
  DotTest() { set_dot_kernels(GetParam()); }
  ~DotTest() override { set_dot_kernels(active_isa()); }
};

void check(const Codec& codec, std::int64_t cols, std::int64_t m, DType x_type, DType y_type, bool accumulate) {
  SCOPED_TRACE(fmt::format("{} [{}, {}] {} -> {}{}", codec.name(), m, cols, dtype_name(x_type), dtype_name(y_type),
                           accumulate ? " +=" : ""));
  const std::int64_t rows = 37;
  const std::vector<std::byte> encoded = random_rows(codec, rows, cols, 1);
  const Matrix x(x_type, m, cols, 2), y(y_type, m, rows, 3), before(y_type, m, rows, 3);
  codec.dot_rows(encoded, x.view, y.view, accumulate);
  for (std::int64_t n = 0; n < rows; ++n) {
    const std::vector<double> w = operand(
        codec, std::span(encoded).subspan(static_cast<std::size_t>(n) * codec.row_bytes(cols), codec.row_bytes(cols)), cols,
        x_type);
    for (std::int64_t i = 0; i < m; ++i) {
      double sum = 0, magnitude = 0;
      for (std::int64_t k = 0; k < cols; ++k) {
        const double product = w[static_cast<std::size_t>(k)] * at(x.view, i, k);
        sum += product;
        magnitude += std::abs(product);
      }
      const double start = accumulate ? at(before.view, i, n) : 0.0;
      // At most one rounding per product and one per sum, each of a partial sum no larger than the magnitudes together;
      // then that of the accumulation, and of y's own type.
      const double error = 0x1p-24 * (static_cast<double>(2 * cols + 8) * magnitude + std::abs(start + sum)) +
                           (y_type == DType::BF16 ? 0x1p-8 * std::abs(sum) : 0.0);
      ASSERT_NEAR(at(y.view, i, n), start + sum, error) << i << ", " << n;
    }
  }
}

/// Every format that may have a kernel of its own, and a few of the many that are decoded first.
std::vector<const Codec*> formats() {
  std::vector<const Codec*> found = codecs();
  std::erase_if(found, [](const Codec* codec) {
    const auto* scaled = dynamic_cast<const ScaledCodec*>(codec);
    return !codec->encodes() || (scaled && !scaled->has_own_kernels());
  });
  for (const char* name :
       {"int3-asym-g32-bf16", "nvfp4", "nf4-dq", "int4-sym-g32-bf16", "int4-sym-g128-bf16", "int4-ctsym-g128-bf16",
        "int4-tinygemm-g128-bf16", "int8-sym-g32-bf16", "int8-symeps", "int8-sym-bf16", "int8-ctsym-bf16", "fp8-e4m3",
        "fp8-e4m3-bf16", "fp8-e4m3-ct", "nf4", "fp4", "mxfp4", "mxfp4-floor", "mxfp4-even"})
    found.push_back(find_codec(name));
  return found;
}

TEST_P(DotTest, EqualsTheDefinition) {
  for (const Codec* codec : formats())
    for (const std::int64_t cols : {256, 512, 768, 576, 96}) {
      if (!codec->fits(cols)) continue;
      for (const std::int64_t m : {1, 2, 3, 7, 8}) {
        check(*codec, cols, m, DType::BF16, DType::BF16, false);
        check(*codec, cols, m, DType::F32, DType::F32, m % 2 == 0);
      }
      check(*codec, cols, 1, DType::BF16, DType::F32, true);
    }
}

TEST_P(DotTest, PerRowFormatTakesAnyLength) {
  for (const std::int64_t cols : {1, 31, 32, 33, 63, 100, 130, 191})
    for (const std::int64_t m : {1, 2, 5})
      for (const DType x : {DType::BF16, DType::F32}) check(*find_codec("int8-sym"), cols, m, x, DType::F32, false);
}

/// A row of x with a single one picks a weight: the operand to the bit, whichever way it was decoded.
TEST_P(DotTest, OperandsAreThoseOfDecode) {
  const std::int64_t cols = 768;
  for (const Codec* codec : formats())
    for (const DType type : {DType::BF16, DType::F32}) {
      if (!codec->fits(cols)) continue;
      const std::vector<std::byte> encoded = random_rows(*codec, 1, cols, 7);
      const std::vector<double> expected = operand(*codec, encoded, cols, type);
      const Matrix x(type, 1, cols, 0), y(DType::F32, 1, 1, 0);
      for (std::int64_t k = 0; k < cols; ++k) put(x.view, 0, k, 0.0f);
      for (std::int64_t k = 0; k < cols; ++k) {
        put(x.view, 0, k, 1.0f);
        codec->dot_rows(encoded, x.view, y.view, false);
        put(x.view, 0, k, 0.0f);
        ASSERT_EQ(at(y.view, 0, 0), expected[static_cast<std::size_t>(k)]) << codec->name() << " " << k;
      }
    }
}

/// Cutting the rows among threads changes nothing.
TEST_P(DotTest, RowsDoNotDependOnEachOther) {
  const std::int64_t rows = 50, cols = 512;
  for (const Codec* codec : formats()) {
    if (!codec->fits(cols)) continue;
    const std::vector<std::byte> encoded = random_rows(*codec, rows, cols, 9);
    const Matrix x(DType::BF16, 3, cols, 2), whole(DType::F32, 3, rows, 0), parts(DType::F32, 3, rows, 1);
    codec->dot_rows(encoded, x.view, whole.view, false);
    const EncodedView view{codec, rows, cols, encoded};
    for (const auto& [begin, end] : {std::pair{0, 1}, std::pair{1, 18}, std::pair{18, 50}})
      codec->dot_rows(view.row_range(begin, end), x.view, parts.view.slice_cols(begin, end), false);
    for (std::int64_t m = 0; m < 3; ++m)
      for (std::int64_t n = 0; n < rows; ++n) ASSERT_EQ(at(whole.view, m, n), at(parts.view, m, n)) << codec->name();
  }
}

std::string isa_test_name(const ::testing::TestParamInfo<Isa>& tested) {
  std::string name(isa_name(tested.param));
  std::erase(name, '-');
  return name;
}
INSTANTIATE_TEST_SUITE_P(Isas, DotTest, ::testing::ValuesIn(available_isas()), isa_test_name);

}  // namespace
}  // namespace temper::quant
