#include "ptq/quantizer.h"

#include <algorithm>
#include <cstring>

#include "base/log.h"
#include "base/progress.h"
#include "eval/range_calibration.h"
#include "ptq/runner.h"
#include "quant/activations.h"

namespace temper::ptq {
namespace {

std::string_view method_name(recipe::QuantMethod method) {
  switch (method) {
    case recipe::QuantMethod::Auto:
    case recipe::QuantMethod::Rtn: return "rounded to nearest";
    case recipe::QuantMethod::Percentile: return "ranges clipped at a percentile";
    case recipe::QuantMethod::Mse: return "ranges of the smallest squared error";
    case recipe::QuantMethod::Importance: return "errors weighted by importance";
    case recipe::QuantMethod::Gptq: return "GPTQ";
    case recipe::QuantMethod::Best: break;  // a way is chosen first (best.h)
  }
  throw LogicError("unknown method");
}

std::string describe(const recipe::QuantOptions& quant) {
  const std::string_view changed = transform_name(quant.transform);
  return fmt::format("{}{}{}", changed, changed.empty() ? "" : ", ", method_name(quant.method));
}

bool weights_only(const recipe::QuantOptions& quant) {
  const bool method = quant.method == recipe::QuantMethod::Rtn || quant.method == recipe::QuantMethod::Percentile;
  return method && quant.transform == recipe::QuantTransform::None;
}

/// True if a file has parameters of these tensors once: they are parts of one stored matrix, in a format that has some of a
/// whole matrix.
bool share_parameters(const model::EncodedWeights& weights, std::span<const std::size_t> parts) {
  const quant::Codec* codec = weights.codec(parts.front());
  return parts.size() > 1 && codec && codec->joins_rows() &&
         std::ranges::all_of(parts, [&](std::size_t part) { return weights.codec(part) == codec; });
}

/// Such parts, encoded as the matrix that they are; each gets its rows.
void encode_together(const ExecContext& ctx, model::EncodedWeights& weights, Method& method,
                     std::span<const std::size_t> parts) {
  const model::TensorInfo& first = weights.table()[parts.front()];
  const quant::Codec& codec = *weights.codec(parts.front());
  Tensor whole(weights.base().tensor(parts.front()).dtype, first.stored_shape());
  std::int64_t row = 0;
  for (const std::size_t part : parts) {
    const TensorView rows = weights.base().tensor(part);
    std::memcpy(whole->slice_rows(row, row + rows.rows()).data, rows.data, rows.bytes());
    row += rows.rows();
  }
  const std::vector<std::byte> bytes = method.encode(ctx, {parts.front(), first, whole, codec});
  auto next = bytes.begin();
  for (const std::size_t part : parts) {
    const Shape& shape = weights.table()[part].shape;
    const auto end = next + static_cast<std::ptrdiff_t>(static_cast<std::size_t>(shape[0]) * codec.row_bytes(shape[1]));
    weights.set(ctx, part, {next, end});
    next = end;
  }
}

}  // namespace

std::string_view transform_name(recipe::QuantTransform transform) {
  switch (transform) {
    case recipe::QuantTransform::None: return "";
    case recipe::QuantTransform::Awq: return "scaled by AWQ";
    case recipe::QuantTransform::SmoothQuant: return "scaled by SmoothQuant";
    case recipe::QuantTransform::Rotate: return "rotated";
    case recipe::QuantTransform::RotateAwq: return "rotated and scaled by AWQ";
    case recipe::QuantTransform::RotateSmoothQuant: return "rotated and scaled by SmoothQuant";
  }
  throw LogicError("unknown transform");
}

void make_codes(const ExecContext& ctx, model::EncodedWeights& weights, Method& method, const Calibration* calibration,
                std::size_t memory_limit) {
  const model::TensorTable& table = weights.table();
  method.prepare(ctx, weights, calibration);
  Progress progress("quantize", static_cast<std::int64_t>(table.size()));
  std::int64_t done = 0;
  const auto encode = [&](std::span<const std::size_t> parts) {
    progress.update(done += std::ssize(parts));
    if (share_parameters(weights, parts)) return encode_together(ctx, weights, method, parts);
    for (const std::size_t index : parts)
      if (const quant::Codec* codec = weights.codec(index))
        weights.set(ctx, index, method.encode(ctx, {index, table[index], weights.base().tensor(index), *codec}));
  };
  const std::vector<std::vector<std::size_t>> stored = model::stored_tensors(table);
  for (const std::vector<std::size_t>& parts : stored)
    if (table[parts.front()].role != quant::Role::Linear) encode(parts);
  model::Transformer model(weights.base().arch(), weights, nullptr, /*merged=*/true);
  std::optional<LayerRunner> runner;
  if (method.sequential()) {
    if (!calibration) throw BadRecipe("quant.method: needs calibration data (--calibration)");
    runner.emplace(ctx, model, calibration->batches, memory_limit);
  }
  for (int layer = 0; layer < table.layers(); ++layer) {
    model::Taps* taps = method.begin_layer(layer);
    if (runner && taps) runner->observe(*taps);
    for (const std::vector<std::size_t>& parts : stored)
      if (table[parts.front()].role == quant::Role::Linear && table[parts.front()].layer == layer) encode(parts);
    if (runner) runner->advance();
  }
}

Quantizer::Quantizer(const recipe::Recipe& recipe, const Calibration* calibration, const ImportanceMatrix* importance)
    : recipe_(recipe), given_(calibration), given_importance_(importance), description_(describe(recipe.quant)) {
  if (!importance && !recipe.quant.imatrix.empty()) read_ = read_imatrix(recipe.quant.imatrix);
}

eval::CodeMaker Quantizer::maker() {
  const bool importance = recipe_.quant.method == recipe::QuantMethod::Importance;
  return {importance ? model::Codes::GivenWithImportance : model::Codes::Given,
          [this](const ExecContext& ctx, model::EncodedWeights& weights, const text::Tokenizer& tokenizer) {
            fill(ctx, weights, tokenizer);
          }};
}

void Quantizer::fill(const ExecContext& ctx, model::EncodedWeights& weights, const text::Tokenizer& tokenizer) {
  std::optional<Calibration> read;
  if (!given_ && !recipe_.calibration.path.empty()) {
    if (weights_only(recipe_.quant) && model::range_sites(weights).empty())
      throw BadRecipe(
          "calibration.path ({}): nothing would use it: quant.method rtn and absmax-percentile look at weights only, and "
          "{} has no static ranges of activations; leave it out, or take quant.method importance, mse or gptq",
          recipe_.calibration.path, weights.scheme().name);
    status("reading calibration data");
    read = load_calibration(recipe_.calibration, recipe_.data, tokenizer);
    log_info("calibration: {} tokens in {} sequences of {}", read->tokens, read->sequences, recipe_.calibration.path);
  }
  const Calibration* calibration = read ? &*read : given_;
  const std::unique_ptr<Method> method = make_method(recipe_, importance());
  make_codes(ctx, weights, *method, calibration, static_cast<std::size_t>(recipe_.calibration.memory) << 20);
  find_ranges(ctx, weights, calibration);
}

/// With the weights as they are quantized by then.
void Quantizer::find_ranges(const ExecContext& ctx, model::EncodedWeights& weights, const Calibration* calibration) const {
  const std::vector<model::RangeSite> sites = model::range_sites(weights);
  if (sites.empty()) return;
  if (!calibration)
    throw BadRecipe("scheme {}: static ranges of activations need calibration data: give --calibration",
                    weights.scheme().name);
  model::Transformer model(weights.base().arch(), weights, nullptr, /*merged=*/true);
  const DType scales = weights.base().storage();
  const auto ends = eval::calibrate_ranges(ctx, model, sites, calibration->batches, recipe_.quant, scales);
  for (std::size_t i = 0; i < sites.size(); ++i)
    model::set_range(weights, sites[i], quant::static_range(*sites[i].codec, ends[i].low, ends[i].high, scales));
}

}  // namespace temper::ptq
