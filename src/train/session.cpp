#include "train/session.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstring>
#include <utility>

#include "base/atomic_file.h"
#include "base/cpu.h"
#include "base/error.h"
#include "base/interrupt.h"
#include "base/log.h"
#include "base/parallel.h"
#include "eval/score.h"
#include "model/base_format.h"
#include "model/kept_codes.h"
#include "model/targets.h"
#include "ops/ops.h"
#include "ops/profile_table.h"
#include "text/tokenizer.h"
#include "train/fingerprint.h"
#include "train/lora_init.h"

namespace temper::train {
namespace {

namespace fs = std::filesystem;

/// Length of the run; epochs are counted in sequences, and the last step of a run is as large as the others.
std::int64_t total_steps(const recipe::Recipe& recipe, const text::Packer& packer) {
  const recipe::TrainOptions& train = recipe.train;
  std::int64_t steps = train.steps;
  if (steps == 0)
    steps = static_cast<std::int64_t>(
        std::ceil(train.epochs * static_cast<double>(packer.size()) / static_cast<double>(train.batch_size)));
  if (steps < 1) throw BadRecipe("train.epochs ({}) gives no step; give train.steps", train.epochs);
  if (recipe.quant.scheme != "none" && recipe.quant.start_step >= steps)
    throw BadRecipe("quant.start_step ({}) is not below the run's {} steps: quantization-aware training would never begin",
                    recipe.quant.start_step, steps);
  return steps;
}

ExecContext training_context(ExecContext ctx, const recipe::Recipe& recipe) {
  ctx.integer_products = recipe.quant.forward == recipe::Forward::Integer;
  return ctx;
}

const quant::Scheme* scheme_of(const recipe::Recipe& recipe) {
  return recipe.quant.scheme == "none" ? nullptr : &quant::scheme(recipe.quant.scheme);
}

/// The watch-dogs of a step, for the progress line.
std::string watched(const StepLog& line) {
  std::string text = fmt::format("gradient {:.2f}", line.grad_norm);
  for (const Figure& figure : line.figures) text += fmt::format("  {} {:.4f}", figure.name, figure.value);
  if (line.shares.saturated > 0)
    text += fmt::format("  codes changed {:.3f} %  at the ends {:.1f} %", 100 * line.shares.changed,
                        100 * line.shares.saturated);
  return text;
}

double seconds_since(std::chrono::steady_clock::time_point start) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

files::Json to_json(const std::vector<HeldOut>& measured) {
  files::Json list = files::Json::array();
  for (const HeldOut& m : measured)
    list.push_back({{"step", m.step}, {"nll", m.nll}, {"tokens", m.tokens}, {"rows", m.rows}});
  return {{"held_out", list}};
}

std::vector<HeldOut> held_out_from(const files::Json& metrics, const std::string& origin) {
  std::vector<HeldOut> measured;
  for (const files::Json& m : files::require_array(metrics, "held_out", origin))
    measured.push_back({files::require_int(m, "step", origin), files::require_number(m, "nll", origin),
                        files::require_int(m, "tokens", origin), files::require_int(m, "rows", origin)});
  return measured;
}

}  // namespace

text::PackOptions pack_options(const recipe::Recipe& recipe) {
  text::PackOptions options;
  options.seq_len = recipe.data.seq_len;
  options.packing = recipe.data.packing != recipe::Packing::None;
  options.mode = recipe.data.packing == recipe::Packing::Stream ? text::PackMode::Stream : text::PackMode::Documents;
  options.shuffle = recipe.data.shuffle;
  options.seed = static_cast<std::uint64_t>(recipe.train.seed);
  options.pairs = recipe.train.objective == recipe::ObjectiveKind::Dpo;
  return options;
}

model::Recompute recompute_of(const recipe::Recipe& recipe) {
  switch (recipe.train.recompute) {
    case recipe::Recompute::None: return model::Recompute::None;
    case recipe::Recompute::Selective: return model::Recompute::Selective;
    case recipe::Recompute::Block: return model::Recompute::Block;
    case recipe::Recompute::Offload: return model::Recompute::Offload;
  }
  throw LogicError("train.recompute");
}

Session::Session(const ExecContext& ctx, const recipe::Recipe& recipe, const TrainData& data, const Hooks& hooks,
                 const std::optional<LoadedCheckpoint>& loaded)
    : ctx_(training_context(ctx, recipe)),
      recipe_(recipe),
      data_(data),
      hooks_(hooks),
      run_(recipe.out),
      reader_(open_run_base(ctx, recipe, loaded.has_value())),
      base_(reader_, ctx.compute),
      parts_(recipe, reader_, base_),
      packer_(data.train, pack_options(recipe)),
      steps_(total_steps(recipe, packer_)),
      qat_(ctx, base_, parts_.masters(), reader_.arch(), scheme_of(recipe), recipe.quant, steps_, recompute_of(recipe)),
      learnt_(recipe_, qat_.encoded(), parts_.masters().adapters, base_.storage()),
      optimizer_(recipe.optim, recipe.train.max_grad_norm, with_learnt(), static_cast<std::uint64_t>(recipe.train.seed)),
      schedule_(recipe.optim, steps_),
      store_(run_ / kCheckpointFolder, recipe.train.keep_checkpoints),
      base_fingerprint_(base_fingerprint(reader_)),
      data_fingerprint_(data_fingerprint(data.train)),
      objective_(make_objective(ctx_, {recipe_, reader_, base_, packer_, data_fingerprint_})) {
  check_lengths();
  check_tokens();
  check_target();
  if (recipe.quant.init == recipe::QuantInit::Base && qat_.encoded() != nullptr) take_codes();
  if (loaded) {
    restore(loaded->state);
  } else {
    parts_.begin(ctx_, recipe, base_);
    learnt_.calibrate(ctx_, qat_.unmerged(ctx_), data_.train);
  }
  if (!recipe.train.memory.empty()) fit_memory();
  plan_ = plan();
  describe();
}

/// What is trained, with that which quantization has to learn.
const model::Trainables& Session::with_learnt() {
  parts_.add(learnt_.arrays());
  qat_.set_learnt(learnt_);
  return parts_.list();
}

/// A run that is to be exported to some target trains what that target can carry.
void Session::check_target() const {
  const std::string& target = recipe_.exporting.to;
  if (target.empty()) return;
  if (const quant::Scheme* scheme = scheme_of(recipe_))
    model::require_target(target, reader_.table(), *scheme, reader_.arch().dtype, model::PartsFit::Apart);
  else if (model::wire_of_target(target))
    throw BadRecipe("export.to {}: it carries quantized models; give quant.scheme, or leave export.to out", target);
}

/// A document's positions are those of its tokens within a sequence; the model must have that many.
void Session::check_lengths() const {
  const std::int64_t positions = reader_.arch().max_positions;
  for (const text::Sample& sample : data_.train)
    if (std::min(std::ssize(sample.ids) - 1, recipe_.data.seq_len) > positions)
      throw BadRecipe(
          "data.seq_len ({}): row {} would need more than the model's {} positions; set data.seq_len to at most {}",
          recipe_.data.seq_len, sample.row, positions, positions);
}

/// Data are tokenized before the model is open, which alone knows the rows of its embedding.
void Session::check_tokens() const {
  const std::int64_t rows = reader_.arch().vocab_size;
  const auto check = [&](const std::string& path, const std::vector<text::Sample>& samples) {
    for (const text::Sample& sample : samples) {
      if (std::ranges::all_of(sample.ids, [&](std::int32_t id) { return id < rows; })) continue;
      try {
        text::Tokenizer::load(recipe_.model.path).with_rows(rows).check_rows(sample.ids);
      } catch (const BadData& error) {
        throw BadData("{}:{}: {}", path, sample.row, error.what());
      }
    }
  };
  check(recipe_.data.path, data_.train);
  check(recipe_.data.eval_path, data_.held_out);
}

/// What a checkpoint keeps of masters and optimizer.
std::vector<StateTensor> Session::state_tensors() const {
  std::vector<StateTensor> tensors = optimizer_.state();
  for (const model::ParameterArray& array : parts_.list().arrays())
    tensors.push_back({array.name() + ".parameters", array.parameters()});
  std::ranges::copy(learnt_.state(), std::back_inserter(tensors));
  return tensors;
}

void Session::restore(const CheckpointState& state) {
  const auto require_same = [](std::string_view what, const std::string& then, const std::string& now,
                               std::string_view advice) {
    if (then != now) throw BadRecipe("resume: {} differs: the run has {}, found {}; {}", what, then, now, advice);
  };
  require_same("the base model", state.base_fingerprint, base_fingerprint_, "give the model that the run was started from");
  require_same("the training data", state.data_fingerprint, data_fingerprint_,
               "give the rows that the run was started with");
  require_same("the operands' dtype", state.compute, std::string(dtype_name(ctx_.compute)),
               "set runtime.compute to the former");
  if (state.isa != isa_name(active_isa()))
    log_warning("the run was computed with {}, this machine uses {}: from here on figures may differ in their last bits",
                state.isa, isa_name(active_isa()));
  if (state.step > steps_)
    throw BadRecipe("resume: {} steps are done, more than the {} asked for; give more with train.steps", state.step, steps_);
  restore_tensors(state_tensors(), state.tensors, run_.string());
  optimizer_.restored(state.step);
  packer_.restore(state.cursor);
  done_ = saved_ = state.step;
  tokens_ = state.tokens;
  seconds_ = state.seconds;
  last_loss_ = state.last_loss;
  held_out_ = held_out_from(state.metrics, run_.string());
  restore_codes(state);
  qat_.prepare(ctx_, done_);
  if (const std::string now = qat_.checksum(); now != state.codes_checksum)
    throw BadFile(
        "{}: the codes of step {} come out otherwise (checksum {}, now {}): this build or machine rounds differently",
        run_.string(), state.step, state.codes_checksum, now);
  qat_.restore(state.shares);
}

/// quant.init: base.
void Session::take_codes() {
  std::vector<std::size_t> taken = model::take_stored_codes(ctx_, reader_, *qat_.encoded());
  if (taken.empty())
    throw BadRecipe("quant.init: base: {} ({}) holds no tensor in a format of scheme {}; leave quant.init out to fit",
                    recipe_.model.path, reader_.formats(), recipe_.quant.scheme);
  qat_.taken(std::move(taken));
}

void Session::restore_codes(const CheckpointState& state) {
  const model::TensorTable& table = reader_.table();
  for (const std::size_t index : qat_.kept(done_)) {
    const std::span<std::byte> bytes = qat_.encoded()->encoded_bytes(index);
    const auto codes = std::ranges::find(state.codes, table[index].hf_name, &KeptCodes::name);
    if (codes == state.codes.end() || codes->bytes.size() != bytes.size())
      throw BadFile("{}: the checkpoint of step {} has {} bytes of codes for {}, expected {}", run_.string(), done_,
                    codes == state.codes.end() ? 0 : codes->bytes.size(), table[index].hf_name, bytes.size());
    std::ranges::copy(codes->bytes, bytes.begin());
    qat_.encoded()->bytes_written(ctx_, index);
  }
  qat_.restored(done_);
}

void Session::describe() const {
  log_info("model: {}, {:.1f} M weights", reader_.formats(), static_cast<double>(reader_.weight_count()) * 1e-6);
  log_info("trained: {}; scheme {}", parts_.description(), recipe_.quant.scheme);
  if (!recipe_.lora.adapter.empty() && done_ == 0) log_info("beginning from the adapter {}", recipe_.lora.adapter);
  log_info("optimizer: {}", optimizer_.description());
  if (recipe_.train.objective != recipe::ObjectiveKind::CrossEntropy) log_info("loss: {}", objective_->description());
  if (const std::string cadence = qat_.cadence(); !cadence.empty()) log_info("{}", cadence);
  if (const quant::Scheme* scheme = scheme_of(recipe_)) log_info("{}", model::describe(reader_.table(), *scheme));
  log_info("machine: {}, products of {} operands, {} threads", isa_name(active_isa()), dtype_name(ctx_.compute),
           num_threads());
  log_info("{}", packer_.report().text());
  log_info("steps: {} of {} sequences, {} done", steps_, recipe_.train.batch_size, done_);
}

TrainResult Session::run() {
  fs::create_directories(run_);
  write_file(run_ / recipe::kRecipeFileName, recipe::to_yaml(stored_form(recipe_)));
  store_.remove_leftovers();
  remove_partial_files(run_);
  RunLog log(run_, done_);
  Progress progress("train", steps_);
  progress.resume_from(done_, tokens_);
  first_ = done_;
  log_info("{}", plan_.text());
  while (done_ < steps_) {
    if (interrupted()) stop();
    const bool profiled = profiling();
    StepLog line = step();
    if (profiled && !profiling()) report_profile();
    progress.update(done_, {.tokens = tokens_, .loss = last_loss_, .note = watched(line)});
    if (evaluation_due()) {
      try {
        held_out_.push_back(evaluate());
      } catch (const Interrupted&) {
        stop();
      }
      line.held_out = held_out_.back();
      for (const Figure& figure : held_out_.back().figures) line.figures.push_back(figure);
    }
    if (line.held_out || done_ % recipe_.train.log_every == 0 || done_ == steps_) log.write(line);
    if (hooks_.on_step) hooks_.on_step(line);
    if (recipe_.train.checkpoint_every > 0 && done_ % recipe_.train.checkpoint_every == 0) save();
  }
  return finish();
}

/// A process's first step compiles products and touches memory for the first time; the twenty after it are typical.
bool Session::profiling() const {
  constexpr std::int64_t kSteps = 20;
  return recipe_.train.profile && done_ > first_ && done_ <= first_ + kSteps && done_ < steps_;
}

void Session::report_profile() const {
  const fs::path trace = run_ / "trace.json";
  profile_.write_trace(trace);
  log_info("time of {:.2f} s of steps, by op:\n{}trace: {} (opens in ui.perfetto.dev)", profile_.seconds(),
           ops::profile_table(profile_, ops::measure_ceilings(ctx_)), trace.string());
}

StepLog Session::step() {
  const ProfileRecording recording(profiling() ? &profile_ : nullptr);
  const auto start = std::chrono::steady_clock::now();
  const text::StepBatches batches = packer_.next_step(recipe_.train.batch_size, parts_of_step());
  StepLog line;
  for (const text::Batch& b : batches.micro_batches) line.tokens += static_cast<std::int64_t>(b.tokens.size());
  try {
    model::Transformer& transformer = qat_.prepare(ctx_, done_);
    transformer.begin_step(done_);
    parts_.list().zero_gradients(ctx_);
    StepLoss loss = objective_->step(ctx_, transformer, batches, parts_.gradients());
    line.loss = loss.loss;
    line.figures = std::move(loss.figures);
  } catch (const Diverged& error) {
    diverged(error.what());
  }
  if (!std::isfinite(line.loss)) diverged(fmt::format("the loss is {}", line.loss));
  line.grad_norm = parts_.list().gradient_norm(ctx_);
  if (!std::isfinite(line.grad_norm)) diverged(parts_.list().first_non_finite());
  line.lr = schedule_.lr(done_);
  optimizer_.step(ctx_, line.grad_norm, line.lr);

  line.step = ++done_;
  line.shares = qat_.shares();
  line.seconds = seconds_since(start);
  line.tokens_per_second = static_cast<double>(line.tokens) / line.seconds;
  tokens_ += line.tokens;
  seconds_ += line.seconds;
  last_loss_ = line.loss;
  return line;
}

void Session::diverged(std::string_view what) const {
  const auto kept = store_.steps();
  throw Diverged(
      "step {}: {}. {}. Try a lower optim.lr, a longer optim.warmup_steps, or optim clipping (train.max_grad_norm)",
      done_ + 1, what,
      kept.empty() ? std::string("No checkpoint had been saved yet")
                   : fmt::format("The last good checkpoint is {}", store_.path_of(kept.back()).string()));
}

bool Session::evaluation_due() const {
  if (data_.held_out.empty()) return false;
  return done_ == steps_ || (recipe_.train.eval_every > 0 && done_ % recipe_.train.eval_every == 0);
}

HeldOut Session::evaluate() {
  model::Transformer& transformer = qat_.prepare(ctx_, done_);
  const auto scores = eval::score_samples(ctx_, transformer, objective_->scored(data_.held_out));
  HeldOut measured{.step = done_, .nll = 0, .tokens = 0, .rows = 0};
  std::int64_t row = -1;
  for (const eval::RowScore& score : scores) {
    if (score.row != std::exchange(row, score.row)) ++measured.rows;  // a row may give several samples
    measured.nll += score.nll;
    measured.tokens += score.tokens;
  }
  if (measured.tokens == 0) throw BadData("the held-out rows have no labelled token");
  measured.nll /= static_cast<double>(measured.tokens);
  log_info("step {}: held-out NLL {:.4f} nats a token ({} tokens of {} rows)", done_, measured.nll, measured.tokens,
           measured.rows);
  measured.figures = objective_->evaluate(ctx_, transformer, data_.held_out);
  for (const Figure& figure : measured.figures) log_info("step {}: {} {:.4f}", done_, figure.name, figure.value);
  return measured;
}

void Session::save() {
  if (saved_ == done_) return;
  // The codes of the next step belong to these masters; making them now costs nothing, since the next step finds them made.
  qat_.prepare(ctx_, done_);
  CheckpointState state;
  state.step = done_;
  state.cursor = packer_.cursor();
  state.tokens = tokens_;
  state.seconds = seconds_;
  state.last_loss = last_loss_;
  state.shares = qat_.shares();
  state.codes_checksum = qat_.checksum();
  state.base_fingerprint = base_fingerprint_;
  state.data_fingerprint = data_fingerprint_;
  state.compute = dtype_name(ctx_.compute);
  state.isa = isa_name(active_isa());
  state.recipe_yaml = recipe::to_yaml(stored_form(recipe_));
  state.metrics = to_json(held_out_);
  state.tensors = state_tensors();
  for (const std::size_t index : qat_.kept(done_)) {
    const model::TensorInfo& info = reader_.table()[index];
    state.codes.push_back({info.hf_name, info.shape[0], qat_.encoded()->encoded(index).bytes});
  }
  store_.save(state);
  saved_ = done_;
}

void Session::stop() {
  save();
  throw Interrupted("stopped after step {} of {}; the state is saved: go on with `temper train --resume {}`", done_, steps_,
                    run_.string());
}

TrainResult Session::finish() {
  save();
  qat_.prepare(ctx_, done_);
  TrainResult result;
  result.run = run_;
  result.info.base_model = fs::absolute(recipe_.model.path).lexically_normal().string();
  result.info.base_format = recipe_.model.base_format;
  if (recipe_.model.base_format != model::kStoredFormat) result.info.base_checksum = model::base_checksum(reader_);
  if (recipe_.lora.base_is_residual())
    result.info.lora_init = recipe_.lora.init == recipe::LoraInit::Pissa ? eval::kPissa : eval::kLoftq;
  result.info.scheme = recipe_.quant.scheme;
  result.info.merged_in_f32 = recipe_.quant.merge_dtype == recipe::MergeDtype::F32;
  result.info.steps = done_;
  result.info.codes_checksum = qat_.checksum();
  parts_.save(ctx_, run_, result.info);
  learnt_.save(run_, result.info);
  std::vector<std::size_t> kept = qat_.kept(done_);
  std::ranges::copy(learnt_.scaled(), std::back_inserter(kept));
  if (!kept.empty()) {
    model::save_kept_codes(*qat_.encoded(), kept, run_ / model::kKeptCodesName);
    result.info.kept_codes = true;
  }
  eval::write_run_info(result.info, run_);
  result.last_loss = last_loss_;
  if (!held_out_.empty()) result.held_out = held_out_.back();
  result.tokens = tokens_;
  result.tokens_per_second = seconds_ > 0 ? static_cast<double>(tokens_) / seconds_ : 0;
  result.peak_memory_bytes = static_cast<std::int64_t>(peak_resident_bytes());
  result.plan = plan_;
  log_info("{} steps, {} tokens, {:.0f} tokens/s; peak memory {:.3f} GB, planned {:.3f} GB", done_, tokens_,
           result.tokens_per_second, static_cast<double>(result.peak_memory_bytes) * 1e-9,
           static_cast<double>(plan_.peak()) * 1e-9);
  return result;
}

}  // namespace temper::train
