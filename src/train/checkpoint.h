// Checkpoints: folders RUN/checkpoints/step-N that appear whole or not at all, with a checksum for every file.
//
//   manifest.json        format and version, step, and bytes and XXH3-64 of every file; sealed by a checksum of itself
//   state.safetensors    everything trained and the optimizer's states, by array (adapters.parameters,
//                        adapters.exp_avg, …: train/state_tensors.h), and `codes.NAME`, U8 [rows, bytes of a row], for every
//                        tensor whose parameters are kept between steps
//   state.json           step, data cursor, checksum of the codes, figures so far
//   recipe.yaml          the recipe of the run
//
// Other codes and their parameters are a pure function of base and masters; what is stored of them is their checksum,
// against which a resumed run checks the codes that it makes again. The random state is (seed, cursor): order and
// initialisation are pure functions of them.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "files/json.h"
#include "tensor/tensor.h"
#include "text/packing.h"
#include "train/qat.h"
#include "train/state_tensors.h"

namespace temper::train {

/// An encoded tensor whose parameters are kept: codes and parameters, by the tensor's HF name.
struct KeptCodes {
  std::string name;
  std::int64_t rows = 0;
  std::span<const std::byte> bytes;
};

/// Everything that the next step depends on, and the figures that a run has gathered.
struct CheckpointState {
  std::int64_t step = 0;         ///< Optimizer steps done.
  text::PackCursor cursor;       ///< Where the next step reads.
  std::int64_t tokens = 0;       ///< Tokens processed so far.
  double seconds = 0;            ///< Spent in steps so far.
  double last_loss = 0;          ///< Of step `step`, nats per labelled token.
  CodeShares shares;             ///< Of the codes that the next step uses.
  std::string codes_checksum;    ///< Of those codes; empty without.
  std::string base_fingerprint;  ///< Of the base model; see fingerprint.h.
  std::string data_fingerprint;  ///< Of the training rows.
  std::string compute;           ///< Dtype of the products' operands.
  std::string isa;               ///< Instruction set in use: another may round products otherwise.
  std::string recipe_yaml;
  files::Json metrics = files::Json::object();  ///< Held-out figures so far.
  std::vector<StateTensor> tensors = {};
  std::vector<KeptCodes> codes = {};
};

/// A checkpoint read back; its tensors are owned.
struct LoadedCheckpoint {
  CheckpointState state;
  std::vector<Tensor> storage;
  std::filesystem::path folder;
};

class CheckpointStore {
 public:
  /// `folder` is RUN/checkpoints; made by the first save. Keeps the last `keep` ≥ 1 checkpoints.
  CheckpointStore(std::filesystem::path folder, std::int64_t keep);

  /// Writes step-N aside, flushes it to the disk and renames it into place; then removes checkpoints beyond the last `keep`,
  /// and any of later steps (a resumed run has left their future). Throws IoError; earlier checkpoints are then untouched.
  void save(const CheckpointState& state) const;

  /// The newest checkpoint that is whole, or nothing where there is none at all. Each corrupt one is reported as a warning
  /// that says what is wrong. Throws BadFile if there are checkpoints, but none is whole.
  std::optional<LoadedCheckpoint> load_newest() const;

  /// Reads one checkpoint folder, checking every file against the manifest. Throws BadFile naming the file.
  static LoadedCheckpoint load(const std::filesystem::path& folder);

  /// Removes what killed writes and removals left behind.
  void remove_leftovers() const;
  /// Steps of the checkpoints there, ascending.
  std::vector<std::int64_t> steps() const;
  std::filesystem::path path_of(std::int64_t step) const;

 private:
  void prune(std::int64_t newest) const;

  std::filesystem::path folder_;
  std::int64_t keep_;
};

}  // namespace temper::train
