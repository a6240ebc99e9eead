// Formats with static ranges: their parameters, and the backward pass of rounding with them.
#include "quant/static_range.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "base/error.h"
#include "quant/activations.h"
#include "quant/scaled_codec.h"

namespace temper::quant {
namespace {

constexpr float kLow = -128.0f, kHigh = 127.0f;  // of 8-bit integers
constexpr float kNvLargest = 448.0f * 6.0f;

float in_dtype(float x, DType dtype) {
  if (dtype == DType::BF16) return to_float(to_bf16(x));
  if (dtype == DType::F16) return to_float(to_f16(x));
  return x;
}

/// What a file of that dtype holds, and bf16 operands too, so that a scale is one number everywhere.
float stored_scale(float x, DType dtype) {
  const float rounded = in_dtype(dtype == DType::F32 ? x : in_dtype(x, DType::BF16), dtype);
  return rounded > 0.0f && std::isfinite(rounded) ? rounded : std::numeric_limits<float>::epsilon();
}

/// What is inside of a range: x in [low, high].
struct Bounds {
  float low, high;
};

Bounds bounds(const ScaledFormat& format, const StaticRange& range) {
  if (format.integer()) {
    const auto zero = static_cast<float>(range.zero);
    return {(kLow - 0.5f - zero) * range.scale, (kHigh + 0.5f - zero) * range.scale};
  }
  const float largest = small_float(format.element)->largest * range.scale;
  return {-largest, largest};
}

float widened(float x) { return x; }
float widened(bf16 x) { return to_float(x); }
void narrow(float x, float& out) { out = x; }
void narrow(float x, bf16& out) { out = to_bf16(x); }

struct RowSums {
  double values = 0, outside = 0;  ///< Σ g · (x̂ − inside · x), Σ g outside.
};

template <typename X, typename G>
RowSums clip_row(const X* x, const X* rounded, G* grad, std::int64_t n, const Bounds& in) {
  RowSums sums;
  for (std::int64_t i = 0; i < n; ++i) {
    const float value = widened(x[i]), g = widened(grad[i]);
    const bool inside = value >= in.low && value <= in.high;
    sums.values += static_cast<double>(g) * (static_cast<double>(widened(rounded[i])) - (inside ? value : 0.0f));
    if (inside) continue;
    sums.outside += g;
    narrow(0.0f, grad[i]);
  }
  return sums;
}

}  // namespace

bool has_static_range(const Codec& codec) {
  const ScaledCodec* scaled = as_scaled(&codec);
  return scaled && scaled->format().fixed;
}

StaticRange static_range(const Codec& codec, float low, float high, DType scales) {
  if (!has_static_range(codec)) throw LogicError("{} has no static range", codec.name());
  const ScaledFormat& format = as_scaled(&codec)->format();
  low = std::min(low, 0.0f), high = std::max(high, 0.0f);
  const float largest = std::max(-low, high);
  if (format.mapping == Mapping::NvCt) {
    const float global = in_dtype(kNvLargest / std::max(largest, 0x1p-126f), DType::BF16);
    return {std::isfinite(global) ? global : 1.0f, 0};
  }
  if (!format.integer()) return {stored_scale(largest / small_float(format.element)->largest, scales), 0};
  if (!format.asymmetric()) return {stored_scale(largest / 127.5f, scales), 0};
  const float scale = stored_scale((high - low) / 255.0f, scales);
  return {scale, static_cast<std::int32_t>(std::nearbyint(std::clamp(kLow - low / scale, kLow, kHigh)))};
}

bool clips(const InputFormat& format) {
  return format.codec && format.range.known() && has_static_range(*format.codec) && format.codec->group() == 0;
}

RangeGradient clip_backward(const InputFormat& input, const TensorView& x, const TensorView& grad) {
  if (!clips(input) || grad.rows() != x.rows() || grad.cols() != x.cols() ||
      (grad.dtype != x.dtype && grad.dtype != DType::F32))
    throw LogicError("clip_backward: expected a known range, and gradients in F32 or x's dtype; found {} {} of {} {}",
                     dtype_name(grad.dtype), grad.shape.str(), dtype_name(x.dtype), x.shape.str());
  const ScaledFormat& format = as_scaled(input.codec)->format();
  const Bounds in = bounds(format, input.range);
  const std::int64_t n = x.cols();
  std::vector<float> memory(static_cast<std::size_t>(n));
  const TensorView rounded(memory.data(), x.dtype, Shape{1, n});
  RowSums sums;
  for (std::int64_t r = 0; r < x.rows(); ++r) {
    round_activations(*input.codec, x.slice_rows(r, r + 1), rounded, input.range);
    const auto row = [&]<typename X, typename G>(X*, G*) {
      return clip_row(x.as<const X>() + r * x.row_stride, rounded.as<const X>(), grad.as<G>() + r * grad.row_stride, n, in);
    };
    constexpr float* f32 = nullptr;
    constexpr bf16* b16 = nullptr;
    const RowSums of_row = x.dtype == DType::F32 ? row(f32, f32) : grad.dtype == DType::F32 ? row(b16, f32) : row(b16, b16);
    sums.values += of_row.values;
    sums.outside += of_row.outside;
  }
  const auto scale = static_cast<double>(input.range.scale);
  return {sums.values / scale, -scale * sums.outside};
}

}  // namespace temper::quant
