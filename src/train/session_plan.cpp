// A run's memory before its first step: Session::plan.
#include <algorithm>
#include <chrono>

#include "base/log.h"
#include "eval/score.h"
#include "model/kept_activations.h"
#include "ops/dry_run.h"
#include "recipe/sizes.h"
#include "train/session.h"
#include "train/teacher.h"

namespace temper::train {
namespace {

/// The batches of one epoch (at most) that may need the most memory: of most tokens, and of most targets.
std::vector<text::Batch> largest_batches(text::Packer packer, std::int64_t batch_size, std::int64_t parts,
                                         std::int64_t steps) {
  text::Batch tokens, labelled;
  const std::int64_t epoch = packer.steps_per_epoch(batch_size);
  for (std::int64_t step = 0; step < std::min(steps, epoch); ++step)
    for (text::Batch& batch : packer.next_step(batch_size, parts).micro_batches) {
      const auto size = [](const text::Batch& b) { return std::pair(b.tokens.size(), b.labelled); };
      if (batch.labelled > labelled.labelled) labelled = batch;
      if (size(batch) > size(tokens)) tokens = std::move(batch);
    }
  return {std::move(tokens), std::move(labelled)};
}

/// What the program itself grows by once it computes: code of libraries that is used for the first time, products that
/// oneDNN compiles, threads' stacks, and what allocators keep. Measured; see docs/memory.md.
constexpr std::size_t kProgramBytes = std::size_t{14} << 20;

/// What opening a GGUF takes beside its tensors: pages of its keys, and lists of their strings.
std::size_t header_bytes(const files::GgufFile* file) {
  if (!file) return 0;
  std::size_t bytes = file->file_bytes();
  for (const files::GgufTensor& tensor : file->tensors()) bytes -= tensor.data.size();
  for (const files::GgufKeyValue& value : file->values())
    if (const auto* array = std::get_if<files::GgufArray>(&value.value))
      bytes += array->strings.size() * sizeof(std::string_view);
  return bytes;
}

/// Of working memory, which the system hands out in large pages (Arena).
std::size_t whole_pages(std::size_t bytes) {
  constexpr std::size_t kPage = std::size_t{2} << 20;
  return (bytes + kPage - 1) / kPage * kPage;
}

std::size_t kept_bytes(const ExecContext& ctx, const model::ArchSpec& arch, std::int64_t tokens,
                       model::Recompute recompute) {
  Arena arena;
  const ExecContext dry = ops::dry_run(ctx, arena);
  std::unique_ptr<ScratchFile> file;
  model::KeptActivations kept(dry, arch, tokens, recompute, file);
  kept.share();
  return arena.peak();
}

/// Operations of what `run` does, and its traffic as operations: of machines with bf16 products, about 400 GFLOP/s beside
/// 20 GB/s.
template <typename Run>
double work_of(Run&& run) {
  constexpr double kOperationsPerByte = 20;
  Profile profile;
  {
    const ProfileRecording recording(&profile);
    run();
  }
  double work = 0;
  for (const ProfileRow& row : profile.rows()) work += row.flops + kOperationsPerByte * row.bytes;
  return work;
}

}  // namespace

std::int64_t Session::parts_of_step() const {
  const std::int64_t batch = recipe_.train.batch_size;
  const std::int64_t micro = recipe_.train.micro_batch > 0 ? recipe_.train.micro_batch : batch;
  return (batch + micro - 1) / micro;
}

/// A pass over the largest batches of training, and one over all that is held out. Returns the tokens of the largest.
std::size_t Session::dry_passes(const ExecContext& dry) {
  model::Transformer& transformer = qat_.dry(dry, steps_ - 1);
  parts_.list().gradient_norm(dry);
  std::size_t tokens = 0;
  for (text::Batch& batch : largest_batches(packer_, recipe_.train.batch_size, parts_of_step(), steps_)) {
    tokens = std::max(tokens, batch.tokens.size());
    dry_step(dry, transformer, std::move(batch));
  }
  const eval::ScoreOptions scoring;
  for (const auto& [begin, end] : eval::batch_ranges(data_.held_out, scoring.tokens_per_pass, scoring.tokens_per_pass)) {
    const eval::ModelBatch batch(text::batch_of(std::span(data_.held_out).subspan(begin, end - begin)));
    transformer.nll(dry, batch.view());
    if (Teacher* other = objective_->other()) other->transformer().nll(dry, batch.view());
  }
  return tokens;
}

void Session::dry_step(const ExecContext& dry, model::Transformer& transformer, text::Batch batch) {
  if (batch.labelled == 0) return;  // not even the objective's other model sees it
  text::StepBatches step;
  step.labelled = batch.labelled;
  step.micro_batches.push_back(std::move(batch));
  objective_->step(dry, transformer, step, parts_.gradients());
}

MemoryPlan Session::plan() {
  Arena arena;
  const ExecContext dry = ops::dry_run(ctx_, arena);
  const auto tokens = static_cast<std::int64_t>(dry_passes(dry));
  const std::size_t kept = kept_bytes(ctx_, reader_.arch(), tokens, recompute_of(recipe_));
  WeightMemory weights(dry);
  MemoryPlan plan;
  plan.arena = std::max(arena.peak(), ctx_.workspace->peak());  // setting up took some, and pages stay
  plan.parts = weights.add(base_, qat_.encoded());
  plan.parts.insert(plan.parts.begin(), {"program and data", before_ + header_bytes(reader_.gguf()) + kProgramBytes});
  MemoryPart trained{parts_.masters().adapters ? "adapters, gradients" : "masters, gradients"}, optimizer{"optimizer"};
  for (const model::ParameterArray& array : parts_.list().arrays())
    trained.bytes += array.parameters().bytes() + array.gradients().bytes();
  if (const model::Adapters* adapters = parts_.masters().adapters)
    trained.bytes += adapters->bytes() - adapters->parameters().bytes() - adapters->gradients().bytes();
  for (const StateTensor& state : optimizer_.state()) optimizer.bytes += state.tensor.bytes();
  plan.parts.push_back(trained);
  plan.parts.push_back(optimizer);
  if (Teacher* other = objective_->other()) plan.parts.push_back({"teacher or reference", other->bytes(weights)});
  plan.parts.push_back({"activations", kept});
  plan.parts.push_back({"workspace", whole_pages(plan.arena) - kept});
  return plan;
}

void Session::take(const MemoryChoice& choice) {
  recipe_.train.recompute = choice.recompute;
  recipe_.train.micro_batch = choice.micro_batch;
  qat_.set_recompute(recompute_of(recipe_));
}

std::vector<MemoryChoice> Session::choices() {
  Arena arena;
  const MemoryChoice now{recipe_.train.recompute, recipe_.train.micro_batch, 0, 0};
  std::vector<MemoryChoice> choices;
  using recipe::Recompute;
  for (std::int64_t micro = recipe_.train.batch_size; micro >= 1; micro /= 2)
    for (const Recompute recompute : {Recompute::None, Recompute::Selective, Recompute::Block, Recompute::Offload}) {
      MemoryChoice choice{recompute, micro, 0, 0};
      take(choice);
      choice.peak = plan().peak();
      const ExecContext dry = ops::dry_run(ctx_, arena);
      const text::Batch batch = largest_batches(packer_, recipe_.train.batch_size, parts_of_step(), steps_).front();
      choice.work = static_cast<double>(parts_of_step()) * work_of([&] { dry_step(dry, qat_.dry(dry, steps_ - 1), batch); });
      choices.push_back(choice);
    }
  take(now);
  std::ranges::stable_sort(choices, {}, &MemoryChoice::work);
  return choices;
}

void Session::fit_memory() {
  const std::uint64_t limit = recipe::parse_size(recipe_.train.memory, "train.memory");
  const std::vector<MemoryChoice> all = choices();
  const auto found = std::ranges::find_if(all, [&](const MemoryChoice& c) { return c.peak <= limit; });
  if (found == all.end()) {
    const MemoryChoice least = *std::ranges::min_element(all, {}, &MemoryChoice::peak);
    take(least);
    throw BadRecipe(
        "train.memory ({}): nothing fits; the least that this run takes is {:.1f} MB. A data.seq_len below {} takes less of "
        "activations and workspace, a lower rank or optim.state 8bit less of the rest:\n{}{}",
        recipe_.train.memory, static_cast<double>(least.peak) * 1e-6, recipe_.data.seq_len, text_of({least}), plan().text());
  }
  take(*found);
  recipe_.train.memory.clear();  // a resumed run goes on as this one began
  log_info("chosen to fit:\n{}", text_of({*found}));
}

double Session::measured_step_seconds() {
  double seconds = 0;
  const text::StepBatches batches = packer_.next_step(recipe_.train.batch_size, parts_of_step());
  for (int round = 0; round < 2; ++round) {
    const auto start = std::chrono::steady_clock::now();
    objective_->step(ctx_, qat_.prepare(ctx_, steps_ - 1 + round), batches, parts_.gradients());
    seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  }
  return seconds;
}

TrainResult Session::only_plan() {
  TrainResult result;
  result.plan = plan_;
  const double weights = static_cast<double>(reader_.weight_count());
  std::string bits;
  for (const int n : {32, 16, 8, 4, 2}) bits += fmt::format("  {} bits {:.1f}", n, weights * n / 8e6);
  result.plan_text = fmt::format("{}\nthe weights alone, MB:{}\n\n{}", plan_.text(), bits, text_of(choices()));
  const double seconds = measured_step_seconds();
  const double left = seconds * static_cast<double>(steps_ - done_);
  result.plan_text +=
      fmt::format("\n{:.2f} s a step (measured), {} steps: {:.0f} min\n", seconds, steps_ - done_, left / 60);
  return result;
}

}  // namespace temper::train
