// One run in progress: everything that a step needs, and the step itself. Internal to train; see loop.h.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "base/profile.h"
#include "base/progress.h"
#include "base/resident_memory.h"
#include "model/checkpoint_reader.h"
#include "model/weights.h"
#include "text/packing.h"
#include "train/checkpoint.h"
#include "train/learnt_quantization.h"
#include "train/loop.h"
#include "train/objective.h"
#include "train/optimizer.h"
#include "train/qat.h"
#include "train/run_folder.h"
#include "train/schedule.h"
#include "train/state_tensors.h"
#include "train/trained_parts.h"

namespace temper::train {

text::PackOptions pack_options(const recipe::Recipe& recipe);
model::Recompute recompute_of(const recipe::Recipe& recipe);

class Session {
 public:
  /// Opens the model and sets everything up; nothing is written yet. `loaded` is the checkpoint to go on from, if any;
  /// throws BadRecipe if base, rows or dtype are not those of the checkpoint, BadFile if its codes come out otherwise.
  Session(const ExecContext& ctx, const recipe::Recipe& recipe, const TrainData& data, const Hooks& hooks,
          const std::optional<LoadedCheckpoint>& loaded);

  TrainResult run();
  /// What the run would take; nothing is trained or written (train.plan).
  TrainResult only_plan();

 private:
  const model::Trainables& with_learnt();
  std::vector<StateTensor> state_tensors() const;
  void restore(const CheckpointState& state);
  void take_codes();
  void restore_codes(const CheckpointState& state);
  void check_lengths() const;
  void check_tokens() const;
  void check_target() const;
  void describe() const;
  // session_plan.cpp
  std::size_t dry_passes(const ExecContext& dry, const text::Packer& packer);
  void dry_step(const ExecContext& dry, model::Transformer& transformer, text::Batch batch);
  /// What the run takes as its options stand, from the objects that hold it and a dry run of its largest passes.
  MemoryPlan plan();
  /// The same for every way to save memory, the fastest first; the options stay as they are.
  std::vector<MemoryChoice> choices();
  void take(const MemoryChoice& choice);
  /// Takes the fastest choice within train.memory. Throws BadRecipe, naming the least, where there is none.
  void fit_memory();
  std::string remedies(std::size_t limit, const MemoryPlan& least);
  std::vector<MemoryAtBits> at_bits() const;
  double measured_step_seconds();      ///< Of a second step, or a long first one; what they train is not kept.
  std::int64_t parts_of_step() const;  ///< Micro-batches.
  StepLog step();
  bool profiling() const;
  void report_profile() const;
  [[noreturn]] void diverged(std::string_view what) const;
  bool evaluation_due() const;
  HeldOut evaluate();
  void save();
  [[noreturn]] void stop();
  TrainResult finish();

  const std::size_t before_ = resident_bytes();  ///< Before the model is opened.
  std::size_t limit_ = 0;                        ///< train.memory
  const ExecContext ctx_;                        // with the forward products that the recipe asks for
  recipe::Recipe recipe_;
  const TrainData& data_;
  const Hooks& hooks_;
  std::filesystem::path run_;

  model::CheckpointReader reader_;
  model::BaseWeights base_;
  TrainedParts parts_;  ///< Everything that steps change.
  text::Packer packer_;
  std::int64_t steps_;
  QatController qat_;
  LearntQuantization learnt_;
  Optimizer optimizer_;
  LrSchedule schedule_;
  CheckpointStore store_;

  std::string base_fingerprint_, data_fingerprint_;
  std::unique_ptr<Objective> objective_;
  std::int64_t done_ = 0, saved_ = -1, tokens_ = 0;
  double seconds_ = 0, last_loss_ = 0;
  std::vector<HeldOut> held_out_;
  std::int64_t first_ = 0;  ///< Step that this process began with.
  Profile profile_;
  MemoryPlan plan_;
};

}  // namespace temper::train
