// What a verb needs, and what contradicts what.
#include <fmt/ranges.h>

#include "base/error.h"
#include "recipe/options.h"
#include "recipe/sizes.h"

namespace temper::recipe {
namespace {

void require_set(const std::string& value, std::string_view key, Verb verb) {
  if (!value.empty()) return;
  const Option& option = require_option(key, "temper");
  throw BadRecipe("{}: missing; `temper {}` needs it ({}): give {} or put it into the recipe", key, verb_info(verb).name,
                  option.help, option.flag);
}

void require_model_or_run(const Recipe& recipe, Verb verb) {
  if (recipe.model.path.empty() && recipe.model.run.empty())
    throw BadRecipe("`temper {}` needs a model: give --model (Hugging Face folder or GGUF file) or --run",
                    verb_info(verb).name);
  if (!recipe.model.path.empty() && !recipe.model.run.empty())
    throw BadRecipe("model.path ({}) and model.run ({}) contradict each other: keep one; a run knows its model",
                    recipe.model.path, recipe.model.run);
}

void check_length(Recipe& recipe) {
  TrainOptions& train = recipe.train;
  if (train.steps > 0 && train.epochs > 0)
    throw BadRecipe("train.steps ({}) and train.epochs ({}) contradict each other: keep one", train.steps, train.epochs);
  if (train.steps == 0 && train.epochs == 0) train.epochs = 1;
  if (train.steps > 0 && recipe.optim.warmup_steps > train.steps)
    throw BadRecipe("optim.warmup_steps ({}) is more than train.steps ({}): the learning rate would never reach optim.lr",
                    recipe.optim.warmup_steps, train.steps);
  if (train.steps > 0 && recipe.quant.scheme != "none" && recipe.quant.start_step >= train.steps)
    throw BadRecipe("quant.start_step ({}) is not below train.steps ({}): quantization-aware training would never begin",
                    recipe.quant.start_step, train.steps);
}

/// Options of an objective that is not in use would do nothing.
void check_objective(const Recipe& recipe) {
  const DistillOptions& distill = recipe.distill;
  const Recipe defaults;
  const auto unused = [&](std::string_view group, std::string_view objective) {
    for (const Option& option : options())
      if (group_of(option) == group && value_text(option, recipe) != value_text(option, defaults))
        throw BadRecipe("{} ({}) belongs to train.objective {}: give --objective {}, or leave it out", option.key,
                        value_text(option, recipe), objective, objective);
  };
  if (recipe.train.objective != ObjectiveKind::Distill) unused("distill", "distill");
  if (recipe.train.objective != ObjectiveKind::Dpo) unused("dpo", "dpo");
  if (!distill.cache.empty() && distill.top_k == 0)
    throw BadRecipe("distill.cache ({}) without distill.top_k: say how many logits a token the file shall keep",
                    distill.cache);
  if (recipe.train.objective == ObjectiveKind::Dpo) {
    if (recipe.data.packing == Packing::Stream)
      throw BadRecipe("data.packing stream with train.objective dpo: pairs are not cut; take packed or none");
    if (recipe.data.format != DataFormat::Auto)
      throw BadRecipe("data.format with train.objective dpo: its rows have prompt, chosen and rejected; leave it out");
  }
}

/// lora.init, and what a base does not go with that is rounded less an adapter.
void check_init(const Recipe& recipe) {
  const LoraOptions& lora = recipe.lora;
  if (lora.loftq_iterations > 1 && lora.init != LoraInit::LoftQ)
    throw BadRecipe("lora.loftq_iterations ({}) without lora.init loftq: give that, or leave it out", lora.loftq_iterations);
  if (lora.init == LoraInit::Random) return;
  const std::string_view name = lora.init == LoraInit::Pissa ? "pissa" : "loftq";
  if (recipe.train.mode != TrainMode::Lora)
    throw BadRecipe("lora.init {} with train.mode {}: there are no adapters; leave it out", name,
                    recipe.train.mode == TrainMode::Full ? "full" : "quantization");
  if (recipe.model.base_format == ModelOptions().base_format)
    throw BadRecipe(
        "lora.init {} without model.base_format: {}; give model.base_format (nf4-dq say), or leave lora.init out", name,
        lora.init == LoraInit::Pissa ? "the weights less their principal components are held in a number format of that name"
                                     : "adapters begin as what rounding a 16-bit base has lost");
  if (!lora.adapter.empty())
    throw BadRecipe("lora.init {} with lora.adapter ({}): both say what adapters begin as; keep one", name, lora.adapter);
  if (!lora.base_is_residual()) return;
  if (recipe.quant.init == QuantInit::Base)
    throw BadRecipe(
        "quant.init base with lora.init {}: the base is rounded less an adapter, and its scales are not those of the "
        "weights; leave quant.init out",
        name);
  const auto require_other = [&](std::string_view key, const std::string& value) {
    if (value.empty())
      throw BadRecipe(
          "{} with lora.init {}: the base is rounded less an adapter and is no model without one; give {} ({} say)", key,
          name, key, recipe.model.path);
  };
  if (recipe.train.objective == ObjectiveKind::Distill) require_other("distill.teacher", recipe.distill.teacher);
  if (recipe.train.objective == ObjectiveKind::Dpo) require_other("dpo.reference", recipe.dpo.reference);
}

void resolve_train(Recipe& recipe, Verb verb = Verb::Train) {
  TrainOptions& train = recipe.train;
  if (!train.resume.empty()) {
    const auto normal = [](const std::string& path) {
      auto result = std::filesystem::path(path).lexically_normal().string();
      while (result.size() > 1 && result.ends_with('/')) result.pop_back();
      return result;
    };
    if (!recipe.out.empty() && normal(recipe.out) != normal(train.resume))
      throw BadRecipe("out ({}) and train.resume ({}) contradict each other: a resumed run goes on in its own folder",
                      recipe.out, train.resume);
    recipe.out = train.resume;
  }
  require_set(recipe.model.path, "model.path", verb);
  require_set(recipe.data.path, "data.path", verb);
  if (!train.plan) require_set(recipe.out, "out", verb);
  if (!train.memory.empty()) parse_size(train.memory, "train.memory");
  check_length(recipe);
  check_objective(recipe);
  if (recipe.quant.scheme != "none" && recipe.lora.dropout > 0)
    throw BadRecipe(
        "lora.dropout ({}) with quant.scheme ({}): adapter dropout contradicts a merged weight. Quantization-aware training "
        "rounds "
        "W + s·B·A, one weight for all tokens, whereas dropout on the adapter's input would need another weight for each; "
        "set "
        "lora.dropout to 0",
        recipe.lora.dropout, recipe.quant.scheme);
  if (!recipe.lora.adapter.empty() && train.mode != TrainMode::Lora)
    throw BadRecipe("lora.adapter ({}) with train.mode {}: there are no adapters; leave it out", recipe.lora.adapter,
                    train.mode == TrainMode::Full ? "full" : "quantization");
  if (recipe.lora.adapter_any_base && recipe.lora.adapter.empty())
    throw BadRecipe("lora.adapter_any_base without lora.adapter: give the adapter, or leave it out");
  check_init(recipe);
  if (recipe.lora.dora && recipe.lora.dropout > 0)
    throw BadRecipe(
        "lora.dora with lora.dropout ({}): not computed together, since the base's product with the dropped input would "
        "be needed, too; set lora.dropout to 0, or leave lora.dora out",
        recipe.lora.dropout);
  const bool beside = recipe.lora.bias != LoraBias::None || !recipe.lora.modules_to_save.empty();
  if (train.mode == TrainMode::Full && beside)
    throw BadRecipe("lora.bias and lora.modules_to_save with train.mode full, which trains every weight: leave them out");
  if (!recipe.lora.modules_to_save.empty() && recipe.quant.merge_dtype == MergeDtype::F32)
    throw BadRecipe(
        "lora.modules_to_save with quant.merge_dtype f32: embeddings and head ship beside the base's own weights, in its "
        "dtype; leave quant.merge_dtype out");
  if (train.mode == TrainMode::Full && recipe.model.base_format != ModelOptions().base_format)
    throw BadRecipe("model.base_format ({}) with train.mode full: there is no frozen base; leave it out",
                    recipe.model.base_format);
  if (train.mode == TrainMode::Full && recipe.lora.dropout > 0)
    throw BadRecipe("lora.dropout ({}) with train.mode full: there are no adapters; leave it out", recipe.lora.dropout);
  if (recipe.quant.scheme == "none" && recipe.quant.start_step > 0)
    throw BadRecipe("quant.start_step ({}) without a scheme: give quant.scheme, or leave start_step at 0",
                    recipe.quant.start_step);
  const QuantOptions& quant = recipe.quant;
  if ((quant.learn_scales || quant.learn_ranges) && quant.scheme == "none")
    throw BadRecipe("quant.{} without a scheme: give quant.scheme", quant.learn_scales ? "learn_scales" : "learn_ranges");
  if (train.mode == TrainMode::Quantization && !quant.learn_scales && !quant.learn_ranges)
    throw BadRecipe("train.mode quantization trains nothing unless quant.learn_scales or quant.learn_ranges is set");
  if (quant.learn_scales && (quant.refit_every > 0 || quant.freeze_steps > 0 || quant.init == QuantInit::Base))
    throw BadRecipe(
        "quant.learn_scales contradicts quant.refit_every, quant.freeze_steps and quant.init base: factors multiply scales "
        "that are fit at every step");
  if (train.micro_batch > train.batch_size)
    throw BadRecipe("train.micro_batch ({}) is more than train.batch_size ({})", train.micro_batch, train.batch_size);
  if (train.eval_every > 0 && recipe.data.eval_path.empty())
    throw BadRecipe("train.eval_every ({}) without held-out rows: give data.eval_path", train.eval_every);
}

void resolve_gguf(const ExportOptions& options) {
  if (options.split_size.empty()) return;
  parse_size(options.split_size, "export.split_size");
  if (options.modelfile)
    throw BadRecipe("export.modelfile with export.split_size: Ollama reads models of one file; leave one of them out");
}

/// What remains of training's rules are checked when its run is set up.
void resolve_heal(Recipe& recipe) {
  require_set(recipe.model.path, "model.path", Verb::Heal);
  require_set(recipe.out, "out", Verb::Heal);
  if (recipe.quant.scheme == "none")
    throw BadRecipe("quant.scheme: `temper heal` needs one: give --scheme, q4_0 say (`temper schemes` lists them)");
  if (!recipe.distill.teacher.empty() && recipe.distill.weight == 0)
    throw BadRecipe("distill.weight 0 with distill.teacher ({}): nobody would listen to it", recipe.distill.teacher);
  resolve_gguf(recipe.exporting);
}

/// What the method of post-training quantization needs. A matrix or data without a method can mean one thing only.
void resolve_method(Recipe& recipe) {
  QuantOptions& quant = recipe.quant;
  const bool measured = !quant.imatrix.empty() || !recipe.calibration.path.empty();
  if (!quant.imatrix.empty() && !recipe.calibration.path.empty())
    throw BadRecipe("quant.imatrix ({}) and calibration.path ({}) contradict each other: keep one", quant.imatrix,
                    recipe.calibration.path);
  const QuantTransform transform = quant.transform;
  if (transform != QuantTransform::None && transform != QuantTransform::Awq && transform != QuantTransform::SmoothQuant)
    throw BadRecipe(
        "quant.transform: rotations change more than the projections; write the rotated model first (`temper "
        "transform`), and give it as the model");
  if (transform != QuantTransform::None && recipe.calibration.path.empty())
    throw BadRecipe("quant.transform needs calibration data: give --calibration (text, or JSONL of rows)");
  if (quant.method == QuantMethod::Auto)
    quant.method = measured && transform == QuantTransform::None ? QuantMethod::Importance : QuantMethod::Rtn;
  switch (quant.method) {
    case QuantMethod::Rtn:
    case QuantMethod::Percentile:  // calibration data may be for static ranges: Quantizer::fill
      if (!quant.imatrix.empty())
        throw BadRecipe(
            "quant.imatrix: quant.method rtn and absmax-percentile look at weights only; importance and mse use it");
      break;
    case QuantMethod::Auto:
    case QuantMethod::Mse: break;
    case QuantMethod::Importance:
      if (!measured) throw BadRecipe("quant.method importance needs quant.imatrix (--imatrix) or --calibration");
      break;
    case QuantMethod::Gptq:
      if (recipe.calibration.path.empty())
        throw BadRecipe("quant.method gptq needs calibration data: give --calibration (text, or JSONL of rows)");
      break;
    case QuantMethod::Best:
      if (recipe.calibration.path.empty())
        throw BadRecipe("quant.method best needs calibration data: give --calibration (text, or JSONL of rows)");
      if (transform != QuantTransform::None)
        throw BadRecipe("quant.transform with quant.method best: best tries transforms by itself; leave it out");
  }
}

void resolve_transform(const Recipe& recipe) {
  const QuantTransform transform = recipe.quant.transform;
  require_set(recipe.model.path, "model.path", Verb::Transform);
  require_set(recipe.out, "out", Verb::Transform);
  if (transform == QuantTransform::None)
    throw BadRecipe(
        "`temper transform` needs quant.transform: give --transform awq, smoothquant, rotate, rotate+awq or "
        "rotate+smoothquant");
  if (transform != QuantTransform::Rotate && recipe.calibration.path.empty())
    throw BadRecipe(
        "quant.transform awq and smoothquant need calibration data: give --calibration (text, or JSONL of rows)");
  const bool awq = transform == QuantTransform::Awq || transform == QuantTransform::RotateAwq;
  if (awq == (recipe.quant.scheme == "none"))
    throw BadRecipe(
        "quant.transform: awq looks for the scales that serve one scheme (give --scheme), the others serve any "
        "(leave it out)");
}

void resolve_imatrix(const Recipe& recipe) {
  require_set(recipe.model.path, "model.path", Verb::Imatrix);
  require_set(recipe.out, "out", Verb::Imatrix);
  if (recipe.eval.text.empty() == recipe.calibration.path.empty())
    throw BadRecipe("`temper imatrix` needs one of --text (all of it, as llama-imatrix) and --calibration (a choice)");
}

void resolve_eval(Recipe& recipe) {
  require_model_or_run(recipe, Verb::Eval);
  resolve_method(recipe);
  if (recipe.quant.scheme == "none" && recipe.quant.method != QuantMethod::Rtn)
    throw BadRecipe("quant.method without a scheme: give quant.scheme, or leave the method out");
  if (recipe.data.path.empty() && recipe.eval.text.empty() && recipe.eval.choices.empty())
    throw BadRecipe("nothing to measure: give --data (answer NLL), --text (perplexity) or --choices (accuracy)");
  if (recipe.eval.stride > recipe.eval.context)
    throw BadRecipe("eval.stride ({}) is more than eval.context ({}): tokens would be left out", recipe.eval.stride,
                    recipe.eval.context);
  if (recipe.eval.windows == Windows::LlamaPerplexity && recipe.eval.stride != 0)
    throw BadRecipe(
        "eval.stride ({}) with eval.windows llama-perplexity: its windows stand side by side; leave the stride at 0",
        recipe.eval.stride);
}

void resolve_export(const Recipe& recipe) {
  require_model_or_run(recipe, Verb::Export);
  require_set(recipe.exporting.to, "export.to", Verb::Export);
  require_set(recipe.out, "out", Verb::Export);
  const std::string& to = recipe.exporting.to;
  if ((to == "adapter" || to == "gguf-lora") && recipe.model.run.empty())
    throw BadRecipe("export.to {} needs model.run: a model without a run has no adapter", to);
  if (recipe.quant.scheme != "none" && (to == "hf" || to == "adapter" || to.starts_with("gguf")))
    throw BadRecipe("quant.scheme ({}) with export.to {}: that target says itself what it holds; leave the scheme out",
                    recipe.quant.scheme, to);
  if (!to.starts_with("gguf") && (recipe.exporting.modelfile || !recipe.exporting.split_size.empty()))
    throw BadRecipe("export.modelfile and export.split_size belong to GGUF files; export.to is {}", to);
  resolve_gguf(recipe.exporting);
}

bool has_budget(const Recipe& recipe) { return !recipe.quant.size.empty() || recipe.quant.bits > 0; }

void require_text_or_rows(const Recipe& recipe, Verb verb) {
  if (recipe.eval.text.empty() == recipe.data.path.empty())
    throw BadRecipe("`temper {}` measures on one text or data set: give either --text or --data", verb_info(verb).name);
}

/// A budget: one only, without a scheme, and something to judge formats on.
void resolve_budget(const Recipe& recipe) {
  if (!has_budget(recipe)) return;
  if (!recipe.quant.size.empty() && recipe.quant.bits > 0)
    throw BadRecipe("quant.size ({}) and quant.bits ({}) are two budgets; give one", recipe.quant.size, recipe.quant.bits);
  if (recipe.quant.scheme != "none")
    throw BadRecipe(
        "quant.scheme ({}) with a budget: the budget chooses formats tensor by tensor; give quant.types to choose "
        "from others",
        recipe.quant.scheme);
  if (!recipe.exporting.to.empty())
    throw BadRecipe("export.to ({}) with a budget: its mix is written as GGUF; leave export.to out", recipe.exporting.to);
  if (!recipe.quant.size.empty()) parse_size(recipe.quant.size, "quant.size");
  require_text_or_rows(recipe, Verb::Quantize);
}

void resolve_quantize(Recipe& recipe) {
  require_model_or_run(recipe, Verb::Quantize);
  require_set(recipe.out, "out", Verb::Quantize);
  resolve_budget(recipe);
  resolve_gguf(recipe.exporting);
  if (recipe.quant.scheme == "none" && !has_budget(recipe))
    throw BadRecipe("quant.scheme: `temper quantize` needs one: give --scheme, q4_0 say, or a budget: --size or --bits");
  resolve_method(recipe);
  if (!has_budget(recipe)) return;
  require_set(recipe.model.path, "model.path", Verb::Quantize);
  if (recipe.quant.method != QuantMethod::Rtn)
    throw BadRecipe("quant.method with a budget: what a budget chooses is rounded to nearest; leave one of them out");
}

/// A training run, unless something is said that only mixes of formats have.
void resolve_plan(Recipe& recipe) {
  const bool mixes = !recipe.eval.text.empty() || has_budget(recipe) || !recipe.quant.types.empty();
  if (!mixes) {
    if (recipe.data.path.empty() && recipe.train.resume.empty())
      throw BadRecipe(
          "`temper plan` needs a training recipe (`temper plan recipe.yaml`, or --model and --data) to say what it takes, "
          "or "
          "--text to show what mixes of number formats cost");
    recipe.train.plan = true;
    return resolve_train(recipe, Verb::Plan);
  }
  require_set(recipe.model.path, "model.path", Verb::Plan);
  resolve_budget(recipe);
  require_text_or_rows(recipe, Verb::Plan);
}

}  // namespace

Recipe resolve(Recipe recipe, Verb verb) {
  switch (verb) {
    case Verb::Train: resolve_train(recipe); break;
    case Verb::Eval: resolve_eval(recipe); break;
    case Verb::Export: resolve_export(recipe); break;
    case Verb::Compare:
      require_model_or_run(recipe, verb);
      require_text_or_rows(recipe, verb);
      break;
    case Verb::Plan: resolve_plan(recipe); break;
    case Verb::Quantize: resolve_quantize(recipe); break;
    case Verb::Imatrix: resolve_imatrix(recipe); break;
    case Verb::Transform: resolve_transform(recipe); break;
    case Verb::Generate:
      require_model_or_run(recipe, verb);
      require_set(recipe.generate.prompt, "generate.prompt", verb);
      break;
    case Verb::DataInspect: require_set(recipe.data.path, "data.path", verb); [[fallthrough]];
    case Verb::Chat:
    case Verb::Inspect: require_model_or_run(recipe, verb); break;
    case Verb::Heal: resolve_heal(recipe); break;
    case Verb::Demo:
      require_set(recipe.model.path, "model.path", verb);
      require_set(recipe.out, "out", verb);
      break;
    case Verb::Schemes:
    case Verb::Docs: break;
  }
  return recipe;
}

}  // namespace temper::recipe
