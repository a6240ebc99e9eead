#include <string>

#include "../ops/harness.h"

namespace temper::ops {
namespace {

using reference::Matrix;
using AttentionTest = BackendTest;

struct Case {
  std::string name;
  std::int64_t heads, kv_heads, head_dim, window, queries, keys;
  std::vector<AttentionSpan> spans;
  float softcap = 0;
};

std::vector<Case> cases() {
  return {{"one query of one key", 1, 1, 16, 0, 1, 1, {{0, 1, 0, 1}}},
          {"grouped, odd sizes", 6, 2, 24, 0, 77, 77, {{0, 77, 0, 77}}},
          {"three documents", 3, 3, 64, 0, 150, 150, {{0, 1, 0, 1}, {1, 66, 1, 66}, {66, 150, 66, 150}}},
          {"window", 4, 1, 20, 9, 140, 140, {{0, 140, 0, 140}}},
          {"window over tiles", 2, 1, 32, 70, 210, 210, {{0, 10, 0, 10}, {10, 210, 10, 210}}},
          {"cache: few queries", 9, 3, 64, 0, 2, 131, {{0, 1, 0, 67}, {1, 2, 67, 131}}},
          {"cache: many queries", 2, 2, 40, 50, 70, 150, {{0, 70, 5, 150}}},
          {"rows in no span", 2, 1, 16, 0, 30, 30, {{3, 10, 2, 9}, {12, 25, 9, 22}}},
          {"soft cap", 4, 2, 24, 0, 130, 130, {{0, 60, 0, 60}, {60, 130, 60, 130}}, 0.4f},
          {"soft cap, window, few queries", 2, 1, 40, 30, 3, 131, {{0, 3, 0, 131}}, 0.3f}};
}

struct Tensors {
  TestTensor q, k, v, out, lse, dout, dq, dk, dv;
  Tensors(const Case& c, DType type)
      : q(type, c.queries, c.heads * c.head_dim, 1, 2.0, 4),
        k(type, c.keys, c.kv_heads * c.head_dim, 2, 2.0, 2),
        v(type, c.keys, c.kv_heads * c.head_dim, 3, 1.0, 7),
        out(type, c.queries, c.heads * c.head_dim, 4, 1.0, 3),
        lse(DType::F32, c.queries, c.heads, 5, 1.0, 1),
        dout(type, c.queries, c.heads * c.head_dim, 6),
        dq(type, c.queries, c.heads * c.head_dim, 7, 1.0, 5),
        dk(type, c.keys, c.kv_heads * c.head_dim, 8),
        dv(type, c.keys, c.kv_heads * c.head_dim, 9) {}
};

AttentionShape shape_of(const Case& c) {
  return {c.heads, c.kv_heads, c.head_dim, 1.0f / std::sqrt(static_cast<float>(c.head_dim)), c.window, c.softcap};
}

/// Where the CPU multiplies bf16, probabilities are rounded to it.
double rounding_of(DType type, Isa isa) {
  return type == DType::BF16 && has_bf16_products(isa) ? reference::unit(DType::BF16) : 0.0;
}

TEST_P(AttentionTest, ForwardEqualsTheDefinition) {
  for (const Case& c : cases())
    for (const DType type : {DType::F32, DType::BF16}) {
      const Tensors t(c, type);
      const Matrix q = t.q.matrix(), k = t.k.matrix(), v = t.v.matrix();
      const auto expected = reference::Attention{q, k, v, c.spans, shape_of(c), rounding_of(type, GetParam())}.forward();
      attention(ctx_, t.q, t.k, t.v, c.spans, shape_of(c), t.out, &t.lse.view());
      expect_close(t.out, expected.out.value, expected.out.error, c.name);
      for (const AttentionSpan& s : c.spans)
        for (std::int64_t i = s.query_begin; i < s.query_end; ++i)
          for (std::int64_t h = 0; h < c.heads; ++h)
            EXPECT_NEAR(get(t.lse, i, h), expected.lse.value(i, h), expected.lse.error(i, h))
                << c.name << " lse " << i << ", " << h;
      const std::vector<std::byte> with_lse = t.out.bytes();
      attention(ctx_, t.q, t.k, t.v, c.spans, shape_of(c), t.out, nullptr);
      EXPECT_EQ(with_lse, t.out.bytes());
    }
}

TEST_P(AttentionTest, BackwardEqualsTheDefinition) {
  for (const Case& c : cases())
    for (const DType type : {DType::F32, DType::BF16}) {
      const Tensors t(c, type);
      const Matrix q = t.q.matrix(), k = t.k.matrix(), v = t.v.matrix();
      const reference::Attention definition{q, k, v, c.spans, shape_of(c), rounding_of(type, GetParam())};
      attention(ctx_, t.q, t.k, t.v, c.spans, shape_of(c), t.out, &t.lse.view());
      const auto expected = definition.backward(t.out.matrix(), t.lse.matrix(), t.dout.matrix());
      attention_backward(ctx_, t.q, t.k, t.v, c.spans, shape_of(c), t.out, t.lse, t.dout, t.dq, t.dk, t.dv);
      expect_close(t.dq, expected.dq.value, expected.dq.error, c.name + " dq");
      expect_close(t.dk, expected.dk.value, expected.dk.error, c.name + " dk");
      expect_close(t.dv, expected.dv.value, expected.dv.error, c.name + " dv");
    }
}

TEST_P(AttentionTest, LargeScoresStayFinite) {
  const Case c{"large", 1, 1, 16, 0, 80, 80, {{0, 80, 0, 80}}};
  const Tensors t(c, DType::F32);
  AttentionShape shape = shape_of(c);
  shape.scale = 100.0f;
  const Matrix q = t.q.matrix(), k = t.k.matrix(), v = t.v.matrix();
  const auto expected = reference::Attention{q, k, v, c.spans, shape}.forward();
  attention(ctx_, t.q, t.k, t.v, c.spans, shape, t.out, &t.lse.view());
  expect_close(t.out, expected.out.value, expected.out.error, "large scores");
}

TEST_P(AttentionTest, ThreadsDoNotChangeABit) {
  const Case c{"threads", 9, 3, 64, 0, 400, 400, {{0, 180, 0, 180}, {180, 400, 180, 400}}};
  std::vector<std::vector<std::byte>> results;
  for (const int threads : {1, 2, 3}) {
    const ThreadsScope scope(threads);
    const Tensors t(c, DType::BF16);
    attention(ctx_, t.q, t.k, t.v, c.spans, shape_of(c), t.out, &t.lse.view());
    attention_backward(ctx_, t.q, t.k, t.v, c.spans, shape_of(c), t.out, t.lse, t.dout, t.dq, t.dk, t.dv);
    results.emplace_back();
    for (const TestTensor* x : {&t.out, &t.lse, &t.dq, &t.dk, &t.dv}) {
      const auto bytes = x->bytes();
      results.back().insert(results.back().end(), bytes.begin(), bytes.end());
    }
  }
  EXPECT_EQ(results[0], results[1]);
  EXPECT_EQ(results[0], results[2]);
}

TEMPER_BACKEND_SUITE(AttentionTest);

}  // namespace
}  // namespace temper::ops
