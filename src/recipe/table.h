// What the parts of the table of options share: how a row names its field, sets of verbs, ranges. Internal to recipe.
#pragma once

#include <type_traits>
#include <utility>
#include <vector>

#include "recipe/options.h"

namespace temper::recipe {

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

inline Field out_field() {
  std::string& (*access)(Recipe&) = [](Recipe& recipe) -> std::string& { return recipe.out; };
  return access;
}

inline constexpr VerbSet kTrain = verb_bit(Verb::Train), kQuantize = verb_bit(Verb::Quantize),
                         kImatrix = verb_bit(Verb::Imatrix), kTransform = verb_bit(Verb::Transform),
                         kExport = verb_bit(Verb::Export), kEval = verb_bit(Verb::Eval),
                         kGenerate = verb_bit(Verb::Generate), kChat = verb_bit(Verb::Chat),
                         kDataInspect = verb_bit(Verb::DataInspect), kInspect = verb_bit(Verb::Inspect),
                         kDemo = verb_bit(Verb::Demo), kSchemes = verb_bit(Verb::Schemes),
                         kCompare = verb_bit(Verb::Compare), kPlan = verb_bit(Verb::Plan), kHeal = verb_bit(Verb::Heal);
inline constexpr VerbSet kTalk = kGenerate | kChat;
inline constexpr VerbSet kModelVerbs = kTrain | kQuantize | kImatrix | kTransform | kExport | kEval | kTalk | kDataInspect |
                                       kInspect | kCompare | kPlan | kHeal | kDemo;
inline constexpr VerbSet kRunVerbs = kQuantize | kExport | kEval | kTalk | kDataInspect | kInspect;
inline constexpr Range kPositive{.min = 1, .max = 1e12};
inline constexpr Range kCount{.min = 0, .max = 1e12};
inline constexpr Range kSeed{.min = 0, .max = 9e15};
inline constexpr Range kBeta{.min = 0, .max = 1, .open_max = true};

using M = ModelOptions;
using D = DataOptions;
using L = LoraOptions;
using Q = QuantOptions;
using C = CalibrationOptions;
using T = TrainOptions;
using O = OptimOptions;
using S = DistillOptions;
using B = DpoOptions;
using E = EvalOptions;
using G = GenerateOptions;
using I = InspectOptions;
using P = CompareOptions;
using H = HealOptions;
using R = RuntimeOptions;

/// The parts of the table, in the order in which --help and docs/recipe.md show them.
std::vector<Option> input_options();      ///< out, model, data
std::vector<Option> method_options();     ///< lora, quant, calibration
std::vector<Option> train_options();      ///< train, optim
std::vector<Option> objective_options();  ///< distill, dpo
std::vector<Option> eval_options();       ///< eval, export
std::vector<Option> heal_options();       ///< heal
std::vector<Option> talk_options();       ///< generate, inspect, runtime

}  // namespace temper::recipe
