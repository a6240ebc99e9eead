#include "train/memory_plan.h"

#include <fmt/format.h>
#include <unistd.h>

#include <fstream>
#include <numeric>
#include <set>

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

std::size_t resident_bytes() {
  std::ifstream file("/proc/self/statm");  // pages: of the address space, resident, …
  std::size_t space = 0, resident = 0;
  file >> space >> resident;
  return file ? resident * static_cast<std::size_t>(::sysconf(_SC_PAGESIZE)) : 0;
}

namespace {

/// Sums up memory, each address once.
class Counted {
 public:
  void add(MemoryPart& part, const void* data, std::size_t bytes) {
    if (data && seen_.insert(data).second) part.bytes += bytes;
  }
  void add(MemoryPart& part, const TensorView& tensor) { add(part, tensor.data, tensor.bytes()); }

 private:
  std::set<const void*> seen_;
};

}  // namespace

std::vector<MemoryPart> weight_parts(const ExecContext& dry, model::BaseWeights& base, model::EncodedWeights* encoded) {
  MemoryPart weights{"weights"}, codes{"codes"}, operands{"operands"};
  Counted counted;
  MemoryPart masters;  // counted with what is trained
  for (std::size_t i = 0; i < base.table().size(); ++i)
    if (!base.encoded(i)) counted.add(base.trained(i) ? masters : weights, base.tensor(i));
  const auto add_stored = [&](const ops::Weight& weight) {
    counted.add(weights, weight.encoded.bytes.data(), weight.encoded.bytes.size());
  };
  add_stored(base.embedding());
  add_stored(base.head(dry, model::WeightForm::Held));
  for (int layer = 0; layer < base.table().layers(); ++layer)
    for (const ops::Weight& weight : base.acquire(dry, layer, model::WeightForm::Held).linear) add_stored(weight);
  const auto add = [&](const ops::Weight& weight) {
    counted.add(codes, weight.encoded.bytes.data(), weight.encoded.bytes.size());
    counted.add(operands, weight.dense);
  };
  model::WeightSource& source = encoded ? static_cast<model::WeightSource&>(*encoded) : base;
  for (int layer = 0; layer < base.table().layers(); ++layer) {
    for (const ops::Weight& weight : source.acquire(dry, layer, model::WeightForm::Dense).linear) add(weight);
    source.release(layer);
  }
  add(source.embedding());
  add(source.head(dry, model::WeightForm::Dense));
  return {weights, codes, operands};
}

}  // namespace temper::train
