// temper's public C++ API: one function per verb. A Recipe (recipe/recipe.h) says what to do; see docs/recipe.md for every
// option.
//
// Errors are exceptions derived from temper::Error (base/error.h), which carry the exit code that the command line returns.
// Nothing is printed: log lines, status and progress go to the sinks of base/log.h and base/progress.h, results are
// returned.
#pragma once

#include <functional>
#include <string>
#include <string_view>

#include "recipe/recipe.h"

namespace temper::api {

/// What a verb found: for people, and as one JSON object.
struct Outcome {
  std::string text, json;
};

/// Fine-tunes with LoRA, quantization-aware if recipe.quant.scheme is set, into the folder recipe.out (train/loop.h lists
/// its files). With held-out rows the outcome ends with a table: the base, recipe.eval.reference (a tuned 16-bit run) and
/// its post-training quantization if given, and this run.
Outcome train(const Recipe& recipe);

/// Quantizes a model or run without further training to the GGUF recipe.out, by recipe.quant.method.
Outcome quantize(const Recipe& recipe);

/// Measures the importance of the columns of recipe.model's projections on recipe.eval.text (windows as llama-imatrix cuts
/// them) or on recipe.calibration, and writes it in llama.cpp's format to recipe.out (GGUF; the older format for a name that
/// ends in .dat).
Outcome imatrix(const Recipe& recipe);

/// Writes recipe.model.path to the Hugging Face folder recipe.out with weights that quantize better and compute the same, as
/// recipe.quant.transform says: AWQ's or SmoothQuant's scales, rotations. Every other verb takes it as a model.
Outcome transform(const Recipe& recipe);

/// Exports a run or model to recipe.exporting.to at recipe.out, reopens the file and verifies it.
Outcome export_model(const Recipe& recipe);

/// Measures a model or run on rows, a text and multiple choice.
Outcome evaluate(const Recipe& recipe);

/// Receives generated text as it comes, in whole UTF-8 characters.
using TextSink = std::function<void(std::string_view piece)>;

/// Answers recipe.generate.prompt.
Outcome generate(const Recipe& recipe, const TextSink& sink);

/// Converses until `read_line` returns false: each line is a user's turn, each answer streams into `sink`.
void chat(const Recipe& recipe, const std::function<bool(std::string& line)>& read_line, const TextSink& sink);

/// Shows rows of a dataset as the loss sees them; `colour` for terminals.
Outcome inspect_data(const Recipe& recipe, bool colour);

/// Lists a model's tensors, dtypes and sizes.
Outcome inspect(const Recipe& recipe);

/// Lists the schemes: bits per weight of the projections in a model of Llama 3.1 8B's shape, the formats of projections and
/// tables, the export targets that carry each as trained, and who reads those.
Outcome schemes();

/// Sets recipe.compare.schemes side by side on a text or rows: size, memory, loss, KL divergence from the 16-bit model,
/// speed; writes the chart if asked for. See docs/comparing.md.
Outcome compare(const Recipe& recipe);

/// With recipe.train.plan: what a training run would take, of memory and time, and what saves some (docs/memory.md); trains
/// nothing, writes nothing. Otherwise the frontier of dynamic allocations: what the best mixes of formats cost at each size,
/// some of them measured.
Outcome plan(const Recipe& recipe);

/// Quantizes recipe.model.path to recipe.quant.scheme without any data: the model writes text, learns on it to answer as it
/// did, quantized (distillation from itself), and is exported to recipe.out. What an interrupted run has done is kept in
/// recipe.heal.folder, and the same call goes on. The outcome has the divergence from the original before and after.
Outcome heal(const Recipe& recipe);

/// The main job from end to end on generated word problems, in the folder recipe.out: LoRA in 16-bit, quantized after
/// training; LoRA with quantization-aware training; both exported and verified; the table of all.
Outcome demo(const Recipe& recipe);

}  // namespace temper::api
