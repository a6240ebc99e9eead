#include "model/adapter_difference.h"

#include <algorithm>
#include <cmath>

#include "base/error.h"

namespace temper::model {
namespace {

LoraConfig doubled(LoraConfig config) {
  const double factor = config.rslora ? std::sqrt(2.0) : 2.0;  // of alpha, where s = alpha / sqrt(r) or alpha / r
  config.r *= 2;
  config.alpha *= factor;
  for (auto& item : config.rank_pattern) item.second *= 2;
  for (auto& item : config.alpha_pattern) item.second *= factor;
  return config;
}

}  // namespace

Adapters adapter_difference(const TensorTable& table, const Adapters& adapters, const Adapters& start) {
  for (const Adapters::Entry& entry : adapters.entries())
    if (const Shape& shape = table[entry.tensor].shape; 2 * entry.a.rows() > std::min(shape[0], shape[1]))
      throw Unsupported(
          "{} is {}: what was added to an adapter of rank {} that began as something else has rank {}, which is more than "
          "it "
          "has; export a merged model (hf, gguf:SCHEME)",
          table[entry.tensor].hf_name, shape.str(), entry.a.rows(), 2 * entry.a.rows());
  Adapters out(table, doubled(adapters.config()), adapters.seed());
  for (std::size_t e = 0; e < out.entries().size(); ++e) {
    const Adapters::Entry &to = out.entries()[e], &now = adapters.entries()[e], &then = start.entries()[e];
    const std::int64_t r = now.a.rows();
    std::ranges::copy(now.a.span<const float>(), to.a.slice_rows(0, r).span<float>().begin());
    std::ranges::copy(then.a.span<const float>(), to.a.slice_rows(r, 2 * r).span<float>().begin());
    for (std::int64_t n = 0; n < now.b.rows(); ++n)
      for (std::int64_t i = 0; i < r; ++i) {
        to.b.as<float>()[n * 2 * r + i] = now.b.as<float>()[n * r + i];
        to.b.as<float>()[n * 2 * r + r + i] = -then.b.as<float>()[n * r + i];
      }
    if (now.magnitude) std::ranges::copy(now.magnitude.span<const float>(), to.magnitude.span<float>().begin());
  }
  return out;
}

}  // namespace temper::model
