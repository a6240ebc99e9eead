#include <algorithm>
#include <cmath>
#include <vector>

#include "../ops/harness.h"
#include "base/rng.h"

namespace temper::ops {
namespace {

using OptimizerTest = BackendTest;

constexpr std::int64_t kSize = 5003;

/// A bf16 state's definition: the lower 16 bits of a value, plus 16 drawn ones, decide.
std::uint16_t rounded(float x, const StateDraws& draws, std::int64_t step, std::uint64_t state, std::uint64_t i) {
  const std::uint64_t k = i % 128 / 16;
  const std::uint32_t word =
      philox(draws.seed, 2 * static_cast<std::uint64_t>(step) + state, draws.first + i / 128 * 16 + i % 16)[k / 2];
  const std::uint32_t draw = word >> (k % 2 * 16) & 0xffffu;
  return static_cast<std::uint16_t>((std::bit_cast<std::uint32_t>(x) + draw) >> 16);
}

TEST_P(OptimizerTest, Bf16StatesEqualTheDefinition) {
  const TestTensor grad(DType::F32, 1, kSize, 2), param(DType::F32, 1, kSize, 1), twin(DType::F32, 1, kSize, 1);
  const Tensor m(DType::BF16, {kSize}, true), v(DType::BF16, {kSize}, true);
  const Tensor wide_m(DType::F32, {kSize}, true), wide_v(DType::F32, {kSize}, true);
  AdamW o{.lr = 1e-2f, .weight_decay = 0.1f, .draws = {.seed = 7, .first = 1000}};
  for (o.step = 1; o.step <= 3; ++o.step) {
    adamw(ctx_, param, grad, m, v, o);
    adamw(ctx_, twin, grad, wide_m, wide_v, o);
    EXPECT_EQ(param.bytes(), twin.bytes());
    std::uint64_t state = 0;
    for (const auto& [narrow, wide] : {std::pair{&m, &wide_m}, std::pair{&v, &wide_v}}) {
      for (std::size_t i = 0; i < kSize; ++i) {
        const std::uint16_t expected = rounded(wide->span<float>()[i], o.draws, o.step, state, i);
        ASSERT_EQ(narrow->span<bf16>()[i].bits, expected) << "state " << state << " at " << i;
        wide->span<float>()[i] = to_float(bf16{expected});
      }
      ++state;
    }
  }
}

/// The mean of many roundings is the value itself: 10⁵ draws of a value a quarter of the way between neighbours have a
/// standard deviation of sqrt(3/16 / 10⁵) of their distance; five of them.
TEST_P(OptimizerTest, StochasticRoundingHasNoBias) {
  const std::int64_t n = 100000;
  const Tensor param(DType::F32, {n}, true), grad(DType::F32, {n}, true), m(DType::BF16, {n}, true);
  std::ranges::fill(grad.span<float>(), 1.0f + 0x1p-9f);  // neighbours: 1 and 1 + 2⁻⁷
  lion(ctx_, param, grad, m, {.lr = 0.0f, .beta2 = 0.0f, .draws = {.seed = 3}});
  double sum = 0;
  for (const bf16 x : m.span<bf16>()) sum += static_cast<double>(to_float(x)) - 1;
  const double deviation = 0x1p-7 * std::sqrt(3.0 / 16 / static_cast<double>(n));
  EXPECT_NEAR(sum / static_cast<double>(n), 0x1p-9, 5 * deviation);
}

TEST_P(OptimizerTest, LionEqualsTheDefinition) {
  const TestTensor grad(DType::F32, 1, kSize, 2), param(DType::F32, 1, kSize, 1), m(DType::F32, 1, kSize, 3, 0.0);
  for (std::int64_t i = 0; i < 5; ++i) set(grad, 0, i, 0.0);  // of no sign
  std::vector<double> p = param.row(), moment(kSize, 0.0);
  const std::vector<double> g = grad.row();
  Lion o{.lr = 1e-2f, .weight_decay = 0.1f, .grad_scale = 0.5f};
  for (o.step = 1; o.step <= 3; ++o.step) {
    lion(ctx_, param, grad, TensorView(m), o);
    for (std::size_t i = 0; i < p.size(); ++i) {
      const double x = g[i] * 0.5, update = double{o.beta1} * moment[i] + (1 - double{o.beta1}) * x;
      p[i] = p[i] * (1 - double{o.lr} * double{o.weight_decay}) - double{o.lr} * ((update > 0) - (update < 0));
      moment[i] = double{o.beta2} * moment[i] + (1 - double{o.beta2}) * x;
    }
  }
  reference::Matrix expected(1, kSize), moments(1, kSize);
  expected.values = p, moments.values = moment;
  expect_close(param, expected, 12.0, "param", 3 * 1e-2);
  expect_close(m, moments, 12.0, "m");
}

/// However many threads, and wherever an array is cut at a block's end: the draws of later blocks are those of their place.
TEST_P(OptimizerTest, ThreadsAndCutsChangeNothing) {
  for (const DType dtype : {DType::BF16, DType::U8}) {
    std::vector<std::vector<std::byte>> params;
    for (const int threads : {1, 2}) {
      const ThreadsScope scope(threads);
      const TestTensor grad(DType::F32, 1, kSize, 2), param(DType::F32, 1, kSize, 1);
      const std::int64_t blocks = (kSize + kStateBlock - 1) / kStateBlock;
      const Tensor m(dtype, {kSize}, true), v(dtype, {kSize}, true);
      const Tensor top_m(DType::F32, {blocks}, true), top_v(DType::F32, {blocks}, true);
      AdamW o{.lr = 1e-2f, .draws = {.seed = 7}};
      for (o.step = 1; o.step <= 3; ++o.step) {
        if (threads == 1) {
          adamw(ctx_, param, grad, {m, top_m}, {v, top_v}, o);
          continue;
        }
        const std::int64_t cut = 8 * kStateBlock;
        for (const auto& [begin, end] : {std::pair{std::int64_t{0}, cut}, std::pair{cut, kSize}}) {
          const auto part = [&, from = begin, to = end](const TensorView& all, std::int64_t each = 1) {
            const std::int64_t first = from / each, count = (to - from + each - 1) / each;
            return TensorView(static_cast<std::byte*>(all.data) + static_cast<std::size_t>(first) * dtype_size(all.dtype),
                              all.dtype, {count});
          };
          o.draws.first = static_cast<std::uint64_t>(begin / 8);
          adamw(ctx_, part(param), part(grad), {part(m), part(top_m, kStateBlock)}, {part(v), part(top_v, kStateBlock)}, o);
        }
        o.draws.first = 0;
      }
      params.push_back(param.bytes());
    }
    EXPECT_EQ(params[0], params[1]) << dtype_name(dtype);
  }
}

TEST_P(OptimizerTest, OtherSizesAndTypesAreRefused) {
  const Tensor param(DType::F32, {600}, true), grad(DType::F32, {600}, true), codes(DType::U8, {600}, true);
  const Tensor two(DType::F32, {2}, true), three(DType::F32, {3}, true), half(DType::F16, {600}, true);
  EXPECT_THROW(lion(ctx_, param, grad, {codes, two}, {.lr = 0}), LogicError);
  EXPECT_NO_THROW(lion(ctx_, param, grad, {codes, three}, {.lr = 0}));
  EXPECT_THROW(lion(ctx_, param, grad, half, {.lr = 0}), Error);
}

TEMPER_BACKEND_SUITE(OptimizerTest);

}  // namespace
}  // namespace temper::ops
