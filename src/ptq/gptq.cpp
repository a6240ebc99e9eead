#include "ptq/gptq.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "base/parallel.h"
#include "ptq/gptq_factor.h"

namespace temper::ptq {
namespace {

constexpr std::int64_t kRowTile = 64;  // rows that a thread rounds at a time

/// One matrix on its way through GPTQ. Matrices are F32 [N, K] in the file's order of columns, but for `errors_`, which is
/// in the order of rounding.
class Rounder {
 public:
  Rounder(const ExecContext& ctx, const TensorView& weights, const ErrorFactor& factor, const quant::Codec& codec,
          const GptqOptions& options)
      : ctx_(ctx),
        weights_(weights),
        factor_(factor),
        codec_(codec),
        options_(options),
        rows_(weights.rows()),
        cols_(weights.cols()),
        part_(codec.group() > 0 ? codec.group() : 1),
        row_params_(codec.params_per_row(cols_)),
        part_params_(codec.params_per_row(part_)),
        fit_on_the_way_(!options.act_order && codec.group() > 0 && !codec.joins_rows()),
        params_(static_cast<std::size_t>(rows_ * row_params_)),
        importance_(static_cast<std::size_t>(cols_)),
        values_(DType::F32, {rows_, cols_}),
        decoded_(DType::F32, {rows_, cols_}),
        errors_(DType::F32, {rows_, cols_}) {
    // The weight of a column's error is relative: a mean of 1 keeps it in range.
    double mean = 0.0;
    for (const double d : factor.diagonal) mean += d / static_cast<double>(cols_);
    for (std::size_t p = 0; p < factor.columns.size(); ++p)
      importance_[static_cast<std::size_t>(factor.columns[p])] = static_cast<float>(factor.diagonal[p] / mean);
  }

  GptqResult run() {
    if (!fit_on_the_way_) fit_whole_rows();
    // Blocks end with groups, so that a group fit on the way is up to date as a whole.
    const std::int64_t unit = fit_on_the_way_ ? part_ : 1;
    const std::int64_t block = std::max<std::int64_t>(1, options_.block / unit) * unit;
    double error = 0.0;
    for (std::int64_t begin = 0; begin < cols_; begin += block) {
      const std::int64_t end = std::min(cols_, begin + block);
      error += round_block(begin, end);
    }
    return {encode(), error};
  }

 private:
  std::int64_t column(std::int64_t p) const { return factor_.columns[static_cast<std::size_t>(p)]; }
  std::span<float> params_of(std::int64_t row) {
    return std::span(params_).subspan(static_cast<std::size_t>(row * row_params_), static_cast<std::size_t>(row_params_));
  }

  void fit_whole_rows() {
    const auto fit = [&](std::int64_t begin, std::int64_t end) {
      options_.fit(codec_, weights_.slice_rows(begin, end), importance_,
                   std::span(params_).subspan(static_cast<std::size_t>(begin * row_params_),
                                              static_cast<std::size_t>((end - begin) * row_params_)));
    };
    codec_.joins_rows() ? fit(0, rows_) : parallel_for(rows_, 1, fit);
    codec_.join(params_, rows_, cols_);
  }

  /// Fits group `g` of rows [begin, end) to their values as they now are; values[p - first] are columns p of the block.
  void fit_group(std::int64_t g, std::int64_t begin, std::int64_t end, const float* values, std::int64_t stride) {
    const std::int64_t rows = end - begin;
    const Tensor group(DType::F32, {rows, part_});
    for (std::int64_t r = 0; r < rows; ++r)
      for (std::int64_t c = 0; c < part_; ++c) group->as<float>()[r * part_ + c] = values[c * stride + r];
    std::vector<float> params(static_cast<std::size_t>(rows * part_params_));
    options_.fit(codec_, group,
                 std::span(importance_).subspan(static_cast<std::size_t>(g * part_), static_cast<std::size_t>(part_)),
                 params);
    for (std::int64_t r = 0; r < rows; ++r)
      std::copy_n(params.begin() + r * part_params_, part_params_, params_of(begin + r).begin() + g * part_params_);
  }

