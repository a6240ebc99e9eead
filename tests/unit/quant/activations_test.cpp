// Activations in 8 bits against ggml's definitions, written out in scalars, on every instruction set that this CPU has.
#include "quant/activations.h"

#include <gtest/gtest.h>

#include <cmath>

#include "base/error.h"
#include "base/rng.h"
#include "quant/row_kernels.h"

namespace temper::quant {
namespace {

std::vector<float> blocks_of_32(std::vector<float> x) {
  for (std::size_t b = 0; b < x.size(); b += 32) {
    float largest = 0;
    for (std::size_t i = b; i < b + 32; ++i) largest = std::max(largest, std::fabs(x[i]));
    const float d = to_float(to_f16(largest / 127.0f)), inverse = largest != 0.0f ? 127.0f / largest : 0.0f;
    for (std::size_t i = b; i < b + 32; ++i) x[i] = std::nearbyint(x[i] * inverse) * d;
  }
  return x;
}

std::vector<float> superblocks(std::vector<float> x) {
  for (std::size_t b = 0; b < x.size(); b += 256) {
    float largest = 0;
    for (std::size_t i = b; i < b + 256; ++i)
      if (std::fabs(x[i]) > std::fabs(largest)) largest = x[i];
    const float scale = largest != 0.0f ? -127.0f / largest : 0.0f, d = largest != 0.0f ? 1.0f / scale : 0.0f;
    for (std::size_t i = b; i < b + 256; ++i) x[i] = std::min(127.0f, std::nearbyint(scale * x[i])) * d;
  }
  return x;
}

TEST(Activations, EqualTheDefinition) {
  constexpr std::int64_t kCols = 512;
  Rng rng(4);
  for (const float magnitude : {1.0f, 1e-3f, 300.0f, 0.0f}) {
    std::vector<float> x(kCols);
    for (float& v : x) v = to_float(to_bf16((rng.uniform() - 0.5f) * magnitude));
    x[40] = -x[41];                                // two of one magnitude
    x[300] = to_float(to_bf16(2.0f * magnitude));  // one that stands out
    for (const ActivationGrid grid : {ActivationGrid::Blocks32, ActivationGrid::Super256}) {
      const std::vector<float> expected = grid == ActivationGrid::Blocks32 ? blocks_of_32(x) : superblocks(x);
      for (const Isa isa : available_isas()) {
        set_row_kernels(isa);
        std::vector<float> found(kCols);
        std::vector<bf16> narrow(kCols);
        for (std::size_t i = 0; i < x.size(); ++i) narrow[i] = to_bf16(x[i]);
        round_activations(grid, TensorView(x.data(), DType::F32, {2, kCols / 2}),
                          TensorView(found.data(), DType::F32, {2, kCols / 2}));
        const TensorView in_place(narrow.data(), DType::BF16, {1, kCols});
        round_activations(grid, in_place, in_place);
        for (std::size_t i = 0; i < x.size(); ++i) {
          ASSERT_EQ(found[i], expected[i]) << isa_name(isa) << " " << i;
          ASSERT_EQ(to_float(narrow[i]), to_float(to_bf16(expected[i]))) << isa_name(isa) << " " << i;
        }
      }
    }
  }
  set_row_kernels(active_isa());
}

TEST(Activations, GridsGoWithFormats) {
  EXPECT_EQ(activation_grid(*find_codec("q4_0")), ActivationGrid::Blocks32);
  EXPECT_EQ(activation_grid(*find_codec("q5_1")), ActivationGrid::Blocks32);
  EXPECT_EQ(activation_grid(*find_codec("q6_k")), ActivationGrid::Super256);
  EXPECT_EQ(activation_grid(*find_codec("int8-sym")), ActivationGrid::None);
  std::vector<float> x(48);
  const TensorView view(x.data(), DType::F32, {1, 48});
  EXPECT_THROW(round_activations(ActivationGrid::Blocks32, view, view), LogicError);
}

}  // namespace
}  // namespace temper::quant
