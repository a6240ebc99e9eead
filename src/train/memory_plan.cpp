#include "train/memory_plan.h"

#include <fmt/format.h>

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

std::string text_of(const std::vector<MemoryChoice>& choices) {
  constexpr std::string_view kNames[] = {"none", "selective", "block", "offload"};
  std::string text = fmt::format("{:<12} {:>12} {:>10} {:>14}\n", "recompute", "micro-batch", "memory, MB", "expected time");
  for (const MemoryChoice& choice : choices)
    text += fmt::format("{:<12} {:>12} {:>10.1f} {:>+13.0f}%\n", kNames[static_cast<std::size_t>(choice.recompute)],
                        choice.micro_batch, static_cast<double>(choice.peak) * 1e-6,
                        100 * (choice.work / choices.front().work - 1));
  return text;
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
