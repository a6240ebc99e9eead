// Packing: samples become micro-batches of flat token streams without padding, in an order that can be resumed.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "text/dataset.h"

namespace temper::text {

/// One document: rows [begin, end) of the flat stream. Its positions count from 0, and it sees no other document.
struct Segment {
  std::int32_t begin = 0, end = 0;
};

/// A micro-batch of N tokens without padding. All of `tokens`, `positions`, `targets` have N entries.
struct Batch {
  std::vector<std::int32_t> tokens;
  std::vector<std::int32_t> positions;
  std::vector<std::int32_t>
      targets;  ///< Shifted already: the token after this one in its document, or -1 where it is not labelled.
  std::vector<Segment> segments;        ///< In order, covering [0, N).
  std::int64_t labelled = 0;            ///< Targets that are not -1.
  std::vector<std::int64_t> sequences;  ///< Of a Packer: its sequences, in order.
};

/// How samples fill sequences.
enum class PackMode {
  Documents,  ///< A sequence holds whole samples, in order, as many as fit; one that does not fit opens the next sequence.
  Stream,     ///< Samples are concatenated and cut at every seq_len tokens; a piece of a sample is a segment of its own.
};

struct PackOptions {
  std::int64_t seq_len = 512;  ///< Tokens per sequence at most.
  bool packing = true;         ///< false: one sample per sequence (mode Documents only).
  PackMode mode = PackMode::Documents;
  bool split_long =
      false;            ///< Documents: a sample longer than seq_len goes on in the next sequence, instead of being cut off.
  bool shuffle = true;  ///< Sequences in a new order each epoch.
  /// Documents: samples 2i and 2i + 1 stay side by side, each cut to seq_len; a sequence holds as many pairs as fit, and at
  /// least one, so up to 2 · seq_len tokens. A pair of which one has no target is left out.
  bool pairs = false;
  std::uint64_t seed = 0;
};

/// Where the next step begins: `index` sequences of epoch `epoch` have been used.
struct PackCursor {
  std::int64_t epoch = 0, index = 0;
  bool operator==(const PackCursor&) const = default;
};

struct PackReport {
  std::int64_t sequences = 0, tokens = 0, targets = 0;
  std::int64_t samples_cut = 0;                ///< Longer than seq_len; their tails are gone.
  std::int64_t tokens_cut = 0;                 ///< Tokens lost by that.
  std::int64_t samples_split = 0;              ///< In several pieces.
  std::int64_t sequences_without_targets = 0;  ///< Left out, since they teach nothing.
  std::int64_t pairs_without_targets = 0;      ///< The same of pairs.
  std::string text() const;
};

/// What one optimizer step reads. Its loss is divided by `labelled`, not by each micro-batch's own count.
struct StepBatches {
  std::vector<Batch> micro_batches;
  std::int64_t labelled = 0;
};

/// Packs samples into sequences once and deals them out step by step, forever. The order of epoch e is a pure function of
/// (seed, e), so a run resumed from a cursor reads what the uninterrupted one would have read.
///
/// End of an epoch: the step goes on with the first sequences of the next epoch, so that every step has batch_size sequences
/// and none is dropped. A labelled token whose predecessor lies in another piece of its sample (`Stream`, `split_long`) is
/// the target of that piece's last token, so each labelled token is a target exactly once an epoch.
class Packer {
 public:
  /// Keeps a reference to `samples`, which must outlive the packer. Throws BadRecipe for options that contradict each other
  /// and BadData where no sequence with a target is left.
  Packer(const std::vector<Sample>& samples, const PackOptions& options);

  /// Sequences in one epoch.
  std::int64_t size() const { return static_cast<std::int64_t>(sequences_.size()); }
  /// Steps that see every sequence at least once.
  std::int64_t steps_per_epoch(std::int64_t batch_size) const { return (size() + batch_size - 1) / batch_size; }
  const PackReport& report() const { return report_; }

  PackCursor cursor() const { return cursor_; }
  /// Throws BadRecipe for a cursor that is not within the data.
  void restore(PackCursor cursor);

  /// The next `batch_size` sequences in `micro_batches` parts as equal as can be (parts are contiguous; at most batch_size
  /// of them), then advances the cursor.
  StepBatches next_step(std::int64_t batch_size, std::int64_t micro_batches = 1);

  /// Sequence `index` of the file order (not shuffled) as a batch; for evaluation and inspection.
  Batch sequence(std::int64_t index) const;

 private:
  struct Piece {
    std::int64_t sample;
    std::int32_t begin, end;
  };
  using Sequence = std::vector<Piece>;

  void pack_documents();
  void pack_pairs();
  void pack_stream();
  void add_sequence(Sequence sequence);
  void append(std::int64_t index, Batch& batch) const;
  void shuffle_epoch();

  const std::vector<Sample>& samples_;
  PackOptions options_;
  PackReport report_;
  PackCursor cursor_;
  std::vector<Sequence> sequences_;
  std::vector<std::int64_t> order_;  // of the cursor's epoch
};

/// Whole samples side by side in one batch, each a segment; nothing is cut.
Batch batch_of(std::span<const Sample> samples);

}  // namespace temper::text
