// The checks before dispatch, and the double definitions against difference quotients.
#include <functional>
#include <string>

#include "harness.h"

namespace temper::ops {
namespace {

using reference::Matrix;

class ChecksTest : public ::testing::Test {
 protected:
  ChecksTest() : arena_(std::size_t{1} << 26) {
    ctx_.backend = &cpu_backend();
    ctx_.workspace = &arena_;
  }

  /// Runs `call` and returns the message of the LogicError or Unsupported that it throws.
  template <typename Error>
  std::string message(const std::function<void()>& call) {
    try {
      call();
    } catch (const Error& error) {
      return error.what();
    } catch (const std::exception& other) {
      return std::string("another exception: ") + other.what();
    }
    return "no exception";
  }

  Arena arena_;
  ExecContext ctx_;
};

TEST_F(ChecksTest, MessagesNameTheOpAndEveryTensor) {
  const Tensor a(DType::F32, Shape{2, 3}), b(DType::F32, Shape{4, 5}), c(DType::F32, Shape{2, 5});
  const std::string text = message<LogicError>([&] { matmul(ctx_, a, b, c); });
  for (const char* part : {"matmul", "a F32 [2, 3]", "b F32 [4, 5]", "c F32 [2, 5]"})
    EXPECT_NE(text.find(part), std::string::npos) << text;
}

TEST_F(ChecksTest, DtypesAreRefused) {
  const Tensor f32(DType::F32, Shape{4, 4}, true), bf(DType::BF16, Shape{4, 4}, true), i8(DType::I8, Shape{4, 4}, true);
  EXPECT_THROW(matmul(ctx_, f32, bf, f32), Unsupported);
  EXPECT_THROW(matmul(ctx_, bf, bf, bf, {.accumulate = true}), Unsupported);
  EXPECT_THROW(matmul(ctx_, f32, f32, bf), Unsupported);
  EXPECT_THROW(convert(ctx_, i8, f32), Unsupported);
  EXPECT_THROW(scale(ctx_, bf, 2.0f), Unsupported);
  EXPECT_THROW(glu(ctx_, Gate::Silu, f32, bf, f32), Unsupported);
  EXPECT_NO_THROW(zero(ctx_, i8));
}

TEST_F(ChecksTest, IndicesAreChecked) {
  const Tensor table(DType::F32, Shape{4, 4}, true), out(DType::F32, Shape{2, 4}, true);
  const std::int32_t high[] = {0, 4}, negative[] = {-1, 0}, good[] = {3, 0};
  EXPECT_THROW(gather_rows(ctx_, table, high, out), LogicError);
  EXPECT_THROW(scatter_rows(ctx_, out, negative, table), LogicError);
  EXPECT_THROW(embedding(ctx_, table, negative, out), LogicError);
  EXPECT_THROW(embedding_backward(ctx_, out, high, table), LogicError);
  std::vector<float> nll(2);
  EXPECT_THROW(cross_entropy(ctx_, out, high, 1.0f, nll, nullptr), LogicError);
  EXPECT_THROW(rope(ctx_, out, 4, high, table->slice_cols(0, 2), table->slice_cols(2, 4), false), LogicError);
  EXPECT_NO_THROW(embedding(ctx_, table, good, out));
}

TEST_F(ChecksTest, AttentionSpansMustFit) {
  const Tensor q(DType::F32, Shape{8, 16}, true), kv(DType::F32, Shape{8, 8}, true), out(DType::F32, Shape{8, 16}, true);
  const AttentionShape shape{2, 1, 8, 1.0f};
  const auto run = [&](std::vector<AttentionSpan> spans) { attention(ctx_, q, kv, kv, spans, shape, out, nullptr); };
  EXPECT_NO_THROW(run({{0, 4, 0, 4}, {4, 8, 4, 8}}));
  EXPECT_THROW(run({{0, 9, 0, 9}}), LogicError);                // beyond the rows
  EXPECT_THROW(run({{0, 4, 0, 3}}), LogicError);                // fewer keys than queries
  EXPECT_THROW(run({{0, 4, 0, 4}, {3, 8, 3, 8}}), LogicError);  // queries twice
  EXPECT_THROW(attention(ctx_, q, kv, kv, {}, {3, 1, 8, 1.0f}, out, nullptr), LogicError);
  const Tensor lse(DType::F32, Shape{8, 2}, true);
  const std::vector<AttentionSpan> shared = {{0, 4, 0, 4}, {4, 8, 0, 4}};
  EXPECT_NO_THROW(run(shared));  // a shared prefix may be read,
  EXPECT_THROW(attention_backward(ctx_, q, kv, kv, shared, shape, out, lse, q, out, kv, kv),
               LogicError);  // not differentiated
}

TEST_F(ChecksTest, EmptyTensorsAreNothingToDo) {
  const Tensor none(DType::F32, Shape{0, 4}), weight(DType::F32, Shape{4}), rstd(DType::F32, Shape{0});
  EXPECT_NO_THROW(add(ctx_, none, none, none));
  EXPECT_NO_THROW(rmsnorm(ctx_, none, weight, 1e-5f, none, rstd));
  EXPECT_EQ(sum_of_squares(ctx_, none), 0.0);
  const Tensor a(DType::F32, Shape{3, 0}), b(DType::F32, Shape{0, 2}), c(DType::F32, Shape{3, 2}, false);
  matmul(ctx_, a, b, c);
  for (const float value : c.span<float>()) EXPECT_EQ(value, 0.0f);
}

TEST_F(ChecksTest, AMissingWorkspaceIsNamed) {
  ExecContext bare{ctx_.backend, nullptr, DType::F32};
  const Tensor a(DType::F32, Shape{30, 30}, true);
  EXPECT_NE(message<LogicError>([&] { matmul(bare, a, a, a); }).find("workspace"), std::string::npos);
  EXPECT_THROW(zero(ExecContext{}, a), LogicError);
}

TEST_F(ChecksTest, CodecsMustFit) {
  const Tensor base(DType::F32, Shape{2, 40}, true), out(DType::F32, Shape{2, 64}, true);
  const quant::Codec& codec = *quant::find_codec("q4_0");
  std::vector<std::byte> bytes(2 * codec.row_bytes(64));
  EXPECT_THROW(merge_and_encode(ctx_, base, nullptr, DType::F32, codec, bytes, nullptr), LogicError);
  EXPECT_THROW(merge_and_encode(ctx_, out, nullptr, DType::F32, codec, std::span(bytes).first(3), nullptr), LogicError);
  EXPECT_THROW(decode(ctx_, {&codec, 2, 64, std::span(bytes).first(3)}, out), LogicError);
}

/// d f / d x[i] by central differences; h = 1e-5 leaves an error of about 1e-10 for the smooth functions below.
double difference(Matrix& x, std::size_t i, const std::function<double()>& f) {
  const double h = 1e-5, at = x.values[i];
  x.values[i] = at + h;
  const double up = f();
  x.values[i] = at - h;
  const double down = f();
  x.values[i] = at;
  return (up - down) / (2 * h);
}

Matrix random_matrix(std::int64_t rows, std::int64_t cols, std::uint64_t seed) {
  return TestTensor(DType::F32, rows, cols, seed).matrix();
}

double dot(const Matrix& a, const Matrix& b) {
  double sum = 0;
  for (std::size_t i = 0; i < a.values.size(); ++i) sum += a.values[i] * b.values[i];
  return sum;
}

TEST(Reference, AttentionGradients) {
  const std::vector<AttentionSpan> spans = {{0, 3, 0, 5}, {3, 9, 5, 11}};
  const AttentionShape shape{4, 2, 6, 0.7f, 4};
  Matrix q = random_matrix(9, 24, 1), k = random_matrix(11, 12, 2), v = random_matrix(11, 12, 3);
  const Matrix dout = random_matrix(9, 24, 4);
  const reference::Attention definition{q, k, v, spans, shape};
  const auto forward = definition.forward();
  const auto gradients = definition.backward(forward.out.value, forward.lse.value, dout);
  const auto loss = [&] { return dot(definition.forward().out.value, dout); };
  for (std::size_t i = 0; i < q.values.size(); i += 5)
    EXPECT_NEAR(gradients.dq.value.values[i], difference(q, i, loss), 1e-8);
  for (std::size_t i = 0; i < k.values.size(); i += 3)
    EXPECT_NEAR(gradients.dk.value.values[i], difference(k, i, loss), 1e-8);
  for (std::size_t i = 0; i < v.values.size(); i += 3)
    EXPECT_NEAR(gradients.dv.value.values[i], difference(v, i, loss), 1e-8);
}

TEST(Reference, NormGradients) {
  Matrix x = random_matrix(3, 10, 1), weights = random_matrix(1, 10, 2);
  const Matrix dy = random_matrix(3, 10, 3);
  const auto gradients = reference::rmsnorm_backward(dy, x, weights.values, 1e-5);
  const auto loss = [&] { return dot(reference::rmsnorm(x, weights.values, 1e-5).y, dy); };
  for (std::size_t i = 0; i < x.values.size(); ++i) EXPECT_NEAR(gradients.dx.values[i], difference(x, i, loss), 1e-8);
  for (std::size_t i = 0; i < 10; ++i) EXPECT_NEAR(gradients.dweight[i], difference(weights, i, loss), 1e-8);
}

TEST(Reference, CrossEntropyGradient) {
  Matrix logits = random_matrix(3, 12, 1), grad(3, 12);
  const std::int32_t targets[] = {0, 11, 5};
  reference::cross_entropy(logits, targets, 0.3, &grad);
  const auto loss = [&] {
    double sum = 0;
    for (const double nll : reference::cross_entropy(logits, targets, 0.3, nullptr)) sum += 0.3 * nll;
    return sum;
  };
  for (std::size_t i = 0; i < logits.values.size(); ++i) EXPECT_NEAR(grad.values[i], difference(logits, i, loss), 1e-8);
}

}  // namespace
}  // namespace temper::ops
