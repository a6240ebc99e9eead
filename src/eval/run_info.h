// The folder of a training run: what was trained, from what, and how it ended.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>

namespace temper::eval {

inline constexpr const char* kPissa = "pissa";
inline constexpr const char* kLoftq = "loftq";

/// run.json of a finished (or interrupted) run. Beside it lie recipe.yaml, adapter/ (peft layout, F32 masters) or
/// weights.safetensors (model/trained_weights.h), log.jsonl,
/// checkpoints/ and report.txt.
struct RunInfo {
  std::string base_model;              ///< Path of the base as the user gave it, made absolute.
  std::string base_format = "stored";  ///< What the base was held in (model/base_format.h).
  std::string base_checksum = {};      ///< model::base_checksum of a base that was rounded when it was opened.
  /// kPissa or kLoftq where the base was rounded less the adapter in start/ (train/lora_init.h); empty: it was not.
  std::string lora_init = {};
  std::string scheme = "none";  ///< Scheme that the forward pass used at the end of training.
  bool merged_in_f32 = false;   ///< Merged weights were not rounded to the base's dtype before the scheme.
  bool full = false;            ///< Every weight was trained: weights.safetensors in place of adapter/.
  bool weights_stay = false;    ///< Neither: only scales and ranges of quantization were trained.
  bool static_ranges = false;   ///< Activations have static ranges: ranges.safetensors has them.
  std::int64_t steps = 0;       ///< Optimizer steps done.
  bool kept_codes = false;      ///< Some codes have parameters of their own: codes.safetensors has them.
  std::string
      codes_checksum;  ///< XXH3-64 (hex) over all encoded tensors in table order, as training ended; empty without a scheme.
};

bool is_run(const std::filesystem::path& folder);  ///< True if folder/run.json exists.
RunInfo read_run_info(const std::filesystem::path& folder);
void write_run_info(const RunInfo& info, const std::filesystem::path& folder);

}  // namespace temper::eval
