// Options of adapters and number formats.
#include "recipe/table.h"

namespace temper::recipe {

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
       "Scheme: none, int4-sym-g32, int8-int4, nf4, nvfp4, q4_0, q4_k_m, … (`temper schemes` lists them all), or one's own: "
       "SCHEME/ACTIVATIONS; RULE; … such as \"int4-sym-g32/int8-asym; head: int8-sym; layers 0-3: q8_0\" (docs/schemes.md). "
       "With train: quantization-aware; with quantize and eval: post-training"},
      {"quant.size", "--size", field<&Recipe::quant, &Q::size>(), kQuantize | kPlan,
       "Budget: formats are chosen tensor by tensor so that the model stays below it and nearest to 16-bit; such as 90MB"},
      {.key = "quant.bits",
       .flag = "--bits",
       .field = field<&Recipe::quant, &Q::bits>(),
       .verbs = kQuantize | kPlan,
       .help = "The same budget, as bits per weight over all tensors",
       .unit = "bits",
       .range = {.min = 0, .max = 32}},
      {"quant.types", "--types", field<&Recipe::quant, &Q::types>(), kQuantize | kPlan,
       "Formats to choose from under a budget; empty: those of GGUF from q2_k to q8_0"},
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
      {.key = "quant.init",
       .flag = "--quant-init",
       .field = field<&Recipe::quant, &Q::init>(),
       .verbs = kTrain,
       .help =
           "First scales and codes: fit, or base (those of the base model's file where it holds a tensor in the scheme's "
           "own format, a GPTQ-quantized GGUF say; they are fit again only if quant.refit_every says so)",
       .choices = {"fit", "base"}},
      {.key = "quant.refit_every",
       .flag = "--refit-every",
       .field = field<&Recipe::quant, &Q::refit_every>(),
       .verbs = kTrain,
       .help =
           "A tensor's scales are fit anew every so many steps and kept in between, when only codes are rounded; 0: every "
           "step where a fit is cheap, every 8 where it is a search (K-quants, IQ4)",
       .unit = "steps",
       .range = kCount},
      {.key = "quant.freeze_steps",
       .flag = "--freeze-steps",
       .field = field<&Recipe::quant, &Q::freeze_steps>(),
       .verbs = kTrain,
       .help = "Scales stay as they are over the last steps; -1: a tenth of the run where they are not fit at every step, "
               "else none",
       .unit = "steps",
       .range = {.min = -1, .max = 1e9}},
      {.key = "quant.forward",
       .flag = "--qat-forward",
       .field = field<&Recipe::quant, &Q::forward>(),
       .verbs = kTrain | kDemo,
       .help = "Forward products where activations are rounded to 8 bits: float (of the decoded operands) or integer (in 32 "
               "bits, as eval, generate and chat compute them: the loss of training is that of the exported file)",
       .choices = {"float", "integer"}},
  };
}

}  // namespace temper::recipe
