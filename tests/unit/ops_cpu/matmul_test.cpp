#include "../ops/harness.h"

namespace temper::ops {
namespace {

using MatmulTest = BackendTest;

struct Case {
  std::int64_t m, n, k;
};

void check(const ExecContext& ctx, const Case& s, DType in, DType out, MatmulOptions o, std::int64_t padding) {
  const TestTensor a(in, o.transpose_a ? s.k : s.m, o.transpose_a ? s.m : s.k, 1, 1.0, padding);
  const TestTensor b(in, o.transpose_b ? s.n : s.k, o.transpose_b ? s.k : s.n, 2, 1.0, padding);
  const TestTensor c(out, s.m, s.n, 3, 1.0, padding);
  const reference::Bounded expected = reference::matmul(a.matrix(), b.matrix(), c.matrix(), o);
  matmul(ctx, a, b, c, o);
  expect_close(c, expected.value, expected.error,
               fmt::format("{}x{}x{} {}->{} ta {} tb {} acc {} alpha {} pad {}", s.m, s.n, s.k, dtype_name(in),
                           dtype_name(out), o.transpose_a, o.transpose_b, o.accumulate, o.alpha, padding));
}

TEST_P(MatmulTest, EqualsTheDefinition) {
  for (const Case& s :
       {Case{1, 1, 1}, Case{3, 5, 7}, Case{1, 130, 67}, Case{8, 33, 576}, Case{65, 70, 129}, Case{16, 200, 300}})
    for (const auto& [in, out] :
         {std::pair{DType::F32, DType::F32}, std::pair{DType::BF16, DType::BF16}, std::pair{DType::BF16, DType::F32}})
      for (int bits = 0; bits < 16; ++bits) {
        const bool accumulate = bits & 4;
        if (accumulate && out != DType::F32) continue;
        check(ctx_, s, in, out,
              {.transpose_a = (bits & 1) != 0,
               .transpose_b = (bits & 2) != 0,
               .accumulate = accumulate,
               .alpha = bits & 8 ? -1.625f : 1.0f},
              bits % 3 ? 0 : 5);
      }
}

TEST_P(MatmulTest, SeveralTilesAndPanels) {
  check(ctx_, {530, 520, 33}, DType::F32, DType::F32, {}, 0);
  check(ctx_, {530, 1100, 33}, DType::BF16, DType::F32, {.accumulate = true, .alpha = 0.5f}, 3);
  check(ctx_, {90, 16, 300}, DType::BF16, DType::F32, {.transpose_a = true, .accumulate = true, .alpha = 3.0f}, 2);
  check(ctx_, {90, 16, 300}, DType::F32, DType::F32, {.transpose_a = true}, 0);
  check(ctx_, {9, 20, 4200}, DType::BF16, DType::BF16, {.transpose_b = true}, 1);
}

/// The products of LoRA training on SmolLM2: forward, backward and the low-rank ones, with few enough rows to be quick
/// elsewhere.
TEST_P(MatmulTest, ThreadsDoNotChangeABit) {
  struct Shapes {
    std::int64_t m, n, k;
    bool ta, tb;
  };
  const Shapes all[] = {{2048, 192, 576, false, true}, {2048, 576, 192, false, false}, {2048, 16, 576, false, true},
                        {2048, 16, 1536, false, true}, {2048, 576, 16, false, true},   {2048, 16, 576, false, false},
                        {16, 576, 2048, true, false},  {16, 1536, 2048, true, false},  {576, 16, 2048, true, false},
                        {192, 16, 2048, true, false},  {128, 576, 3072, false, false}, {1, 1536, 576, false, true},
                        {7, 49152, 64, false, true}};
  for (const Shapes& s : all)
    for (const DType dtype : {DType::BF16, DType::F32}) {
      const TestTensor a(dtype, s.ta ? s.k : s.m, s.ta ? s.m : s.k, 1), b(dtype, s.tb ? s.n : s.k, s.tb ? s.k : s.n, 2);
      const TestTensor one(DType::F32, s.m, s.n, 3), two(DType::F32, s.m, s.n, 3);
      for (const auto& [threads, c] : {std::pair{1, &one}, std::pair{2, &two}, std::pair{3, &two}}) {
        const ThreadsScope scope(threads);
        matmul(ctx_, a, b, *c, {.transpose_a = s.ta, .transpose_b = s.tb, .alpha = 2.0f});
        EXPECT_EQ(c->bytes(), one.bytes()) << s.m << "x" << s.n << "x" << s.k << " on " << threads << " threads";
      }
    }
}

TEMPER_BACKEND_SUITE(MatmulTest);

}  // namespace
}  // namespace temper::ops
