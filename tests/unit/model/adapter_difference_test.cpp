// What training has added to adapters, against sums in double.
#include "model/adapter_difference.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "adapted_arch.h"
#include "base/error.h"
#include "base/rng.h"
#include "model/arch.h"

namespace temper::model {
namespace {

LoraConfig config_of(bool rslora, bool dora) {
  LoraConfig config;
  config.r = 4;
  config.alpha = 6;
  config.rslora = rslora;
  config.dora = dora;
  config.rank_pattern = {{"v_proj", 3}};
  config.alpha_pattern = {{"q_proj", 5.5}};
  return config;
}

void fill(Adapters& adapters, std::uint64_t seed) {
  Rng rng(seed);
  for (float& x : adapters.parameters().span<float>()) x = 2 * rng.uniform() - 1;
}

double element(const Adapters::Entry& entry, std::int64_t n, std::int64_t k) {
  double sum = 0;
  for (std::int64_t r = 0; r < entry.a.rows(); ++r)
    sum += static_cast<double>(entry.b.as<float>()[n * entry.b.cols() + r]) *
           static_cast<double>(entry.a.as<float>()[r * entry.a.cols() + k]);
  return static_cast<double>(entry.scale) * sum;
}

TEST(AdapterDifference, IsWhatWasAdded) {
  const TensorTable table(testing::adapted_arch());
  for (const bool rslora : {false, true}) {
    Adapters now(table, config_of(rslora, true), 1), then(table, config_of(rslora, false), 2);
    fill(now, 3);
    fill(then, 4);
    const Adapters added = adapter_difference(table, now, then);
    EXPECT_EQ(added.config().r, 8);
    for (std::size_t e = 0; e < now.entries().size(); ++e) {
      const Adapters::Entry &a = added.entries()[e], &b = now.entries()[e], &c = then.entries()[e];
      EXPECT_FLOAT_EQ(a.scale, b.scale);
      EXPECT_EQ(a.a.rows(), 2 * b.a.rows());
      EXPECT_TRUE(std::ranges::equal(a.magnitude.span<float>(), b.magnitude.span<float>()));
      // Sums of the same products; rslora's scale may come out one rounding apart.
      for (std::int64_t n = 0; n < a.b.rows(); n += 7)
        for (std::int64_t k = 0; k < a.a.cols(); k += 5)
          EXPECT_NEAR(element(a, n, k), element(b, n, k) - element(c, n, k), 1e-6 * 8 * static_cast<double>(a.scale));
    }
  }
}

TEST(AdapterDifference, RefusesMoreRankThanThereIs) {
  const TensorTable table(testing::adapted_arch());
  LoraConfig config;
  config.r = 25;  // of 48 rows of k_proj
  const Adapters adapters(table, config, 1);
  EXPECT_THROW(adapter_difference(table, adapters, adapters), Unsupported);
}

}  // namespace
}  // namespace temper::model
