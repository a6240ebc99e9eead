// Every option of temper as plain values. What each means, its range and its spelling stand in one place: table.cpp.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

namespace temper::recipe {

/// How rows are read: by their fields, or as stated.
enum class DataFormat { Auto, Messages, PromptCompletion, Alpaca, ShareGpt, Text };

/// Packed: whole documents side by side, none seeing another, positions restart. Stream: rows concatenated in file order and
/// cut into pieces of seq_len. None: one row per sequence.
enum class Packing { Packed, Stream, None };

enum class Schedule { Cosine, Linear, Constant };

/// What is trained. Lora: adapters (and what goes with them: lora.bias, lora.modules_to_save). Full: every weight.
/// Quantization: nothing but scales and ranges (quant.learn_scales, quant.learn_ranges); weights stay.
enum class TrainMode { Lora, Full, Quantization };

/// Where static ranges of activations end: at the extremes of calibration data, at a percentile of its values, or where the
/// squared error of rounding is smallest.
enum class RangeMethod { MinMax, Percentile, Mse };

/// What a step's loss is. CrossEntropy: of the labelled tokens. Distill: their divergence from a teacher, beside it or
/// instead. Dpo: preference of chosen over rejected answers.
enum class ObjectiveKind { CrossEntropy, Distill, Dpo };

/// Biases trained beside adapters: none, every one of the model, or those of adapted projections (peft's `bias`).
enum class LoraBias { None, All, LoraOnly };

/// First values of adapters. Random: A Kaiming-uniform, B zero. LoftQ: what rounding the base has lost, as near as the rank
/// allows. Pissa: the weights' principal components, which the base is then held without.
enum class LoraInit { Random, LoftQ, Pissa };

enum class OptimizerName { AdamW, Lion };

/// What optimizer states are kept in. Bf16: stochastically rounded; Bits8: codes with a factor per block of 256.
enum class StateDtype { F32, Bf16, Bits8 };

/// What is computed again in the backward pass in place of being kept: nothing; norms and activation functions; whole
/// blocks; whole blocks, whose inputs lie in a file meanwhile. The result is the same.
enum class Recompute { None, Selective, Block, Offload };

/// Dtype to which W + s·B·A is rounded before a scheme fits and rounds it. Checkpoint: that of the base, so that any tool
/// that quantizes the merged 16-bit checkpoint arrives at the same codes. F32: no rounding in between, which loses less; the
/// codes are then had from this run's own export only.
enum class MergeDtype { Checkpoint, F32 };

/// Forward products of training where the scheme rounds activations to 8 bits. Float: of the decoded operands. Integer: as
/// eval, generate and chat compute them, in 32 bits, where there is a kernel.
enum class Forward { Float, Integer };

/// Where the scales (and codes) of the first step come from. Fit: from the merged weights. Base: from the base model's file,
/// for every tensor that it holds in the scheme's own format.
enum class QuantInit { Fit, Base };

/// Operands of matrix products. Auto: bf16 where the CPU multiplies bf16, f32 elsewhere.
enum class Compute { Auto, Bf16, F32 };

/// What products take activations as: in the dtype of Compute, or rounded to 8 bits as llama.cpp's CPU products round them
/// for the number format of the weight.
enum class Activations { Bits16, Bits8 };

/// How a text is cut for perplexity. Stride: overlapping windows, each token scored once. LlamaPerplexity: windows side by
/// side of which the second half is scored, as llama.cpp's llama-perplexity counts.
enum class Windows { Stride, LlamaPerplexity };

/// How the codes of post-training quantization are found (src/ptq/method.h). Auto: Importance where a matrix or calibration
/// data are given, else Rtn; resolving a recipe settles which.
enum class QuantMethod { Auto, Rtn, Percentile, Mse, Importance, Gptq, Best };

/// Changes of the weights before they are rounded, after which the model computes the same (src/ptq/fold.h).
enum class QuantTransform { None, Awq, SmoothQuant, Rotate, RotateAwq, RotateSmoothQuant };

struct ModelOptions {
  std::string path;                    ///< Hugging Face folder or GGUF file.
  std::string run;                     ///< Folder of a training run, in place of `path`.
  std::string base_format = "stored";  ///< What a frozen base is held in: as its file has it, or a scheme's formats.
};

struct DataOptions {
  std::string path;       ///< Training rows; for `eval`, the rows to score.
  std::string eval_path;  ///< Held-out rows.
  DataFormat format = DataFormat::Auto;
  Packing packing = Packing::Packed;
  std::int64_t seq_len = 1024;  ///< Tokens per sequence.
  std::int64_t max_rows = 0;    ///< 0: all.
  bool shuffle = true;
};

struct LoraOptions {
  std::string adapter;            ///< Peft folder or run to begin from; empty: random A, zero B.
  bool adapter_any_base = false;  ///< Although it was trained on another file.
  std::int64_t r = 16;            ///< Rank, at least 1.
  double alpha = 32;
  std::vector<std::string> target_modules = {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"};
  bool rslora = false;  ///< Scale alpha / sqrt(r) in place of alpha / r.
  LoraInit init = LoraInit::Random;
  std::int64_t loftq_iterations = 1;  ///< Times that LoftQ rounds the base and decomposes what that has lost.
  bool dora = false;                  ///< Weight-decomposed: a magnitude for each row beside the adapters.
  LoraBias bias = LoraBias::None;
  std::vector<std::string> modules_to_save = {};      ///< embed_tokens, lm_head: trained whole beside the adapters.
  std::vector<std::string> rank_pattern = {};         ///< "q_proj=8": ranks of modules that differ from r.
  std::vector<std::string> alpha_pattern = {};        ///< "q_proj=16": the same of alpha.
  std::vector<std::string> layers_to_transform = {};  ///< "0", "2-5": layers that get adapters; empty: all.
  double dropout = 0;  ///< Refused with a scheme: adapter dropout contradicts a merged weight.
  /// The base is rounded less an adapter, so that without one it is not the model: PiSSA, LoftQ of several iterations.
  bool base_is_residual() const { return init == LoraInit::Pissa || loftq_iterations > 1; }
};

struct QuantOptions {
  std::string scheme = "none";  ///< A name of quant's table of schemes, or "none".
  std::int64_t start_step = 0;  ///< Optimizer step at which fake quantization begins.
  MergeDtype merge_dtype = MergeDtype::Checkpoint;
  QuantInit init = QuantInit::Fit;
  std::int64_t refit_every = 0;    ///< Steps between two fits of a tensor's parameters; 0: as its codec needs.
  std::int64_t freeze_steps = -1;  ///< Last steps without a fit; -1: a tenth of the run where not every step fits.
  Forward forward = Forward::Float;
  bool learn_scales = false;  ///< A factor for each group's scale is trained.
  double scales_lr = 1e-3;    ///< Its peak learning rate.
  bool learn_ranges = false;  ///< Static ranges of activations are trained.
  double ranges_lr = 1e-3;
  RangeMethod range_method = RangeMethod::MinMax;
  double range_percentile = 99.99;   ///< RangeMethod::Percentile: of the values.
  std::int64_t range_tokens = 4096;  ///< Training: tokens of the first rows that ranges are calibrated on.
  std::string size;                  ///< Budget of a dynamic allocation ("90MB"), all tensors of the file; empty: see bits.
  double bits = 0;                   ///< The same as bits per weight over all tensors; 0: no budget.
  std::vector<std::string> types;    ///< Formats that a dynamic allocation chooses from; empty: GGUF's.
  double sensitivity_minutes = 20;   ///< What measuring the formats' costs may take; 0: as long as every tensor alone takes.
  QuantMethod method = QuantMethod::Auto;
  double percentile = 99.9;    ///< QuantMethod::Percentile: of the magnitudes of a group.
  double gptq_damping = 0.01;  ///< Share of the mean of the Hessian's diagonal added to it.
  bool gptq_act_order = true;  ///< Columns by falling size of their inputs.
  QuantTransform transform = QuantTransform::None;
  double smoothquant_alpha = 0.5;  ///< 0: all for the weights; 1: all for the activations.
  std::int64_t rotation_seed = 0;  ///< Of the signs.
  std::string imatrix;             ///< Importance matrix as llama.cpp writes it, GGUF or its older format.
};

/// What post-training quantization shows the model.
struct CalibrationOptions {
  std::string path;             ///< Plain text, or rows (.jsonl).
  std::int64_t tokens = 65536;  ///< At most about so many; 0: all.
  std::int64_t context = 512;   ///< Tokens per sequence.
  std::int64_t seed = 0;        ///< Which sequences, if there are more.
  std::int64_t memory = 1024;   ///< MB of hidden states in memory; more lie in a file.
};

struct TrainOptions {
  TrainMode mode = TrainMode::Lora;
  ObjectiveKind objective = ObjectiveKind::CrossEntropy;
  std::int64_t steps = 0;              ///< Optimizer steps; 0: as `epochs` says.
  double epochs = 0;                   ///< resolve() sets 1 if neither is given.
  std::int64_t batch_size = 4;         ///< Sequences per optimizer step.
  std::int64_t micro_batch = 0;        ///< Sequences per forward pass; 0: the whole batch.
  std::int64_t seed = 0;               ///< Order of the data and adapter initialisation.
  double max_grad_norm = 1.0;          ///< 0: no clipping.
  std::int64_t eval_every = 0;         ///< Steps; 0: only at the end.
  std::int64_t eval_rows = 200;        ///< Held-out rows scored at each evaluation; 0: all.
  std::int64_t checkpoint_every = 50;  ///< Steps; 0: only at the end.
  std::int64_t keep_checkpoints = 2;
  std::int64_t log_every = 1;  ///< Steps.
  Recompute recompute = Recompute::Block;
  std::string memory;    ///< Limit ("8GiB") within which recompute and micro_batch are chosen; empty: none.
  bool plan = false;     ///< Only what the run would take.
  std::string resume;    ///< Folder of the run to go on with.
  bool profile = false;  ///< Time by op of the first steps.
};

/// ObjectiveKind::Distill: loss = (1 − weight) · NLL + weight · τ² · KL(teacher ‖ student) at temperature τ.
struct DistillOptions {
  std::string teacher;     ///< Model or run; empty: the base of this run, unquantized, without what is trained.
  double weight = 1;       ///< Of the divergence, 0 to 1.
  double temperature = 1;  ///< τ
  std::int64_t top_k = 0;  ///< Above 0: so many of the teacher's logits a token, computed once and kept in a file.
  std::string cache;       ///< That file; empty: in the run's folder.
};

/// ObjectiveKind::Dpo.
struct DpoOptions {
  double beta = 0.1;
  double label_smoothing = 0;  ///< Share of pairs that are taken to be the wrong way round.
  double rpo_alpha = 0;        ///< Weight of the chosen answers' NLL beside the preference.
  std::string reference;       ///< Model or run; empty: as DistillOptions::teacher.
};

struct OptimOptions {
  OptimizerName name = OptimizerName::AdamW;
  StateDtype state = StateDtype::F32;
  double lr = 2e-4;
  Schedule schedule = Schedule::Cosine;
  std::int64_t warmup_steps = 0;
  double min_lr_ratio = 0;  ///< Cosine and linear end at lr × this.
  double beta1 = 0.9, beta2 = 0.999, eps = 1e-8;
  double weight_decay = 0;
};

struct EvalOptions {
  std::string text;            ///< Plain text file for perplexity.
  std::string choices;         ///< JSONL of question, choices, answer.
  std::string reference;       ///< Model or run to compare with.
  std::int64_t rows = 0;       ///< Rows scored; 0: all.
  std::int64_t context = 512;  ///< Tokens per window of `text`.
  std::int64_t stride = 0;     ///< New tokens per window; 0: half the context.
  Windows windows = Windows::Stride;
  std::int64_t bootstrap = 1000;  ///< Resamples behind each 95 % interval.
  std::int64_t seed = 0;          ///< Of the bootstrap.
};

struct ExportOptions {
  /// gguf:SCHEME (a file type of llama.cpp), gguf:bf16, gguf:f16, gguf-lora, a wire (torchao …), executorch, hf or adapter.
  std::string to;
  std::string split_size;  ///< GGUF: cut into parts of at most so many bytes of tensors ("2GB"); empty: one file.
  bool modelfile = false;  ///< GGUF: write an Ollama Modelfile beside it.
};

struct GenerateOptions {
  std::string prompt;
  std::string system;             ///< System message; empty: the template's own.
  bool raw = false;               ///< Continue `prompt` as it stands, without the chat template.
  std::int64_t max_tokens = 256;  ///< New tokens at most.
  double temperature = 0.7;       ///< 0: always the likeliest token.
  double top_p = 0.95;
  std::int64_t top_k = 0;  ///< 0: no limit.
  std::int64_t seed = 0;
};

struct CompareOptions {
  std::vector<std::string> schemes = {"q8_0", "q6_k", "q5_k_m", "q4_k_m", "q4_0", "q3_k_m", "q2_k"};
  std::vector<std::string> methods = {"best"};  ///< Each scheme's best of these is shown; "best": all that serve it.
  std::string chart;                            ///< SVG to write; empty: none.
  std::int64_t speed_tokens = 32;               ///< Tokens generated to measure speed; 0: not measured.
};

struct InspectOptions {
  std::int64_t row = 1;    ///< First row shown, counted from 1.
  std::int64_t count = 1;  ///< Rows shown.
};

/// A model that learns to be quantized from text that it wrote itself.
struct HealOptions {
  std::int64_t tokens = 131072;         ///< Of text to learn from.
  std::int64_t length = 512;            ///< Of each piece.
  std::int64_t held_out_tokens = 8192;  ///< Of text to measure on.
  double temperature = 1;               ///< Of sampling.
  std::int64_t seed = 0;                ///< Of sampling.
  std::int64_t batch = 0;               ///< Pieces written side by side; 0: see eval::TextSampling.
  std::string folder;                   ///< Text, run and report; empty: `out` and ".heal".
};

struct RuntimeOptions {
  std::int64_t threads = 0;  ///< 0: every CPU the process may use.
  Compute compute = Compute::Auto;
  Activations activations = Activations::Bits16;
  bool json = false;  ///< Print one JSON object on stdout.
  bool verbose = false;
};

struct Recipe {
  std::string out;  ///< Folder or file that the verb writes.
  ModelOptions model;
  DataOptions data;
  LoraOptions lora;
  QuantOptions quant;
  CalibrationOptions calibration;
  TrainOptions train;
  OptimOptions optim;
  DistillOptions distill;
  DpoOptions dpo;
  EvalOptions eval;
  ExportOptions exporting;  ///< Keys "export.…" (`export` is a C++ keyword).
  GenerateOptions generate;
  CompareOptions compare;
  InspectOptions inspect;
  HealOptions heal;
  RuntimeOptions runtime;
};

enum class Verb {
  Train,
  Quantize,
  Imatrix,
  Transform,
  Export,
  Eval,
  Generate,
  Chat,
  DataInspect,
  Inspect,
  Compare,
  Plan,
  Heal,
  Demo,
  Schemes,
  Docs
};

/// Name of the recipe in a run's folder.
inline constexpr std::string_view kRecipeFileName = "recipe.yaml";

/// True if every option has the same value.
bool equal(const Recipe& a, const Recipe& b);

/// Every option as YAML, grouped, parseable by parse_yaml to an equal recipe.
std::string to_yaml(const Recipe& recipe);

/// Overlays the YAML text on `recipe`. `origin` names the text in messages. Throws BadRecipe naming origin, line and key for
/// an unknown key (with the nearest known one), a wrong type, or a value out of range.
void parse_yaml(std::string_view text, std::string_view origin, Recipe& recipe);

/// Overlays a recipe file; throws BadFile if it cannot be read, otherwise as parse_yaml.
void load_yaml(const std::filesystem::path& path, Recipe& recipe);

/// Checks that `verb` has what it needs and that no option contradicts another, and fills what follows from others. Throws
/// BadRecipe.
Recipe resolve(Recipe recipe, Verb verb);

}  // namespace temper::recipe

namespace temper {
using recipe::Recipe;
}
