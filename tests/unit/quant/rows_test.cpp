// Fast paths against the scalar definition, bit for bit, on every instruction set that this CPU has.
#include <gtest/gtest.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <map>

#include "base/rng.h"
#include "quant/codec.h"
#include "quant/row_kernels.h"
#include "quant/scaled_codec.h"

namespace temper::quant {
namespace {

constexpr std::int64_t kCols = 256;

/// Finite rows of kCols bf16 values: every kind that has a corner, then random magnitudes and random bit patterns.
std::vector<float> make_rows() {
  Rng rng(3);
  std::vector<float> rows;
  const auto add = [&](auto&& value) {
    for (std::int64_t i = 0; i < kCols; ++i) rows.push_back(to_float(to_bf16(static_cast<float>(value(i)))));
  };
  for (const float c : {0.0f, -0.0f, 0.7f, -0.7f, 1e-20f, -3e-39f, 1e-40f, 3e38f, -3e38f}) add([&](auto) { return c; });
  add([](auto i) { return i % 2 ? -0.0f : 0.0f; });
  for (const float scale : {0.02f, 1.0f, 1e36f, 1e-36f, 2e-38f, 1e-38f, 1e-40f}) {
    add([&](auto) { return (rng.uniform() - 0.5f) * scale; });
    add([&](auto) { return -rng.uniform() * scale; });
    add([&](auto) { return rng.uniform() * scale; });
  }
  // Codes at ties: multiples of half a step, with the value that fixes the step in each group.
  for (const float largest : {-8.0f, 8.0f, 7.5f, 127.0f, 127.5f}) {
    add([&](auto i) { return i % 32 == 0 ? largest : (static_cast<float>(rng.below(15)) - 7.0f) / 2; });
  }
  add([&](auto i) { return i % 16 == 0 ? 12.0f : (static_cast<float>(rng.below(49)) - 24.0f) / 2; });  // E2M1's, doubled
  add([&](auto i) { return i % 32 == 7 ? 1.0f : i % 32 == 3 ? -1.0f : 0.25f; });
  add([&](auto i) { return i % 32 == 7 ? -1.0f : i % 32 == 3 ? 1.0f : 0.25f; });
  for (int repeat = 0; repeat < 40; ++repeat) {
    const std::uint32_t mask = repeat % 2 ? 0xffff0000u : 0x83ff0000u;  // any magnitude, or near ones
    add([&](auto) {
      std::uint32_t bits = rng.next() & mask;
      if (repeat % 2 == 0) bits |= 0x3c000000u;
      if ((bits & 0x7f800000u) == 0x7f800000u) bits &= 0x807fffffu;
      return std::bit_cast<float>(bits);
    });
  }
  return rows;
}

/// Rows of `cols` with a stride, as BF16 or F32.
struct Matrix {
  Tensor storage;
  TensorView view;

  Matrix(DType dtype, std::int64_t rows, std::int64_t cols) : storage(dtype, {rows, cols + 5}, true) {
    view = storage.view().slice_cols(0, cols);
  }
  void set(std::span<const float> values) const {
    for (std::int64_t r = 0; r < view.rows(); ++r)
      for (std::int64_t c = 0; c < view.cols(); ++c) {
        const float x = values[r * view.cols() + c];
        if (view.dtype == DType::F32)
          view.as<float>()[r * view.row_stride + c] = x;
        else
          view.as<bf16>()[r * view.row_stride + c] = to_bf16(x);
      }
  }
  std::uint32_t bits(std::int64_t r, std::int64_t c) const {
    const std::int64_t at = r * view.row_stride + c;
    return view.dtype == DType::F32 ? std::bit_cast<std::uint32_t>(view.as<float>()[at]) : view.as<bf16>()[at].bits;
  }
};

struct Reference {
  std::vector<std::byte> encoded;
  std::vector<float> decoded;