  /// Rounds columns [first, last) in the order of rounding; returns their share of the loss.
  double round_block(std::int64_t first, std::int64_t last) {
    const std::int64_t width = last - first;
    // What the columns before the block did to it, summed over all of them at once.
    const Tensor block(DType::F32, {rows_, width});
    if (first > 0)
      ops::matmul(ctx_, errors_->slice_cols(0, first), factor_.upper->slice_rows(0, first).slice_cols(first, last), block);
    else
      std::fill_n(block->as<float>(), rows_ * width, 0.0f);
    std::vector<double> losses(static_cast<std::size_t>(rows_));
    parallel_for(rows_, kRowTile, [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t r = begin; r < end; r += kRowTile)
        round_tile(first, last, r, std::min(end, r + kRowTile), block, losses);
    });
    double sum = 0.0;
    for (const double loss : losses) sum += loss;
    return sum;
  }

  void round_tile(std::int64_t first, std::int64_t last, std::int64_t begin, std::int64_t end, const TensorView& block,
                  std::vector<double>& losses) {
    const std::int64_t rows = end - begin, width = last - first;
    // By columns: values[p - first][row].
    std::vector<float> values(static_cast<std::size_t>(width * rows)), errors(static_cast<std::size_t>(rows));
    for (std::int64_t r = 0; r < rows; ++r)
      for (std::int64_t p = 0; p < width; ++p)
        values[p * rows + r] = weights_.as<const float>()[(begin + r) * weights_.row_stride + column(first + p)] +
                               block.as<const float>()[(begin + r) * width + p];
    PartRounder part(codec_, rows, part_, part_params_);
    for (std::int64_t p = 0; p < width; ++p) {
      const std::int64_t c = column(first + p), g = c / part_;
      float* value = values.data() + p * rows;
      if (fit_on_the_way_ && c % part_ == 0) fit_group(g, begin, end, value, rows);
      if (part.group != g) {
        part.group = g;
        for (std::int64_t r = 0; r < rows; ++r)
          codec_.group_params(params_of(begin + r), cols_, codec_.group() > 0 ? g : 0, part.params_of(r));
      }
      part.round(c % part_, value, errors.data());  // decoded values
      const double weight = factor_.diagonal[static_cast<std::size_t>(first + p)];
      for (std::int64_t r = 0; r < rows; ++r) {
        const std::int64_t at = (begin + r) * cols_ + c;
        values_->as<float>()[at] = value[r];
        decoded_->as<float>()[at] = errors[r];
        const double lost = static_cast<double>(value[r]) - errors[r];
        losses[static_cast<std::size_t>(begin + r)] += weight * lost * lost;
        errors[r] = weights_.as<const float>()[(begin + r) * weights_.row_stride + c] - errors[r];
        errors_->as<float>()[(begin + r) * cols_ + first + p] = errors[r];
      }
      const float* upper = factor_.upper->as<const float>() + (first + p) * cols_ + first;
      for (std::int64_t q = p + 1; q < width; ++q) {
        float* later = values.data() + q * rows;
        const float factor = upper[q];
        for (std::int64_t r = 0; r < rows; ++r) later[r] += errors[r] * factor;
      }
    }
  }

  /// Rounds one column of a group of some rows with their parameters, as part of a matrix one group wide.
  struct PartRounder {
    PartRounder(const quant::Codec& codec_, std::int64_t rows, std::int64_t cols, std::int64_t per_row_)
        : codec(codec_),
          per_row(static_cast<std::size_t>(per_row_)),
          params(static_cast<std::size_t>(rows) * per_row),
          bytes(static_cast<std::size_t>(rows) * codec_.row_bytes(cols)),
          values(DType::F32, {rows, cols}, /*zero=*/true),
          decoded(DType::F32, {rows, cols}) {}

    std::span<float> params_of(std::int64_t row) {
      return std::span(params).subspan(static_cast<std::size_t>(row) * per_row, per_row);
    }
    void round(std::int64_t at, const float* in, float* out) {
      const std::int64_t rows = values->rows(), cols = values->cols();
      for (std::int64_t r = 0; r < rows; ++r) values->as<float>()[r * cols + at] = in[r];
      codec.round_rows(values, params, bytes);
      codec.decode_rows(bytes, decoded);
      for (std::int64_t r = 0; r < rows; ++r) out[r] = decoded->as<float>()[r * cols + at];
    }

