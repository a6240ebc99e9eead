#include "../ops/harness.h"

namespace temper::ops {
namespace {

using reference::kU32;
using reference::Matrix;
using WeightsTest = BackendTest;

/// The merge's definition in float, one operation at a time; `out` rounds it to the stored type.
void merge_by_definition(const TensorView& base, const LoraView& lora, const TensorView& out) {
  for (std::int64_t n = 0; n < base.rows(); ++n)
    for (std::int64_t k = 0; k < base.cols(); ++k) {
      float sum = 0.0f;
      for (std::int64_t r = 0; r < lora.a.rows(); ++r) {
        const float product = static_cast<float>(get(lora.b, n, r)) * static_cast<float>(get(lora.a, r, k));
        sum = sum + product;
      }
      const float scaled = lora.scale * sum, merged = static_cast<float>(get(base, n, k)) + scaled;
      set(out, n, k, lora.gain ? static_cast<float>(get(lora.gain, n, 0)) * merged : merged);
    }
}

TEST_P(WeightsTest, MergeIsExact) {
  for (const DType from : {DType::F32, DType::BF16, DType::F16})
    for (const DType to : {DType::F32, DType::BF16, DType::F16})
      for (const std::int64_t rank : {1, 7, 16}) {
        const TestTensor base(from, 37, 83, 1, 0.1, 3), a(DType::F32, rank, 83, 2, 1.0, 2),
            b(DType::F32, 37, rank, 3, 0.1, 1);
        const TestTensor out(to, 37, 83, 4, 0.0, 5), expected(to, 37, 83, 4, 0.0, 5);
        const LoraView lora{a, b, 1.7f};
        merge_by_definition(base, lora, expected);
        merge_lora(ctx_, base, lora, out);
        EXPECT_EQ(out.bytes(), expected.bytes()) << dtype_name(from) << " to " << dtype_name(to) << " rank " << rank;
        const TestTensor gain(DType::F32, 37, 1, 5, 2.0);
        const LoraView gained{a, b, 1.7f, gain};
        merge_by_definition(base, gained, expected);
        merge_lora(ctx_, base, gained, out);
        EXPECT_EQ(out.bytes(), expected.bytes()) << dtype_name(from) << " to " << dtype_name(to) << " with gains";
      }
}

/// Sums in double of exact products: n roundings of their size.
TEST_P(WeightsTest, RowDots) {
  const TestTensor a(DType::F32, 9, 83, 1, 1.0, 3), b(DType::F32, 9, 83, 2, 1.0, 1);
  std::vector<double> found(9);
  row_dots(ctx_, a, b, found);
  for (std::int64_t r = 0; r < 9; ++r) {
    double sum = 0, size = 0;
    for (std::int64_t c = 0; c < 83; ++c) sum += get(a, r, c) * get(b, r, c), size += std::abs(get(a, r, c) * get(b, r, c));
    EXPECT_NEAR(found[static_cast<std::size_t>(r)], sum, 2 * 83 * 0x1p-53 * size);
  }
}

TEST_P(WeightsTest, MergeAndEncodeEqualsEncodingTheMerge) {
  const std::int64_t rows = 700, cols = 256;
  for (const char* format : {"int4-sym-g32", "int8-sym", "q4_0", "q8_0", "nvfp4", "nf4-dq", "fp8-e4m3-b128"})
    for (const DType storage : {DType::BF16, DType::F32, DType::F16})
      for (const bool with_lora : {true, false})
        for (const int threads : {1, 2}) {
          const ThreadsScope scope(threads);
          const TestTensor gain(DType::F32, rows, 1, 6, 2.0);
          const quant::Codec& codec = *quant::find_codec(format);
          const TestTensor base(DType::BF16, rows, cols, 1, 0.1, 8), a(DType::F32, 8, cols, 2),
              b(DType::F32, rows, 8, 3, 0.05);
          const TestTensor merged(storage, rows, cols, 4, 0.0), wide(DType::F32, rows, cols, 5, 0.0);
          const LoraView lora{a, b, 0.5f, threads == 2 ? gain.view() : TensorView{}};
          if (with_lora)
            merge_by_definition(base, lora, merged);
          else
            convert(ctx_, base, merged);
          convert(ctx_, merged, wide);
          std::vector<std::byte> expected(static_cast<std::size_t>(rows) * codec.row_bytes(cols));
          std::vector<std::byte> found = expected, earlier = expected, again(expected.size());
          codec.encode_rows(wide, expected);
          quant::CodeStats stats{1, 1, 1};
          const quant::CodeStats counted = codec.stats(expected, earlier, rows, cols);
          merge_and_encode(ctx_, base, with_lora ? &lora : nullptr, storage, codec, found, &stats);
          EXPECT_EQ(found, expected) << format << " " << dtype_name(storage);
          EXPECT_EQ(stats.total, counted.total + 1);
          EXPECT_EQ(stats.changed, counted.changed + 1);
          EXPECT_EQ(stats.saturated, counted.saturated + 1);
          merge_and_encode(ctx_, base, with_lora ? &lora : nullptr, storage, codec, again, nullptr);
          EXPECT_EQ(again, expected);
        }
}

TEST_P(WeightsTest, DecodeEqualsTheCodec) {
  const quant::Codec& codec = *quant::find_codec("q4_0");
  const std::int64_t rows = 130, cols = 256;
  const TestTensor values(DType::F32, rows, cols, 1);
  std::vector<std::byte> encoded(static_cast<std::size_t>(rows) * codec.row_bytes(cols));
  codec.encode_rows(values, encoded);
  for (const DType type : {DType::F32, DType::BF16}) {
    const TestTensor out(type, rows, cols, 2, 1.0, 16);
    decode(ctx_, {&codec, rows, cols, encoded}, out);
    std::vector<float> row(static_cast<std::size_t>(cols));
    for (std::int64_t r = 0; r < rows; ++r) {
      codec.decode(std::span(encoded).subspan(static_cast<std::size_t>(r) * codec.row_bytes(cols), codec.row_bytes(cols)),
                   row);
      for (std::int64_t c = 0; c < cols; ++c) {
        const float value = row[static_cast<std::size_t>(c)];
        EXPECT_EQ(get(out, r, c), type == DType::F32 ? value : to_float(to_bf16(value)));
      }
    }
  }
}

TEST_P(WeightsTest, NonFiniteMergesAreRefused) {
  const TestTensor base(DType::BF16, 300, 256, 1), a(DType::F32, 4, 256, 2), b(DType::F32, 300, 4, 3);
  const quant::Codec& codec = *quant::find_codec("int4-sym-g32");
  std::vector<std::byte> encoded(300 * codec.row_bytes(256));
  const LoraView lora{a, b, 1.0f};
  for (const double bad : {static_cast<double>(NAN), static_cast<double>(INFINITY)}) {
    set(b, 299, 3, bad);
    EXPECT_THROW(merge_and_encode(ctx_, base, &lora, DType::BF16, codec, encoded, nullptr), Diverged);
  }
}

TEST_P(WeightsTest, AdamWEqualsTheDefinition) {
  const std::int64_t n = 40037;
  const TestTensor param(DType::F32, 1, n, 1), grad(DType::F32, 1, n, 2), m(DType::F32, 1, n, 3, 0.0),
      v(DType::F32, 1, n, 4, 0.0);
  std::vector<double> p = param.row(), first(p.size(), 0.0), second(p.size(), 0.0);
  const std::vector<double> g = grad.row();
  AdamW o{.lr = 1e-2f, .weight_decay = 0.1f, .grad_scale = 0.5f};
  for (o.step = 1; o.step <= 3; ++o.step) {
    adamw(ctx_, param, grad, TensorView(m), TensorView(v), o);
    const double steps = static_cast<double>(o.step);
    for (std::size_t i = 0; i < p.size(); ++i) {
      const double scaled = g[i] * 0.5;
      first[i] = double{o.beta1} * first[i] + (1 - double{o.beta1}) * scaled;
      second[i] = double{o.beta2} * second[i] + (1 - double{o.beta2}) * scaled * scaled;
      const double unbiased = first[i] / (1 - std::pow(double{o.beta1}, steps));
      const double spread = std::sqrt(second[i] / (1 - std::pow(double{o.beta2}, steps)));
      p[i] = p[i] * (1 - double{o.lr} * double{o.weight_decay}) - double{o.lr} * unbiased / (spread + double{o.eps});
    }
  }
  Matrix expected(1, n), moments(1, n), squares(1, n);
  expected.values = p, moments.values = first, squares.values = second;
  // Three steps of at most 1e-2 each, a dozen operations apiece.
  expect_close(param, expected, 12.0, "param", 3 * 1e-2);
  expect_close(m, moments, 12.0, "m");
  expect_close(v, squares, 12.0, "v");
}

TEST_P(WeightsTest, SumOfSquares) {
  for (const std::int64_t padding : {0, 7}) {
    const TestTensor x(DType::F32, 3, 70001, 1, 1.0, padding);
    double expected = 0;
    for (const double value : x.row()) expected += value * value;
    EXPECT_NEAR(sum_of_squares(ctx_, x), expected, 0x1p-53 * 3 * 70001 * expected);
  }
}

/// What decides codes has the same bits on every instruction set; so do the encodings built on it.
TEST(Weights, InstructionSetsAgreeOnTheBits) {
  std::vector<std::vector<std::byte>> merges, steps;
  Arena arena(std::size_t{1} << 28);
  for (const Isa isa : available_isas()) {
    const ExecContext ctx{&cpu_backend(isa), &arena, DType::F32};
    const TestTensor base(DType::BF16, 50, 300, 1), a(DType::F32, 16, 300, 2), b(DType::F32, 50, 16, 3),
        out(DType::F32, 50, 300, 4);
    merge_lora(ctx, base, {a, b, 0.3f}, out);
    merges.push_back(out.bytes());
    adamw(ctx, out, TestTensor(DType::F32, 50, 300, 5), TensorView(TestTensor(DType::F32, 50, 300, 6)),
          TensorView(TestTensor(DType::F32, 50, 300, 7, 0.0)), {.lr = 1e-3f, .step = 5});
    steps.push_back(out.bytes());
  }
  for (std::size_t i = 1; i < merges.size(); ++i) {
    EXPECT_EQ(merges[0], merges[i]);
    EXPECT_EQ(steps[0], steps[i]);
  }
}

TEMPER_BACKEND_SUITE(WeightsTest);

}  // namespace
}  // namespace temper::ops
