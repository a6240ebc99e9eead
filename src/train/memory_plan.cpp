#include "train/memory_plan.h"

#include <fmt/format.h>

#include <ctime>
#include <numeric>

namespace temper::train {

std::size_t MemoryPlan::peak() const {
  return std::accumulate(parts.begin(), parts.end(), std::size_t{0},
                         [](std::size_t sum, const MemoryPart& part) { return sum + part.bytes; });
}

std::string MemoryPlan::text() const {
  std::string text = "memory, MB:\n";
  for (const MemoryPart& part : parts)
    if (part.bytes > 0) text += fmt::format("  {:<24} {:>8.1f}\n", part.name, static_cast<double>(part.bytes) * 1e-6);
  return text + fmt::format("  {:<24} {:>8.1f}", "peak", static_cast<double>(peak()) * 1e-6);
}

namespace {

constexpr std::string_view kHeading = "recompute     micro-batch memory, MB  expected time\n";

std::string line_of(const MemoryChoice& choice, const MemoryChoice& fastest) {
  return fmt::format("{:<12} {:>12} {:>10.1f} {:>+13.0f}%", recompute_name(choice.recompute), choice.micro_batch,
                     static_cast<double>(choice.peak) * 1e-6, 100 * (choice.work / fastest.work - 1));
}

}  // namespace

std::string_view recompute_name(recipe::Recompute recompute) {
  constexpr std::string_view kNames[] = {"none", "selective", "block", "offload"};
  return kNames[static_cast<std::size_t>(recompute)];
}

std::string text_of(const std::vector<MemoryChoice>& choices) {
  std::string text(kHeading);
  for (const MemoryChoice& choice : choices) text += line_of(choice, choices.front()) + "\n";
  return text;
}

std::string RunPlan::text() const {
  std::string out = memory.text() + "\n\nwith weights of    ";
  for (const MemoryAtBits& at : at_bits) out += fmt::format("{:>9}", fmt::format("{} bits", at.bits));
  for (const bool whole : {false, true}) {
    out += whole ? "\nthe run's peak, MB " : "\nweights alone, MB  ";
    for (const MemoryAtBits& at : at_bits)
      out += fmt::format("{:>9.1f}", static_cast<double>(whole ? at.peak : at.weights) * 1e-6);
  }
  out += fmt::format("\n\n{}", kHeading);
  for (std::size_t i = 0; i < choices.size(); ++i) {
    out += line_of(choices[i], choices.front());
    if (limit > 0 && choices[i].peak > limit) out += "  too much";
    out += i == chosen ? "  <- this plan\n" : "\n";
  }
  const std::time_t end = std::time(nullptr) + static_cast<std::time_t>(seconds());
  std::tm local{};
  ::localtime_r(&end, &local);
  out += fmt::format("\n{:.2f} s a step (measured), {} steps: {:.1f} min; begun now, done {:02}:{:02} on {}-{:02}-{:02}\n",
                     step_seconds, steps, seconds() / 60, local.tm_hour, local.tm_min, local.tm_year + 1900,
                     local.tm_mon + 1, local.tm_mday);
  return out;
}

std::vector<MemoryPart> WeightMemory::add(model::BaseWeights& base, model::EncodedWeights* encoded) {
  MemoryPart weights{"weights"}, codes{"codes"}, operands{"operands"};
  MemoryPart masters;  // counted with what is trained
  for (std::size_t i = 0; i < base.table().size(); ++i) {
    MemoryPart& part = base.trained(i) ? masters : weights;
    count(part, base.held(i).dense);
    count(part, base.held(i).encoded);
  }
  const auto add = [&](const ops::Weight& weight) {
    count(codes, weight.encoded);
    count(operands, weight.dense);
  };
  model::WeightSource& source = encoded ? static_cast<model::WeightSource&>(*encoded) : base;
  for (int layer = 0; layer < base.table().layers(); ++layer) {
    for (const ops::Weight& weight : source.acquire(dry_, layer, model::WeightForm::Dense).linear) add(weight);
    source.release(layer);
  }
  for (int layer = 0; layer < base.table().layers(); ++layer)
    for (std::size_t l = 0; l < model::kLinears.size(); ++l)
      if (base.trained(base.table().linear(layer, model::kLinears[l])))  // rounded masters, whatever codes are made of them
        add(base.linear(dry_, layer, l, model::WeightForm::Dense));
  for (const ops::Weight& table : {base.embedding(), base.head(dry_, model::WeightForm::Held)})
    if (base.trained(base.table().embedding()) || base.trained(base.table().head())) count(operands, table.dense);
  add(source.embedding());
  add(source.head(dry_, model::WeightForm::Dense));
  return {weights, codes, operands};
}

}  // namespace temper::train
