#include "ptq/method.h"

#include <algorithm>

#include "base/log.h"
#include "base/parallel.h"
#include "ptq/clip.h"
#include "ptq/gptq_method.h"
#include "ptq/imatrix_collect.h"

namespace temper::ptq {
namespace {

using Index = std::int64_t;

constexpr Index kPieceElements = 4 << 20;  // of F32 values at a time, where rows do not share parameters

/// Calls encode(values F32 of some rows) and joins what it returns: all rows at once where they share parameters.
template <typename Encode>
std::vector<std::byte> in_pieces(const ExecContext& ctx, const Matrix& matrix, Encode&& encode) {
  const Index rows = matrix.values.rows(), cols = matrix.values.cols();
  const Index step = matrix.codec.joins_rows() ? rows : std::max<Index>(1, kPieceElements / cols);
  std::vector<std::byte> all;
  all.reserve(static_cast<std::size_t>(rows) * matrix.codec.row_bytes(cols));
  for (Index begin = 0; begin < rows; begin += step) {
    const Tensor values = to_f32(ctx, matrix.values.slice_rows(begin, std::min(rows, begin + step)));
    const std::vector<std::byte> bytes = encode(values.view());
    all.insert(all.end(), bytes.begin(), bytes.end());
  }
  return all;
}

std::vector<float> parameters(const quant::Codec& codec, const TensorView& values) {
  return std::vector<float>(static_cast<std::size_t>(values.rows() * codec.params_per_row(values.cols())));
}

class Nearest final : public Method {
  std::vector<std::byte> encode(const ExecContext& ctx, const Matrix& matrix) override { return encode_rtn(ctx, matrix); }
};

class Percentile final : public Method {
 public:
  explicit Percentile(double percentile) : percentile_(percentile) {}
  std::vector<std::byte> encode(const ExecContext& ctx, const Matrix& matrix) override {
    return encode_percentile(ctx, matrix, percentile_);
  }

 private:
  double percentile_;
};

/// Methods that weight errors by the importance of columns: read from a file, or measured first.
class Weighted final : public Method {
 public:
  Weighted(const recipe::Recipe& recipe, const ImportanceMatrix* importance)
      : mse_(recipe.quant.method == recipe::QuantMethod::Mse),
        memory_(static_cast<std::size_t>(recipe.calibration.memory) << 20),
        importance_(importance) {}

  void prepare(const ExecContext& ctx, model::EncodedWeights& weights, const Calibration* calibration) override {
    if (importance_ || !calibration) return;
    model::Transformer model(weights.base().arch(), weights, nullptr, /*merged=*/true);
    measured_ = collect_importance(ctx, model, weights.table(), *calibration, memory_);
    importance_ = &measured_;
  }

  std::vector<std::byte> encode(const ExecContext& ctx, const Matrix& matrix) override {
    std::vector<float> importance;
    if (importance_) importance = importance_->importance(matrix.info.stored_gguf_name(), matrix.values.cols());
    if (importance_ && importance.empty() && matrix.info.role == quant::Role::Linear)
      log_warning("{}: not in the importance matrix; rounded without", matrix.info.stored_gguf_name());
    return mse_ ? encode_mse(ctx, matrix, importance) : encode_importance(ctx, matrix, importance);
  }

 private:
  bool mse_;
  std::size_t memory_;
  const ImportanceMatrix* importance_;
  ImportanceMatrix measured_;
};

}  // namespace

model::LinearInput input_of(const model::TensorInfo& info) {
  switch (info.place.projection) {
    case quant::Projection::Q:
    case quant::Projection::K:
    case quant::Projection::V: return model::LinearInput::Attention;
    case quant::Projection::O: return model::LinearInput::Output;
    case quant::Projection::Gate:
    case quant::Projection::Up: return model::LinearInput::Mlp;
    case quant::Projection::Down: return model::LinearInput::Down;
    case quant::Projection::None: break;
  }
  return model::LinearInput::Head;
}

Tensor to_f32(const ExecContext& ctx, const TensorView& values) {
  Tensor out(DType::F32, values.shape);
  ops::convert(ctx, values, out);
  return out;
}

std::vector<std::byte> encode_rtn(const ExecContext& ctx, const Matrix& matrix) {
  std::vector<std::byte> bytes(static_cast<std::size_t>(matrix.values.rows()) *
                               matrix.codec.row_bytes(matrix.values.cols()));
  ops::merge_and_encode(ctx, matrix.values, nullptr, matrix.values.dtype, matrix.codec, bytes, nullptr);
  return bytes;
}

std::vector<std::byte> encode_percentile(const ExecContext& ctx, const Matrix& matrix, double percentile) {
  require_clip(matrix.codec, "absmax-percentile");
  return in_pieces(ctx, matrix, [&](const TensorView& values) {
    std::vector<float> params = parameters(matrix.codec, values);
    fit_percentile(matrix.codec, values, percentile, params);
    return round_all(matrix.codec, values, params);
  });
}

std::vector<std::byte> encode_mse(const ExecContext& ctx, const Matrix& matrix, std::span<const float> importance) {
  if (!can_clip(matrix.codec) && !quant::gguf_type(matrix.codec).empty()) return encode_importance(ctx, matrix, importance);
  require_clip(matrix.codec, "mse");
  return in_pieces(ctx, matrix, [&](const TensorView& values) {
    std::vector<float> params = parameters(matrix.codec, values);
    fit_mse(matrix.codec, values, importance, params);
    return round_all(matrix.codec, values, params);
  });
}

std::vector<std::byte> encode_importance(const ExecContext& ctx, const Matrix& matrix, std::span<const float> importance) {
  if (importance.empty()) return encode_rtn(ctx, matrix);
  if (quant::gguf_type(matrix.codec).empty()) return encode_mse(ctx, matrix, importance);
  return in_pieces(ctx, matrix, [&](const TensorView& values) {
    constexpr Index kTileRows = 4;
    const std::size_t row_bytes = matrix.codec.row_bytes(values.cols());
    std::vector<std::byte> bytes(static_cast<std::size_t>(values.rows()) * row_bytes);
    parallel_for(values.rows(), kTileRows, [&](Index begin, Index end) {
      matrix.codec.encode_weighted(values.slice_rows(begin, end), importance,
                                   std::span(bytes).subspan(static_cast<std::size_t>(begin) * row_bytes,
                                                            static_cast<std::size_t>(end - begin) * row_bytes));
    });
    return bytes;
  });
}

namespace {

std::unique_ptr<Method> make_rounding(const recipe::Recipe& recipe, const ImportanceMatrix* importance) {
  switch (recipe.quant.method) {
    case recipe::QuantMethod::Auto:
    case recipe::QuantMethod::Rtn: return std::make_unique<Nearest>();
    case recipe::QuantMethod::Percentile: return std::make_unique<Percentile>(recipe.quant.percentile);
    case recipe::QuantMethod::Mse:
    case recipe::QuantMethod::Importance: return std::make_unique<Weighted>(recipe, importance);
    case recipe::QuantMethod::Gptq: return make_gptq(recipe.quant);
    case recipe::QuantMethod::Best: break;
  }
  throw LogicError("unknown method");
}

}  // namespace

std::unique_ptr<Method> make_method(const recipe::Recipe& recipe, const ImportanceMatrix* importance) {
  std::unique_ptr<Method> rounding = make_rounding(recipe, importance);
  return recipe.quant.transform == recipe::QuantTransform::None ? std::move(rounding)
                                                                : make_scaled(recipe, std::move(rounding));
}

}  // namespace temper::ptq
