// 8-bit optimizers against bitsandbytes' (tools/oracles/make_optimizer_goldens.py).
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <string>
#include <vector>

#include "files/safetensors.h"
#include "ops/cpu/cpu_backend.h"
#include "ops/ops.h"
#include "quant/dynamic_map.h"

namespace temper::ops {
namespace {

struct Optimizers : ::testing::TestWithParam<std::string> {
  files::SafetensorsFile goldens{std::string(TEMPER_TEST_DATA) + "/train/optimizers.safetensors"};
  Arena arena{1 << 20};
  ExecContext ctx{&cpu_backend(), &arena, DType::F32};

  /// Row `step` of a golden tensor [steps, n], as memory of its own.
  template <typename T>
  Tensor row(const std::string& name, std::int64_t step) const {
    const files::SafetensorsTensor& all = goldens.at(name);
    const Tensor out(dtype_of<T>, {all.shape[1]});
    std::memcpy(out->data, all.data.data() + static_cast<std::size_t>(step) * out->bytes(), out->bytes());
    return out;
  }
  std::vector<float> map(const std::string& name) const {
    const auto& data = goldens.at(name).data;
    std::vector<float> values(data.size() / sizeof(float));
    std::memcpy(values.data(), data.data(), data.size());
    return values;
  }
};

TEST_F(Optimizers, MapsEqualThePackages) {
  EXPECT_TRUE(std::ranges::equal(map("map.signed"), quant::signed_dynamic_map().values()));
  EXPECT_TRUE(std::ranges::equal(map("map.unsigned"), quant::unsigned_dynamic_map().values()));
}

/// Codes of states that are equal but for a few f32 roundings: equal, unless the state lies that close to the midpoint of
/// two values. A state is two products and a sum (3 roundings of 2⁻²⁴), in units of the largest (2 more).
void expect_codes(const quant::DynamicMap& map, const Tensor& found, const Tensor& golden, const std::vector<float>& state,
                  const Tensor& absmax) {
  for (std::size_t i = 0; i < state.size(); ++i) {
    const std::uint8_t a = found.span<std::uint8_t>()[i], b = golden.span<std::uint8_t>()[i];
    if (a == b) continue;
    const double x = static_cast<double>(state[i]) / static_cast<double>(absmax.span<float>()[i / kStateBlock]);
    const double middle = (static_cast<double>(map.values()[a]) + static_cast<double>(map.values()[b])) / 2;
    ASSERT_EQ(std::abs(int{a} - int{b}), 1) << i;
    ASSERT_NEAR(x, middle, 16 * 0x1p-24 * std::abs(middle)) << i;
  }
}

void expect_close(const Tensor& found, const Tensor& golden, float relative, float absolute) {
  for (std::size_t i = 0; i < found.span<float>().size(); ++i) {
    const float expected = golden.span<float>()[i];
    ASSERT_NEAR(found.span<float>()[i], expected, relative * std::abs(expected) + absolute) << i;
  }
}

/// Every step from the package's own states.
TEST_P(Optimizers, StepsEqualThePackages) {
  const std::string name = GetParam() + ".";
  const bool two = GetParam() == "adamw";
  const std::int64_t steps = goldens.at(name + "grad").shape[0];
  for (std::int64_t step = 1; step <= steps; ++step) {
    const Tensor param = row<float>(name + "param", step - 1), grad = row<float>(name + "grad", step - 1);
    std::vector<Tensor> codes, absmax;
    std::vector<std::vector<float>> states;  // new ones, before they are rounded
    for (const char* which : two ? std::vector<const char*>{"1", "2"} : std::vector<const char*>{"1"}) {
      codes.push_back(row<std::uint8_t>(name + "codes" + which, step - 1));
      absmax.push_back(row<float>(name + "absmax" + which, step - 1));
      std::vector<float>& state = states.emplace_back();
      for (std::size_t i = 0; i < codes[0].span<std::uint8_t>().size(); ++i) {
        const bool first = *which == '1';
        const quant::DynamicMap& map = first ? quant::signed_dynamic_map() : quant::unsigned_dynamic_map();
        const float old = map.values()[codes.back().span<std::uint8_t>()[i]] * absmax.back().span<float>()[i / kStateBlock];
        const float g = grad.span<float>()[i], beta = first && two ? 0.9f : 0.99f;
        state.push_back(beta * old + (1 - beta) * (first ? g : g * g));
      }
    }
    if (two)
      adamw(ctx, param, grad, {codes[0], absmax[0]}, {codes[1], absmax[1]},
            {.lr = 1e-2f, .beta1 = 0.9f, .beta2 = 0.99f, .eps = 1e-8f, .weight_decay = 0.1f, .step = step});
    else
      lion(ctx, param, grad, {codes[0], absmax[0]},
           {.lr = 1e-2f, .beta1 = 0.9f, .beta2 = 0.99f, .weight_decay = 0.1f, .step = step});
    // A parameter moves by at most 1e-2 · sqrt(1 / (1 - beta2)) in the first steps; 1 - 0.99f keeps 18 bits.
    expect_close(param, row<float>(name + "param", step), 4 * 0x1p-24f, 0.1f * 0x1p-17f);
    for (std::size_t s = 0; s < codes.size(); ++s) {
      const std::string which = std::to_string(s + 1);
      const Tensor golden_absmax = row<float>(name + "absmax" + which, step);
      expect_close(absmax[s], golden_absmax, 0x1p-17f, 0);
      expect_codes(s == 0 ? quant::signed_dynamic_map() : quant::unsigned_dynamic_map(), codes[s],
                   row<std::uint8_t>(name + "codes" + which, step), states[s], golden_absmax);
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Bitsandbytes, Optimizers, ::testing::Values("adamw", "lion"));

}  // namespace
}  // namespace temper::ops
