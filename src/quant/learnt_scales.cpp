#include "quant/learnt_scales.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "base/error.h"
#include "quant/checks.h"

namespace temper::quant {
namespace {

using Index = std::int64_t;

void check(const Codec& codec, const TensorView& values, std::span<const std::byte> encoded, std::size_t factors) {
  if (!codec.has_learnable_scales()) throw LogicError("{}: its scales cannot be learnt", codec.name());
  check_matrix(codec, values, encoded.size());
  check_size(codec, "factors", static_cast<std::size_t>(values.rows() * codec.groups(values.cols())), factors);
}

/// Σ dw · (v − z − inside · (w − z)) of one group.
float group_sum(const GroupValues& group, const float* w, const float* v, const float* dw, Index n) {
  constexpr Index kLanes = 8;
  const float half = 0.5f * std::fabs(group.scale);
  const float low = std::min(group.low, group.high) - half, high = std::max(group.low, group.high) + half;
  float lanes[kLanes] = {};
  const auto term = [&](Index i) {
    const float inside = w[i] >= low && w[i] <= high ? w[i] - group.shift : 0.0f;
    return dw[i] * (v[i] - group.shift - inside);
  };
  Index i = 0;
  for (; i + kLanes <= n; i += kLanes)
    for (Index lane = 0; lane < kLanes; ++lane) lanes[lane] += term(i + lane);
  for (; i < n; ++i) lanes[i % kLanes] += term(i);
  return ((lanes[0] + lanes[4]) + (lanes[2] + lanes[6])) + ((lanes[1] + lanes[5]) + (lanes[3] + lanes[7]));
}

}  // namespace

void Codec::multiply_scales(std::span<std::byte>, std::int64_t, std::span<const float>) const {
  throw LogicError("{}: its scales cannot be learnt", name());
}

void Codec::group_values(std::span<const std::byte>, std::int64_t, std::span<GroupValues>) const {
  throw LogicError("{}: its scales cannot be learnt", name());
}

void encode_with_factors(const Codec& codec, const TensorView& values, std::span<const float> factors,
                         std::span<std::byte> encoded) {
  check(codec, values, encoded, factors.size());
  codec.encode_rows(values, encoded);
  const auto groups = static_cast<std::size_t>(codec.groups(values.cols()));
  const std::size_t bytes = codec.row_bytes(values.cols());
  std::vector<float> used(groups);
  for (Index r = 0; r < values.rows(); ++r) {
    const auto at = static_cast<std::size_t>(r);
    std::ranges::transform(factors.subspan(at * groups, groups), used.begin(), used_factor);
    if (std::ranges::all_of(used, [](float factor) { return factor == 1.0f; })) continue;
    const auto row = encoded.subspan(at * bytes, bytes);
    codec.multiply_scales(row, values.cols(), used);
    codec.reround_rows(values.slice_rows(r, r + 1), row);
  }
}

void factor_gradients(const Codec& codec, const TensorView& values, std::span<const std::byte> encoded, const TensorView& dw,
                      std::span<const float> factors, std::span<float> grads) {
  check(codec, values, encoded, factors.size());
  const Index cols = values.cols(), groups = codec.groups(cols), n = cols / groups;
  if (dw.dtype != DType::F32 || dw.rows() != values.rows() || dw.cols() != cols || grads.size() != factors.size())
    throw LogicError("{}: gradients of factors: {} of dw, {} of factors", codec.name(), dw.shape.str(), grads.size());
  const std::size_t bytes = codec.row_bytes(cols);
  std::vector<float> wide(static_cast<std::size_t>(cols)), decoded(static_cast<std::size_t>(cols));
  std::vector<GroupValues> group_values(static_cast<std::size_t>(groups));
  for (Index r = 0; r < values.rows(); ++r) {
    const auto row = encoded.subspan(static_cast<std::size_t>(r) * bytes, bytes);
    codec.group_values(row, cols, group_values);
    codec.decode_rows(row, TensorView(decoded.data(), DType::F32, Shape{1, cols}));
    const float* w = wide.data();
    if (values.dtype == DType::F32)
      w = values.as<const float>() + r * values.row_stride;
    else
      std::ranges::transform(std::span(values.as<const bf16>() + r * values.row_stride, wide.size()), wide.begin(),
                             [](bf16 x) { return to_float(x); });
    for (Index g = 0; g < groups; ++g) {
      const Index at = r * groups + g;
      grads[at] += group_sum(group_values[g], w + g * n, decoded.data() + g * n,
                             dw.as<const float>() + r * dw.row_stride + g * n, n) /
                   used_factor(factors[at]);
    }
  }
}

}  // namespace temper::quant