    const quant::Codec& codec;
    std::int64_t group = -1;
    std::size_t per_row;
    std::vector<float> params;
    std::vector<std::byte> bytes;
    Tensor values, decoded;
  };

  std::vector<std::byte> encode() {
    const std::size_t bytes = codec_.row_bytes(cols_);
    std::vector<std::byte> encoded(static_cast<std::size_t>(rows_) * bytes);
    const auto per_row = static_cast<std::size_t>(row_params_);
    parallel_for(rows_, 16, [&](std::int64_t begin, std::int64_t end) {
      const auto first = static_cast<std::size_t>(begin), count = static_cast<std::size_t>(end - begin);
      const std::span<std::byte> out = std::span(encoded).subspan(first * bytes, count * bytes);
      codec_.round_rows(values_->slice_rows(begin, end), std::span(params_).subspan(first * per_row, count * per_row), out);
      const Tensor again(DType::F32, {end - begin, cols_});
      codec_.decode_rows(out, again);
      const float* chosen = decoded_->as<const float>() + begin * cols_;
      for (std::int64_t i = 0; i < again->shape.numel(); ++i)
        if (again->as<const float>()[i] != chosen[i])
          throw LogicError("GPTQ: {} rounds a value apart ({}) and in its row ({}) to different codes, row {} column {}",
                           codec_.name(), chosen[i], again->as<const float>()[i], begin + i / cols_, i % cols_);
    });
    return encoded;
  }

  const ExecContext& ctx_;
  const TensorView weights_;
  const ErrorFactor& factor_;
  const quant::Codec& codec_;
  const GptqOptions& options_;
  const std::int64_t rows_, cols_, part_, row_params_, part_params_;
  const bool fit_on_the_way_;
  std::vector<float> params_, importance_;
  Tensor values_, decoded_, errors_;
};

}  // namespace

void fit_importance(const quant::Codec& codec, const TensorView& values, std::span<const float> importance,
                    std::span<float> params) {
  const auto per_row = static_cast<std::size_t>(codec.params_per_row(values.cols()));
  for (std::int64_t r = 0; r < values.rows(); ++r)
    codec.fit_weighted({values.as<const float>() + r * values.row_stride, static_cast<std::size_t>(values.cols())},
                       importance, params.subspan(static_cast<std::size_t>(r) * per_row, per_row));
}

GptqResult gptq(const ExecContext& ctx, const TensorView& weights, const TensorView& hessian, const quant::Codec& codec,
                const GptqOptions& options) {
  if (!codec.fits(weights.cols()))
    throw BadRecipe("GPTQ: groups of {} ({}) do not divide rows of {} weights", codec.group(), codec.name(), weights.cols());
  if (hessian.cols() != weights.cols())
    throw LogicError("GPTQ: weights {} with a Hessian {}", weights.shape.str(), hessian.shape.str());
  for (std::int64_t r = 0; r < weights.rows(); ++r)
    for (std::int64_t c = 0; c < weights.cols(); ++c)
      if (!std::isfinite(weights.as<const float>()[r * weights.row_stride + c]))
        throw Diverged("GPTQ: a weight is not finite, row {} column {}", r, c);
  const ErrorFactor factor = factor_hessian(hessian, options.damping, options.act_order);
  return Rounder(ctx, weights, factor, codec, options).run();
}

double output_error(const ExecContext& ctx, const TensorView& weights, const TensorView& rounded,
                    const TensorView& hessian) {
  const std::int64_t rows = weights.rows(), cols = weights.cols();
  const Tensor difference(DType::F32, {rows, cols}), product(DType::F32, {rows, cols});
  for (std::int64_t r = 0; r < rows; ++r)
    for (std::int64_t c = 0; c < cols; ++c)
      difference->as<float>()[r * cols + c] =
          weights.as<const float>()[r * weights.row_stride + c] - rounded.as<const float>()[r * rounded.row_stride + c];
  ops::matmul(ctx, difference, hessian, product);
  double sum = 0.0;
  for (std::int64_t i = 0; i < rows * cols; ++i)
    sum += static_cast<double>(difference->as<const float>()[i]) * product->as<const float>()[i];
  return sum;
}

}  // namespace temper::ptq
