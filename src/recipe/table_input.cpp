// Options of what is read and written.
#include "recipe/table.h"

namespace temper::recipe {

std::vector<Option> input_options() {
  return {
      {"out", "--out", out_field(), kTrain | kQuantize | kImatrix | kTransform | kExport | kPlan | kHeal | kDemo,
       "Folder (train, export hf or adapter) or file to write"},
      {"model.path", "--model", field<&Recipe::model, &M::path>(), kModelVerbs, "Hugging Face folder or GGUF file"},
      {"model.run", "--run", field<&Recipe::model, &M::run>(), kRunVerbs, "Folder of a training run, in place of --model"},
      {"model.base_format", "--base-format", field<&Recipe::model, &M::base_format>(), kTrain,
       "What the frozen base is held in while adapters are trained: stored (as its file has it; a quantized file stays "
       "quantized), or a 16-bit file is rounded when it is opened, to nf4-dq, nf4, fp4, int8-sym-g64, q4_k_m, … (any scheme "
       "without activations)"},
      {"data.path", "--data", field<&Recipe::data, &D::path>(), kTrain | kEval | kCompare | kPlan | kQuantize | kDataInspect,
       "JSONL of rows: to train on, or to score with eval"},
      {"data.eval_path", "--eval-data", field<&Recipe::data, &D::eval_path>(), kTrain, "JSONL of held-out rows"},
      {.key = "data.format",
       .flag = "--format",
       .field = field<&Recipe::data, &D::format>(),
       .verbs = kTrain | kEval | kDataInspect | kCompare | kPlan | kQuantize | kImatrix | kTransform,
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
       .verbs = kTrain | kEval | kDataInspect | kCompare | kPlan | kQuantize,
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

}  // namespace temper::recipe
