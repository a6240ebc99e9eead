// A run's memory before its first step: Session::plan.
#include <algorithm>
#include <functional>
#include <set>

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

constexpr double kNf4Bits = 4.127;  // nf4-dq: codes, absmax in 8 bits a block of 64, and theirs

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
std::size_t Session::dry_passes(const ExecContext& dry, const text::Packer& packer) {
  model::Transformer& transformer = qat_.dry(dry, steps_ - 1);
  parts_.list().gradient_norm(dry);
  std::size_t tokens = 0;
  for (text::Batch& batch : largest_batches(packer, recipe_.train.batch_size, parts_of_step(), steps_)) {
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
  const auto tokens = static_cast<std::int64_t>(dry_passes(dry, packer_));
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
  std::set<std::int64_t, std::greater<>> micro_batches = {now.micro_batch > 0 ? now.micro_batch : recipe_.train.batch_size};
  for (std::int64_t micro = recipe_.train.batch_size; micro >= 1; micro /= 2) micro_batches.insert(micro);
  for (const std::int64_t micro : micro_batches)
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
  limit_ = recipe::parse_size(recipe_.train.memory, "train.memory");
  const std::vector<MemoryChoice> all = choices();
  const auto found = std::ranges::find_if(all, [&](const MemoryChoice& c) { return c.peak <= limit_; });
  if (found == all.end()) {
    const MemoryChoice least = *std::ranges::min_element(all, {}, &MemoryChoice::peak);
    take(least);
    const MemoryPlan taken = plan();
    throw BadRecipe("train.memory ({}): nothing fits; the least that this run takes is {:.1f} MB:\n{}{}\n{}",
                    recipe_.train.memory, static_cast<double>(least.peak) * 1e-6, text_of({least}), taken.text(),
                    remedies(limit_, taken));
  }
  take(*found);
  recipe_.train.memory.clear();  // a resumed run goes on as this one began
  log_info("chosen to fit:\n{}", text_of({*found}));
}

namespace {

std::size_t bytes_of(const MemoryPlan& plan, std::string_view name) {
  std::size_t bytes = 0;
  for (const MemoryPart& part : plan.parts)
    if (part.name.starts_with(name)) bytes += part.bytes;
  return bytes;
}

}  // namespace

/// What the recipe could give up beyond recompute and micro-batch, each with what the run then takes, and all together.
/// `least` is the plan of the way that takes least, which is the one taken.
std::string Session::remedies(std::size_t limit, const MemoryPlan& least) {
  std::string text = "what would take less:\n";
  const std::size_t peak = least.peak();
  std::size_t saved = 0;
  const auto offer = [&](const std::string& what, std::size_t less) {
    if (less == 0) return;
    saved += less;
    text += fmt::format("  {:<28} {:>10.1f} MB{}\n", what, static_cast<double>(peak - less) * 1e-6,
                        peak - less <= limit ? ", which fits" : "");
  };
  // Sequences of half the length, and half that, until one fits.
  std::int64_t length = recipe_.data.seq_len / 2;
  std::size_t shorter = 0;
  for (; length >= 64; length /= 2) {
    recipe::Recipe recipe = recipe_;
    recipe.data.seq_len = length;
    const text::Packer packer(data_.train, pack_options(recipe));
    Arena arena;
    dry_passes(ops::dry_run(ctx_, arena), packer);
    const std::size_t working = whole_pages(std::max(arena.peak(), ctx_.workspace->peak()));
    shorter = whole_pages(least.arena) - std::min(working, whole_pages(least.arena));
    if (peak - shorter <= limit || length / 2 < 64) break;
  }
  offer(fmt::format("data.seq_len {}", length), shorter);
  const std::size_t optimizer = bytes_of(least, "optimizer"), trained = bytes_of(least, "adapters");
  if (recipe_.optim.state == recipe::StateDtype::F32) offer("optim.state 8bit", optimizer / 4 * 3);
  if (trained > 0 && recipe_.lora.r > 1) offer(fmt::format("lora.r {}", recipe_.lora.r / 2), (trained + optimizer) / 2);
  std::size_t held = 0;
  std::int64_t values = 0;
  for (std::size_t i = 0; i < base_.table().size(); ++i) {
    if (base_.table()[i].role != quant::Role::Linear || base_.trained(i)) continue;
    held += base_.held(i).dense ? base_.held(i).dense.bytes() : base_.held(i).encoded.bytes.size();
    values += base_.table()[i].shape.numel();
  }
  const auto nf4 = static_cast<std::size_t>(static_cast<double>(values) * kNf4Bits / 8);
  if (held > nf4 + held / 8) offer("model.base_format nf4-dq", held - nf4);
  text += fmt::format("  {:<28} {:>10.1f} MB{}\n", "all of these, about",
                      static_cast<double>(peak - std::min(saved, peak)) * 1e-6,
                      peak - std::min(saved, peak) <= limit ? ", which fits" : "; beyond that, a smaller model");
  return text;
}

std::vector<MemoryAtBits> Session::at_bits() const {
  const std::size_t held = bytes_of(plan_, "weights");
  std::vector<MemoryAtBits> all;
  for (const int bits : {32, 16, 8, 4, 2}) {
    const std::size_t weights = static_cast<std::size_t>(reader_.weight_count()) * static_cast<std::size_t>(bits) / 8;
    all.push_back({bits, weights, plan_.peak() - held + (held > 0 ? weights : 0)});
  }
  return all;
}

double Session::measured_step_seconds() {
  constexpr double kLongStep = 20;
  const double first = step().seconds;  // compiles products and touches memory: seconds, little beside a long step
  return first < kLongStep ? step().seconds : first;
}

TrainResult Session::only_plan() {
  TrainResult result;
  result.plan = plan_;
  RunPlan& plan = result.run_plan.emplace();
  plan.memory = plan_;
  plan.limit = limit_;
  plan.at_bits = at_bits();
  plan.choices = choices();
  const std::int64_t micro = recipe_.train.micro_batch > 0 ? recipe_.train.micro_batch : recipe_.train.batch_size;
  for (std::size_t i = 0; i < plan.choices.size(); ++i)
    if (plan.choices[i].recompute == recipe_.train.recompute && plan.choices[i].micro_batch == micro) plan.chosen = i;
  plan.steps = steps_ - done_;
  plan.step_seconds = measured_step_seconds();
  return result;
}

}  // namespace temper::train
