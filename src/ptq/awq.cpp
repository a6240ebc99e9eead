#include "ptq/awq.h"

#include <algorithm>
#include <cmath>

#include "base/error.h"
#include "base/parallel.h"
#include "ptq/gptq.h"

namespace temper::ptq {
namespace {

constexpr int kSteps = 20;  // α in steps of 1/20, as in the authors' code

/// Root mean square of the inputs that each factor stands for.
std::vector<double> input_sizes(const TensorView& hessian, std::span<const std::int32_t> share) {
  const auto count = static_cast<std::size_t>(*std::ranges::max_element(share)) + 1;
  std::vector<double> sums(count, 0.0), channels(count, 0.0);
  for (std::size_t c = 0; c < share.size(); ++c) {
    const auto f = static_cast<std::size_t>(share[c]);
    sums[f] += hessian.as<const float>()[static_cast<std::int64_t>(c) * (hessian.row_stride + 1)];
    channels[f] += 1.0;
  }
  for (std::size_t f = 0; f < count; ++f) sums[f] = std::sqrt(sums[f] / channels[f]);
  return sums;
}

std::vector<float> factors_of(std::span<const double> sizes, double alpha) {
  std::vector<double> s;
  for (const double size : sizes) s.push_back(std::max(std::pow(size, alpha), 1e-4));
  const auto [low, high] = std::ranges::minmax_element(s);
  const double middle = std::sqrt(*low * *high);
  std::vector<float> factors;
  for (const double x : s) factors.push_back(static_cast<float>(x / middle));
  return factors;
}

/// Up to `count` rows of a matrix, evenly spread.
Tensor some_rows(const TensorView& matrix, std::int64_t count) {
  const std::int64_t rows = std::min(matrix.rows(), count), cols = matrix.cols();
  Tensor out(DType::F32, {rows, cols});
  for (std::int64_t r = 0; r < rows; ++r)
    std::copy_n(matrix.as<const float>() + r * matrix.rows() / rows * matrix.row_stride, cols, out->as<float>() + r * cols);
  return out;
}

/// decode(encode(W · s)) / s.
Tensor rounded(const quant::Codec& codec, const TensorView& weights, std::span<const float> channels) {
  const std::int64_t rows = weights.rows(), cols = weights.cols();
  const Tensor scaled(DType::F32, {rows, cols}), out(DType::F32, {rows, cols});
  const auto each = [&](auto&& f) {
    parallel_for(rows, 8, [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t r = begin; r < end; ++r)
        for (std::int64_t c = 0; c < cols; ++c) f(r * cols + c, channels[static_cast<std::size_t>(c)]);
    });
  };
  each([&](std::int64_t i, float s) { scaled->as<float>()[i] = weights.as<const float>()[i] * s; });
  const std::size_t bytes = codec.row_bytes(cols);
  std::vector<std::byte> encoded(static_cast<std::size_t>(rows) * bytes);
  const auto encode = [&](std::int64_t begin, std::int64_t end) {
    codec.encode_rows(
        scaled->slice_rows(begin, end),
        std::span(encoded).subspan(static_cast<std::size_t>(begin) * bytes, static_cast<std::size_t>(end - begin) * bytes));
  };
  codec.joins_rows() ? encode(0, rows) : parallel_for(rows, 8, encode);
  codec.decode_rows(encoded, out);
  each([&](std::int64_t i, float s) { out->as<float>()[i] /= s; });
  return out;
}

}  // namespace

std::vector<float> awq_factors(const ExecContext& ctx, std::span<const AwqConsumer> consumers, const TensorView& hessian,
                               std::span<const std::int32_t> share, std::int64_t rows) {
  if (static_cast<std::int64_t>(share.size()) != hessian.cols())
    throw LogicError("AWQ: {} channels, a Hessian {}", share.size(), hessian.shape.str());
  std::vector<AwqConsumer> looked_at;
  std::vector<Tensor> samples;
  for (const AwqConsumer& consumer : consumers)
    if (consumer.codec) looked_at.push_back({samples.emplace_back(some_rows(consumer.weights, rows)), consumer.codec});
  const std::vector<double> sizes = input_sizes(hessian, share);
  std::vector<float> best(sizes.size(), 1.0f), channels(share.size());
  double least = std::numeric_limits<double>::infinity();
  for (int step = 0; step < kSteps && !looked_at.empty(); ++step) {
    const std::vector<float> factors = factors_of(sizes, static_cast<double>(step) / kSteps);
    for (std::size_t c = 0; c < share.size(); ++c) channels[c] = factors[static_cast<std::size_t>(share[c])];
    double error = 0.0;
    for (const AwqConsumer& consumer : looked_at)
      error += output_error(ctx, consumer.weights, rounded(*consumer.codec, consumer.weights, channels), hessian);
    if (error < least) {
      least = error;
      best = factors;
    }
  }
  return best;
}

}  // namespace temper::ptq
