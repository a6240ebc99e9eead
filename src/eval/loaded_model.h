// A model ready to answer: a Hugging Face folder, a GGUF file, or a training run; 16-bit, or quantized in memory.
#pragma once

#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <string>

#include "eval/run_info.h"
#include "model/adapters.h"
#include "model/checkpoint_reader.h"
#include "model/transformer.h"
#include "model/weights.h"
#include "text/tokenizer.h"

namespace temper::eval {

/// Makes the codes of a model that is quantized in memory, in place of rounding to nearest.
struct CodeMaker {
  model::Codes codes = model::Codes::Given;
  std::function<void(const ExecContext& ctx, model::EncodedWeights& weights, const text::Tokenizer& tokenizer)> fill;
};

/// Opens `path` and builds whatever it takes to run it; without a scheme, weights stay in the number formats in which the
/// file holds them. A run with a scheme is evaluated as trained: its adapters merged,
/// its codes made again (they are a pure function of base and adapter, but where the run kept them) and checked against the
/// run's checksum (VerifyFailed if they differ). A run without a scheme applies its adapters unmerged. A run of full
/// fine-tuning has no adapters, but weights of its own. With `scheme` given,
/// a 16-bit model or run is quantized in memory (PTQ): adapters merged and rounded to 16-bit first; BadRecipe if the run was
/// trained with another scheme. `maker` (may be null) then makes the codes, of a base in which adapters are merged already.
class LoadedModel {
 public:
  static std::unique_ptr<LoadedModel> open(const ExecContext& ctx, const std::filesystem::path& path,
                                           const std::string& scheme = "none", const CodeMaker* maker = nullptr);

  const std::filesystem::path& path() const { return path_; }
  bool from_run() const { return run_.has_value(); }
  const std::optional<RunInfo>& run() const { return run_; }

  /// The base on disk; with tensors that a run has trained in place of the base's.
  const model::CheckpointReader& reader() const { return *reader_; }
  const model::ArchSpec& arch() const { return reader_->arch(); }
  const text::Tokenizer& tokenizer() const { return *tokenizer_; }
  model::Transformer& transformer() { return *transformer_; }
  model::BaseWeights& base() { return *base_; }
  model::Adapters* adapters() { return adapters_.get(); }  ///< Null without adapters.
  /// Masters of what was trained beside the adapters, by table index; empty: nothing.
  const std::vector<Tensor>& beside() const { return beside_; }
  model::EncodedWeights* encoded() { return encoded_.get(); }  ///< Null without a scheme.
  /// "SmolLM2 (Q4_1 GGUF)", "run r1 (q4_0, as trained)", …: for tables and logs.
  std::string description() const;

 private:
  LoadedModel() = default;
  void replace_reader(model::CheckpointReader reader);
  std::filesystem::path path_;
  std::optional<RunInfo> run_;
  std::unique_ptr<model::CheckpointReader> base_reader_;  // what reader_ has been made of; null where it is the base's
  std::unique_ptr<model::CheckpointReader> reader_;
  std::unique_ptr<text::Tokenizer> tokenizer_;
  std::unique_ptr<model::BaseWeights> base_;
  std::unique_ptr<model::Adapters> adapters_;
  std::vector<Tensor> beside_;
  std::unique_ptr<model::EncodedWeights> encoded_;
  std::unique_ptr<model::Transformer> transformer_;
};

/// Bytes of all tensors as the model's scheme (16-bit without one) would store them; norms F32.
std::uint64_t stored_bytes(LoadedModel& model);

/// XXH3-64, in hex, of all encoded tensors in table order.
std::string codes_checksum(const model::EncodedWeights& weights);

}  // namespace temper::eval