  Reference(const Codec& codec, std::span<const float> values, std::int64_t cols)
      : encoded(values.size() / cols * codec.row_bytes(cols)), decoded(values.size()) {
    const std::size_t bytes = codec.row_bytes(cols);
    std::vector<float> params(codec.params_per_row(cols));
    for (std::size_t r = 0; r * cols < values.size(); ++r) {
      const auto row = std::span(encoded).subspan(r * bytes, bytes);
      codec.fit(values.subspan(r * cols, cols), params);
      codec.round(values.subspan(r * cols, cols), params, row);
      codec.decode(row, std::span(decoded).subspan(r * cols, cols));
    }
  }
};

void check_rows(const Codec& codec, std::span<const float> values, std::int64_t cols) {
  const std::int64_t rows = static_cast<std::int64_t>(values.size()) / cols;
  const Reference reference(codec, values, cols);
  for (const Isa isa : available_isas()) {
    set_row_kernels(isa);
    for (const DType dtype : {DType::F32, DType::BF16}) {
      SCOPED_TRACE(fmt::format("{} {} {} cols {}", codec.name(), isa_name(isa), dtype_name(dtype), cols));
      Matrix matrix(dtype, rows, cols);
      matrix.set(values);
      std::vector<std::byte> encoded(reference.encoded.size());
      codec.encode_rows(matrix.view, encoded);
      const auto different = std::ranges::mismatch(encoded, reference.encoded);
      ASSERT_EQ(different.in1, encoded.end())
          << "row " << (different.in1 - encoded.begin()) / static_cast<std::ptrdiff_t>(codec.row_bytes(cols));
      std::vector<float> params(static_cast<std::size_t>(rows * codec.params_per_row(cols)));
      codec.fit_rows(matrix.view, params);
      codec.join(params, rows, cols);
      std::ranges::fill(encoded, std::byte{0});
      codec.round_rows(matrix.view, params, encoded);
      ASSERT_TRUE(std::ranges::equal(encoded, reference.encoded)) << "fit and round apart";
      codec.decode_rows(encoded, matrix.view);
      for (std::int64_t i = 0; i < rows * cols; ++i) {
        const float x = reference.decoded[i];
        const std::uint32_t expected = dtype == DType::F32 ? std::bit_cast<std::uint32_t>(x) : to_bf16(x).bits;
        // The sign of a NaN that multiplication makes is the processor's choice.
        const std::uint32_t ignored = std::isnan(x) ? (dtype == DType::F32 ? 0x80000000u : 0x8000u) : 0;
        ASSERT_EQ(matrix.bits(i / cols, i % cols) | ignored, expected | ignored)
            << i / cols << ", " << i % cols << ": " << x;
      }
    }
  }
  set_row_kernels(active_isa());
}

/// Those that have kernels of their own; the others of the table are in scaled_test.cpp.
std::vector<const Codec*> encoders() {
  std::vector<const Codec*> found = codecs_that_fit(kCols);
  std::erase_if(found, [](const Codec* codec) {
    const auto* scaled = dynamic_cast<const ScaledCodec*>(codec);
    return scaled && !scaled->has_own_kernels();
  });
  return found;
}

TEST(Rows, FastPathsEqualTheDefinition) {
  const std::vector<float> rows = make_rows();
  for (const Codec* codec : encoders()) check_rows(*codec, rows, kCols);
}

TEST(Rows, PerRowFormatTakesAnyLength) {
  const std::vector<float> rows = make_rows();
  const Codec& codec = *find_codec("int8-sym");
  for (const std::int64_t cols : {1, 2, 15, 31, 32, 33, 63, 100, 191}) {
    check_rows(codec, std::span(rows).first(rows.size() / static_cast<std::size_t>(cols) * static_cast<std::size_t>(cols)),
               cols);
  }
}

TEST(Rows, ValuesThatAreNotFiniteAreSurvived) {
  std::vector<float> values(kCols, 1.0f);
  values[3] = NAN;
  values[40] = INFINITY;
  values[70] = -INFINITY;
  for (const Codec* codec : encoders())
    for (const Isa isa : available_isas()) {
      set_row_kernels(isa);
      Matrix matrix(DType::BF16, 1, kCols);
      matrix.set(values);
      std::vector<std::byte> encoded(codec->row_bytes(kCols));
      codec->encode_rows(matrix.view, encoded);
      Reference reference(*codec, values, kCols);  // bytes without meaning, but no trap and no out-of-range code
    }
  set_row_kernels(active_isa());
}

TEST(Rows, DecodedErrorIsWithinHalfAStep) {
  Rng rng(5);
  std::vector<float> values(kCols), params;
  for (float& x : values) x = rng.uniform() - 0.5f;
  for (const Codec* codec : encoders()) {
    const Reference reference(*codec, values, kCols);
    params.resize(codec->params_per_row(kCols));
    if (!codec->name().starts_with("int") && codec->name() != "q8_0") continue;  // others search, or clip
    if (static_cast<std::int64_t>(params.size()) != kCols / (codec->group() ? codec->group() : kCols)) continue;
    codec->fit(values, params);
    const std::int64_t group = kCols / static_cast<std::int64_t>(params.size());
    for (std::int64_t i = 0; i < kCols; ++i) {
      const double step = std::fabs(params[i / group]);
      // Half a step. Three f32 roundings of at most 128 steps, and the decoded product's, move that by 4 * 128 * 2^-24
      // steps; an f16 scale is off by 2^-11 of up to 127 steps.
      const double clipped = 0.5 + 4 * 128 * 0x1p-24;
      const double stored = codec->name().starts_with("q") ? 127 * 0x1p-11 : 0;
      ASSERT_LE(std::fabs(values[i] - reference.decoded[i]), step * (clipped + stored)) << codec->name() << ": " << i;
    }
  }
}

std::pair<int, int> code_range(const Codec& codec) {
  static const std::map<std::string_view, std::pair<int, int>> ranges = {
      {"q8_0", {-127, 127}}, {"q5_0", {-16, 15}},       {"q4_1", {0, 15}},        {"q5_1", {0, 31}},
      {"q2_k", {0, 3}},      {"q3_k", {-4, 3}},         {"q4_k", {0, 15}},        {"q5_k", {0, 31}},
      {"q6_k", {-32, 31}},   {"iq4_nl", {-127, 113}},   {"iq4_xs", {-127, 113}},  {"tq1_0", {-1, 1}},
      {"tq2_0", {-1, 1}},    {"gguf-mxfp4", {-12, 12}}, {"gguf-nvfp4", {-12, 12}}};
  if (const auto row = ranges.find(codec.name()); row != ranges.end()) return row->second;
  return codec.row_bytes(kCols) < kCols ? std::pair{-8, 7} : std::pair{-128, 127};
}

TEST(Stats, CountsCodesOneByOne) {
  const std::vector<float> rows = make_rows();
  const std::int64_t n = static_cast<std::int64_t>(rows.size()) / kCols;
  std::vector<float> moved = rows;
  Rng rng(6);
  for (float& x : moved)
    if (rng.below(5) == 0) x *= 0.8f;
  for (const Codec* codec : encoders()) {
    const Reference now(*codec, moved, kCols), before(*codec, rows, kCols);
    const auto [low, high] = code_range(*codec);
    CodeStats expected{n * kCols, 0, 0};
    std::vector<std::int32_t> a(kCols), b(kCols);
    const std::size_t bytes = codec->row_bytes(kCols);
    for (std::int64_t r = 0; r < n; ++r) {
      codec->codes(std::span(now.encoded).subspan(r * bytes, bytes), a);
      codec->codes(std::span(before.encoded).subspan(r * bytes, bytes), b);
      for (std::int64_t i = 0; i < kCols; ++i) {
        expected.changed += a[i] != b[i];
        expected.saturated += a[i] == low || a[i] == high;
      }
    }
    ASSERT_GT(expected.changed, 0);
    ASSERT_GT(expected.saturated, 0);
    for (const Isa isa : available_isas()) {
      set_row_kernels(isa);
      // As one long row too: lane sums must carry over in time.
      for (const std::int64_t cols : {kCols, codec->group() == 0 ? kCols : n * kCols}) {
        const CodeStats found = codec->stats(now.encoded, before.encoded, n * kCols / cols, cols);
        EXPECT_EQ(found.total, expected.total) << codec->name();
        EXPECT_EQ(found.changed, expected.changed) << codec->name();
        EXPECT_EQ(found.saturated, expected.saturated) << codec->name();
      }
      EXPECT_EQ(codec->stats(now.encoded, {}, n, kCols).changed, 0);
    }
    set_row_kernels(active_isa());
  }
}

TEST(Stats, LongRunsOfChangesDoNotOverflowLanes) {
  const Codec& codec = *find_codec("int8-sym");
  const std::int64_t cols = 32 * 1000 + 7;
  std::vector<std::byte> now(codec.row_bytes(cols), std::byte{0x7f}), before(now.size(), std::byte{0x80});
  for (const Isa isa : available_isas()) {
    set_row_kernels(isa);
    const CodeStats stats = codec.stats(now, before, 1, cols);
    EXPECT_EQ(stats.changed, cols);
    EXPECT_EQ(stats.saturated, cols);
  }
  set_row_kernels(active_isa());
}

}  // namespace
}  // namespace temper::quant
