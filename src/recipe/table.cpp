// The table itself: every option and every verb, once.
#include "recipe/options.h"

namespace temper::recipe {
namespace {

/// The Field of `recipe.*Group.*Member`, its type taken from the member.
template <auto Group, auto Member>
Field field() {
  using Value = std::remove_reference_t<decltype(std::declval<Recipe&>().*Group.*Member)>;
  if constexpr (std::is_enum_v<Value>) {
    return ChoiceField{[](const Recipe& recipe) { return static_cast<std::size_t>(recipe.*Group.*Member); },
                       [](Recipe& recipe, std::size_t index) { recipe.*Group.*Member = static_cast<Value>(index); }};
  } else {
    Value& (*access)(Recipe&) = [](Recipe& recipe) -> Value& { return recipe.*Group.*Member; };
    return access;
  }
}

Field out_field() {
  std::string& (*access)(Recipe&) = [](Recipe& recipe) -> std::string& { return recipe.out; };
  return access;
}

constexpr VerbSet kTrain = verb_bit(Verb::Train), kQuantize = verb_bit(Verb::Quantize), kExport = verb_bit(Verb::Export),
                  kEval = verb_bit(Verb::Eval), kGenerate = verb_bit(Verb::Generate), kChat = verb_bit(Verb::Chat),
                  kDataInspect = verb_bit(Verb::DataInspect), kInspect = verb_bit(Verb::Inspect),
                  kDemo = verb_bit(Verb::Demo), kSchemes = verb_bit(Verb::Schemes);
constexpr VerbSet kTalk = kGenerate | kChat;
constexpr VerbSet kModelVerbs = kTrain | kQuantize | kExport | kEval | kTalk | kDataInspect | kInspect | kDemo;
constexpr VerbSet kRunVerbs = kExport | kEval | kTalk | kDataInspect | kInspect;
constexpr Range kPositive{.min = 1, .max = 1e12};
constexpr Range kCount{.min = 0, .max = 1e12};
constexpr Range kSeed{.min = 0, .max = 9e15};
constexpr Range kBeta{.min = 0, .max = 1, .open_max = true};

using M = ModelOptions;
using D = DataOptions;
using L = LoraOptions;
using Q = QuantOptions;
using T = TrainOptions;
using O = OptimOptions;
using E = EvalOptions;
using G = GenerateOptions;
using I = InspectOptions;
using R = RuntimeOptions;

std::vector<Option> input_options() {
  return {
      {"out", "--out", out_field(), kTrain | kQuantize | kExport | kDemo,
       "Folder (train, export hf or adapter) or file to write"},
      {"model.path", "--model", field<&Recipe::model, &M::path>(), kModelVerbs, "Hugging Face folder or GGUF file"},
      {"model.run", "--run", field<&Recipe::model, &M::run>(), kRunVerbs, "Folder of a training run, in place of --model"},
      {"data.path", "--data", field<&Recipe::data, &D::path>(), kTrain | kEval | kDataInspect,
       "JSONL of rows: to train on, or to score with eval"},
      {"data.eval_path", "--eval-data", field<&Recipe::data, &D::eval_path>(), kTrain, "JSONL of held-out rows"},
      {.key = "data.format",
       .flag = "--format",
       .field = field<&Recipe::data, &D::format>(),
       .verbs = kTrain | kEval | kDataInspect,
       .help = "How a row is read; auto looks at its fields",
       .choices = {"auto", "messages", "prompt-completion", "alpaca", "sharegpt", "text"}},
      {.key = "data.packing",
       .flag = "--packing",
       .field = field<&Recipe::data, &D::packing>(),
       .verbs = kTrain | kDataInspect,
       .help = "packed: whole documents side by side, none seeing another; stream: rows concatenated in file order and cut; "
               "none: one row per sequence",
       .choices = {"packed", "stream", "none"}},
      {.key = "data.seq_len",
       .flag = "--seq-len",
       .field = field<&Recipe::data, &D::seq_len>(),
       .verbs = kTrain | kEval | kDataInspect,
       .help = "Length of a training sequence; longer rows are cut, counted and reported",
       .unit = "tokens",
       .range = {.min = 2, .max = 1 << 20}},
      {.key = "data.max_rows",
       .flag = "--max-rows",
       .field = field<&Recipe::data, &D::max_rows>(),
       .verbs = kTrain,
       .help = "Training rows read; 0: all",
       .unit = "rows",
       .range = kCount},
      {"data.shuffle", "--shuffle", field<&Recipe::data, &D::shuffle>(), kTrain, "Order sequences at random, by train.seed"},
  };
}

std::vector<Option> method_options() {
  return {
      {.key = "lora.r",
       .flag = "--lora-r",
       .field = field<&Recipe::lora, &L::r>(),
       .verbs = kTrain,
       .help = "Rank of the adapters",
       .range = {.min = 1, .max = 4096}},
      {.key = "lora.alpha",
       .flag = "--lora-alpha",
       .field = field<&Recipe::lora, &L::alpha>(),
       .verbs = kTrain,
       .help = "Adapters are scaled by alpha / r",
       .range = {.min = 0, .max = 1e6, .open_min = true}},
      {.key = "lora.target_modules",
       .flag = "--lora-target-modules",
       .field = field<&Recipe::lora, &L::target_modules>(),
       .verbs = kTrain,
       .help = "Linears that get an adapter",
       .choices = {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"}},
      {"lora.rslora", "--rslora", field<&Recipe::lora, &L::rslora>(), kTrain, "Scale adapters by alpha / sqrt(r)"},
      {.key = "lora.dropout",
       .flag = "--lora-dropout",
       .field = field<&Recipe::lora, &L::dropout>(),
       .verbs = kTrain,
       .help = "Dropout on the adapters' input; only without a scheme",
       .range = {.min = 0, .max = 1, .open_max = true}},
      {"quant.scheme", "--scheme", field<&Recipe::quant, &Q::scheme>(), kTrain | kQuantize | kEval,
       "Scheme: none, int4-sym-g32, int8-int4, nf4, nvfp4, q4_0, q4_k_m, … (`temper schemes` lists them all). With train: "
       "quantization-aware; with quantize and eval: post-training"},
      {.key = "quant.start_step",
       .flag = "--qat-start-step",
       .field = field<&Recipe::quant, &Q::start_step>(),
       .verbs = kTrain,
       .help = "Step at which quantization-aware training begins",
       .unit = "steps",
       .range = kCount},
      {.key = "quant.merge_dtype",
       .flag = "--merge-dtype",
       .field = field<&Recipe::quant, &Q::merge_dtype>(),
       .verbs = kTrain | kDemo,
       .help = "Merged weights are rounded to this before the number format: checkpoint (what the merged 16-bit export "
               "holds, so that "
               "other tools arrive at the same codes) or f32 (loses less; the codes are those of this run's own export)",
       .choices = {"checkpoint", "f32"}},
  };
}

std::vector<Option> train_options() {
  return {
      {.key = "train.steps",
       .flag = "--steps",
       .field = field<&Recipe::train, &T::steps>(),
       .verbs = kTrain | kDemo,
       .help = "Optimizer steps; 0: as train.epochs says",
       .unit = "steps",
       .range = kCount},
      {.key = "train.epochs",
       .flag = "--epochs",
       .field = field<&Recipe::train, &T::epochs>(),
       .verbs = kTrain,
       .help = "Passes over the data, in place of train.steps; 1 if neither is given",
       .unit = "epochs",
       .range = {.min = 0, .max = 1e6}},
      {.key = "train.batch_size",
       .flag = "--batch-size",
       .field = field<&Recipe::train, &T::batch_size>(),
       .verbs = kTrain,
       .help = "Sequences per optimizer step",
       .unit = "sequences",
       .range = {.min = 1, .max = 1 << 20}},
      {.key = "train.micro_batch",
       .flag = "--micro-batch",
       .field = field<&Recipe::train, &T::micro_batch>(),
       .verbs = kTrain,
       .help = "Sequences per forward pass: less memory, same result; 0: the whole batch",
       .unit = "sequences",
       .range = {.min = 0, .max = 1 << 20}},
      {.key = "train.seed",
       .flag = "--seed",
       .field = field<&Recipe::train, &T::seed>(),
       .verbs = kTrain | kDemo,
       .help = "Of the order of the data and the adapters' first values",
       .range = kSeed},
      {.key = "train.max_grad_norm",
       .flag = "--max-grad-norm",
       .field = field<&Recipe::train, &T::max_grad_norm>(),
       .verbs = kTrain,
       .help = "Clip the gradient's global norm to this; 0: never"},
      {.key = "train.eval_every",
       .flag = "--eval-every",
       .field = field<&Recipe::train, &T::eval_every>(),
       .verbs = kTrain,
       .help = "Score the held-out rows every so many steps; 0: only at the end",
       .unit = "steps",
       .range = kCount},
      {.key = "train.eval_rows",
       .flag = "--eval-rows",
       .field = field<&Recipe::train, &T::eval_rows>(),
       .verbs = kTrain,
       .help = "Held-out rows scored at most; 0: all",
       .unit = "rows",
       .range = kCount},
      {.key = "train.checkpoint_every",
       .flag = "--checkpoint-every",
       .field = field<&Recipe::train, &T::checkpoint_every>(),
       .verbs = kTrain,
       .help = "Save the state every so many steps; 0: only at the end",
       .unit = "steps",
       .range = kCount},
      {.key = "train.keep_checkpoints",
       .flag = "--keep-checkpoints",
       .field = field<&Recipe::train, &T::keep_checkpoints>(),
       .verbs = kTrain,
       .help = "Latest checkpoints that are kept",
       .range = kPositive},
      {.key = "train.log_every",
       .flag = "--log-every",
       .field = field<&Recipe::train, &T::log_every>(),
       .verbs = kTrain,
       .help = "Write a line of figures to the run's log every so many steps",
       .unit = "steps",
       .range = kPositive},
      {.key = "train.recompute",
       .flag = "--recompute",
       .field = field<&Recipe::train, &T::recompute>(),
       .verbs = kTrain,
       .help = "block: activations are computed again in the backward pass, for less memory; same result",
       .choices = {"none", "block"}},
      {"train.resume", "--resume", field<&Recipe::train, &T::resume>(), kTrain,
       "Go on with the run in this folder; its recipe is the starting point"},
      {"train.profile", "--profile", field<&Recipe::train, &T::profile>(), kTrain,
       "Show where the time of the first steps went, op by op beside the machine's ceilings; a trace for Perfetto goes to "
       "trace.json in the run's folder"},
      {.key = "optim.lr",
       .flag = "--lr",
       .field = field<&Recipe::optim, &O::lr>(),
       .verbs = kTrain | kDemo,
       .help = "Peak learning rate of AdamW",
       .range = {.min = 0, .max = 10}},
      {.key = "optim.schedule",
       .flag = "--schedule",
       .field = field<&Recipe::optim, &O::schedule>(),
       .verbs = kTrain,
       .help = "Course of the learning rate after the warm-up",
       .choices = {"cosine", "linear", "constant"}},
      {.key = "optim.warmup_steps",
       .flag = "--warmup-steps",
       .field = field<&Recipe::optim, &O::warmup_steps>(),
       .verbs = kTrain,
       .help = "Steps over which the learning rate rises linearly",
       .unit = "steps",
       .range = kCount},
      {.key = "optim.min_lr_ratio",
       .flag = "--min-lr-ratio",
       .field = field<&Recipe::optim, &O::min_lr_ratio>(),
       .verbs = kTrain,
       .help = "Cosine and linear end at this share of the peak",
       .range = {.min = 0, .max = 1}},
      {.key = "optim.beta1",
       .flag = "--beta1",
       .field = field<&Recipe::optim, &O::beta1>(),
       .verbs = kTrain,
       .help = "Decay of the first moment",
       .range = kBeta},
      {.key = "optim.beta2",
       .flag = "--beta2",
       .field = field<&Recipe::optim, &O::beta2>(),
       .verbs = kTrain,
       .help = "Decay of the second moment",
       .range = kBeta},
      {.key = "optim.eps",
       .flag = "--eps",
       .field = field<&Recipe::optim, &O::eps>(),
       .verbs = kTrain,
       .help = "Added to the root of the second moment",
       .range = {.min = 0, .max = 1, .open_min = true}},
      {.key = "optim.weight_decay",
       .flag = "--weight-decay",
       .field = field<&Recipe::optim, &O::weight_decay>(),
       .verbs = kTrain,
       .help = "Decoupled decay of the adapters",
       .range = {.min = 0, .max = 10}},
  };
}

std::vector<Option> eval_options() {
  return {
      {"eval.text", "--text", field<&Recipe::eval, &E::text>(), kEval, "Plain text whose perplexity is measured"},
      {"eval.choices", "--choices", field<&Recipe::eval, &E::choices>(), kEval,
       "JSONL of question, choices, answer: accuracy by log-likelihood"},
      {"eval.reference", "--reference", field<&Recipe::eval, &E::reference>(), kEval | kTrain,
       "Model or run to compare with: KL divergence, top-1 agreement, paired intervals; with train, a tuned 16-bit run"},
      {.key = "eval.rows",
       .flag = "--rows",
       .field = field<&Recipe::eval, &E::rows>(),
       .verbs = kEval,
       .help = "Score the first so many rows; 0: all",
       .unit = "rows",
       .range = kCount},
      {.key = "eval.context",
       .flag = "--context",
       .field = field<&Recipe::eval, &E::context>(),
       .verbs = kEval,
       .help = "Window of --text",
       .unit = "tokens",
       .range = {.min = 2, .max = 1 << 20}},
      {.key = "eval.stride",
       .flag = "--stride",
       .field = field<&Recipe::eval, &E::stride>(),
       .verbs = kEval,
       .help = "Tokens that each window scores anew; 0: half the window",
       .unit = "tokens",
       .range = {.min = 0, .max = 1 << 20}},
      {.key = "eval.windows",
       .flag = "--windows",
       .field = field<&Recipe::eval, &E::windows>(),
       .verbs = kEval,
       .help = "stride: overlapping windows, each token scored once; llama-perplexity: as that tool counts",
       .choices = {"stride", "llama-perplexity"}},
      {.key = "eval.bootstrap",
       .flag = "--bootstrap",
       .field = field<&Recipe::eval, &E::bootstrap>(),
       .verbs = kEval | kTrain,
       .help = "Resamples behind each 95 % interval",
       .range = {.min = 1, .max = 1e6}},
      {.key = "eval.seed",
       .flag = "--seed",
       .field = field<&Recipe::eval, &E::seed>(),
       .verbs = kEval,
       .help = "Of the resampling",
       .range = kSeed},
      {"export.to", "--to", field<&Recipe::exporting, &ExportOptions::to>(), kExport,
       "gguf:q4_0, gguf:q4_k_m and other schemes of llama.cpp, gguf:bf16, gguf:f16, hf (merged 16-bit folder) or adapter "
       "(peft layout)"},
  };
}

std::vector<Option> talk_options() {
  return {
      {"generate.prompt", "--prompt", field<&Recipe::generate, &G::prompt>(), kTalk,
       "What to answer; with chat, the first message"},
      {"generate.system", "--system", field<&Recipe::generate, &G::system>(), kTalk,
       "System message; empty: as the chat template has it"},
      {"generate.raw", "--raw", field<&Recipe::generate, &G::raw>(), kGenerate,
       "Continue the prompt as it stands, without the chat template"},
      {.key = "generate.max_tokens",
       .flag = "--max-tokens",
       .field = field<&Recipe::generate, &G::max_tokens>(),
       .verbs = kTalk,
       .help = "New tokens at most",
       .unit = "tokens",
       .range = {.min = 1, .max = 1 << 20}},
      {.key = "generate.temperature",
       .flag = "--temperature",
       .field = field<&Recipe::generate, &G::temperature>(),
       .verbs = kTalk,
       .help = "0: always the likeliest token",
       .range = {.min = 0, .max = 100}},
      {.key = "generate.top_p",
       .flag = "--top-p",
       .field = field<&Recipe::generate, &G::top_p>(),
       .verbs = kTalk,
       .help = "Sample among the likeliest tokens that hold this share",
       .range = {.min = 0, .max = 1, .open_min = true}},
      {.key = "generate.top_k",
       .flag = "--top-k",
       .field = field<&Recipe::generate, &G::top_k>(),
       .verbs = kTalk,
       .help = "Sample among so many likeliest tokens; 0: no limit",
       .range = kCount},
      {.key = "generate.seed",
       .flag = "--seed",
       .field = field<&Recipe::generate, &G::seed>(),
       .verbs = kTalk,
       .help = "Of the sampling",
       .range = kSeed},
      {.key = "inspect.row",
       .flag = "--row",
       .field = field<&Recipe::inspect, &I::row>(),
       .verbs = kDataInspect,
       .help = "First row shown, counted from 1",
       .range = kPositive},
      {.key = "inspect.count",
       .flag = "--count",
       .field = field<&Recipe::inspect, &I::count>(),
       .verbs = kDataInspect,
       .help = "Rows shown",
       .unit = "rows",
       .range = kPositive},
      {.key = "runtime.threads",
       .flag = "--threads",
       .field = field<&Recipe::runtime, &R::threads>(),
       .verbs = kModelVerbs,
       .help = "0: every CPU the process may use; the result does not depend on it",
       .range = {.min = 0, .max = 4096}},
      {.key = "runtime.compute",
       .flag = "--compute",
       .field = field<&Recipe::runtime, &R::compute>(),
       .verbs = kModelVerbs,
       .help = "Operands of matrix products; auto: bf16 where the CPU multiplies it, else f32",
       .choices = {"auto", "bf16", "f32"}},
      {.key = "runtime.activations",
       .flag = "--activations",
       .field = field<&Recipe::runtime, &R::activations>(),
       .verbs = kEval | kTalk,
       .help =
           "Inputs of products with weights in a GGUF number format: 16bit, or 8bit, rounded as llama.cpp's CPU products "
           "round them",
       .choices = {"16bit", "8bit"}},
      {"runtime.json", "--json", field<&Recipe::runtime, &R::json>(), (kModelVerbs & ~kChat) | kSchemes,
       "Print one JSON object"},
      {"runtime.verbose", "--verbose", field<&Recipe::runtime, &R::verbose>(), kModelVerbs, "Say more"},
  };
}

}  // namespace

std::span<const Option> options() {
  static const std::vector<Option> table = [] {
    std::vector<Option> all;
    for (auto part : {input_options, method_options, train_options, eval_options, talk_options})
      for (Option& option : part()) all.push_back(std::move(option));
    return all;
  }();
  return table;
}

std::span<const VerbInfo> verbs() {
  static const std::vector<VerbInfo> table = {
      {Verb::Train, "train", "Fine-tune with LoRA, quantization-aware if a scheme is given",
       "temper train --model MODEL --data train.jsonl --eval-data test.jsonl --scheme q4_0 --steps 60 --lr 4e-4 --out RUN"},
      {Verb::Quantize, "quantize", "Quantize a model after training (PTQ), one tensor at a time",
       "temper quantize --model MODEL --scheme q4_0 --out FILE"},
      {Verb::Export, "export", "Write a run as GGUF, Hugging Face folder or adapter, and verify it",
       "temper export --run RUN --to gguf:q4_0 --out FILE"},
      {Verb::Eval, "eval", "Measure answer NLL, perplexity, KL divergence or accuracy",
       "temper eval --run RUN --data test.jsonl --rows 120 --json"},
      {Verb::Generate, "generate", "Answer one prompt", "temper generate --run RUN --prompt \"What is 3 + 4?\"",
       "generate.prompt"},
      {Verb::Chat, "chat", "Talk with a model or run", "temper chat --run RUN"},
      {Verb::DataInspect, "data inspect", "Show rows as tokens, the learnt ones in colour",
       "temper data inspect --model MODEL --data train.jsonl --row 3", "data.path"},
      {Verb::Inspect, "inspect", "List a model's tensors, their dtypes and sizes", "temper inspect MODEL", "model.path"},
      {Verb::Demo,
       "demo",
       "Tune, quantize, export and measure a small model",
       "temper demo --model MODEL --out demo",
       {},
       true},
      {Verb::Schemes, "schemes", "List the schemes: bits per weight, the files that carry them and who reads those",
       "temper schemes"},
      {Verb::Docs, "docs", "Print docs/recipe.md", "temper docs > docs/recipe.md", {}, true},
  };
  return table;
}

}  // namespace temper::recipe
