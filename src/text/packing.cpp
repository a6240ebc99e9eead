#include "text/packing.h"

#include <algorithm>
#include <numeric>

#include "base/error.h"
#include "base/rng.h"

namespace temper::text {
namespace {

/// Appends tokens [begin, end) of `sample` as one segment.
void append_piece(const Sample& sample, std::int64_t begin, std::int64_t end, Batch& batch) {
  Segment segment;
  segment.begin = static_cast<std::int32_t>(batch.tokens.size());
  for (std::int64_t i = begin; i < end; ++i) {
    const auto k = static_cast<std::size_t>(i);
    batch.tokens.push_back(sample.ids[k]);
    batch.positions.push_back(static_cast<std::int32_t>(i - begin));
    const bool target = k + 1 < sample.ids.size() && sample.labelled[k + 1];
    batch.targets.push_back(target ? sample.ids[k + 1] : -1);
    batch.labelled += target;
  }
  segment.end = static_cast<std::int32_t>(batch.tokens.size());
  batch.segments.push_back(segment);
}

std::int64_t count_targets(const Sample& sample, std::int64_t begin, std::int64_t end) {
  // Token i's target is token i + 1.
  const auto size = static_cast<std::int64_t>(sample.labelled.size());
  return std::count(sample.labelled.begin() + std::min(begin + 1, size), sample.labelled.begin() + std::min(end + 1, size),
                    1);
}

}  // namespace

Packer::Packer(const std::vector<Sample>& samples, const PackOptions& options) : samples_(samples), options_(options) {
  if (options_.seq_len < 2 || options_.seq_len > (std::int64_t{1} << 30)) {
    throw BadRecipe("seq-len: expected 2 or more tokens, found {}", options_.seq_len);
  }
  if (options_.mode == PackMode::Stream && !options_.packing) {
    throw BadRecipe(
        "pack-mode stream needs packing: its sequences join samples. Turn packing on, or take pack-mode documents");
  }
  if (options_.pairs) {
    pack_pairs();
  } else if (options_.mode == PackMode::Stream) {
    pack_stream();
  } else {
    pack_documents();
  }
  if (sequences_.empty()) {
    throw BadData(
        "nothing is left to learn: none of {} sequences has a labelled token. Check the labels, and seq-len {} against the "
        "samples' lengths",
        report_.sequences_without_targets, options_.seq_len);
  }
  shuffle_epoch();
}

void Packer::add_sequence(Sequence sequence) {
  if (sequence.empty()) return;
  std::int64_t tokens = 0, targets = 0;
  for (const Piece& piece : sequence) {
    tokens += piece.end - piece.begin;
    targets += count_targets(samples_[static_cast<std::size_t>(piece.sample)], piece.begin, piece.end);
  }
  if (targets == 0) {
    ++report_.sequences_without_targets;
    return;
  }
  ++report_.sequences;
  report_.tokens += tokens;
  report_.targets += targets;
  sequences_.push_back(std::move(sequence));
}

void Packer::pack_documents() {
  Sequence open;
  std::int64_t used = 0;
  const auto close = [&] {
    add_sequence(std::exchange(open, {}));
    used = 0;
  };
  for (std::size_t s = 0; s < samples_.size(); ++s) {
    const auto length = static_cast<std::int64_t>(samples_[s].ids.size());
    const bool too_long = length > options_.seq_len;
    if (too_long) ++(options_.split_long ? report_.samples_split : report_.samples_cut);
    const std::int64_t end = too_long && !options_.split_long ? options_.seq_len : length;
    report_.tokens_cut += length - end;
    // Where a sample is cut, the last token kept still has the first token lost as its target: it is known.
    for (std::int64_t begin = 0; begin < end; begin += options_.seq_len) {
      const std::int64_t piece = std::min(options_.seq_len, end - begin);
      if (used + piece > options_.seq_len) close();
      open.push_back(
          {static_cast<std::int64_t>(s), static_cast<std::int32_t>(begin), static_cast<std::int32_t>(begin + piece)});
      used += piece;
      if (!options_.packing) close();
    }
  }
  close();
}

void Packer::pack_pairs() {
  if (samples_.size() % 2 != 0 || options_.mode == PackMode::Stream || options_.split_long)
    throw LogicError("packer: pairs of {} samples, whole", samples_.size());
  Sequence open;
  std::int64_t used = 0;
  for (std::size_t s = 0; s < samples_.size(); s += 2) {
    Sequence pair;
    std::int64_t length = 0, cut = 0, taught = 0;
    for (const std::size_t half : {s, s + 1}) {
      const auto whole = static_cast<std::int64_t>(samples_[half].ids.size()), end = std::min(whole, options_.seq_len);
      pair.push_back({static_cast<std::int64_t>(half), 0, static_cast<std::int32_t>(end)});
      length += end;
      cut += whole - end;
      report_.samples_cut += whole > end;
      taught += count_targets(samples_[half], 0, end) > 0;
    }
    report_.tokens_cut += cut;
    if (taught < 2) {
      ++report_.pairs_without_targets;
      continue;
    }
    if (!open.empty() && (used + length > options_.seq_len || !options_.packing)) {
      add_sequence(std::exchange(open, {}));
      used = 0;
    }
    open.insert(open.end(), pair.begin(), pair.end());
    used += length;
  }
  add_sequence(std::move(open));
}

void Packer::pack_stream() {
  Sequence open;
  std::int64_t used = 0;
  for (std::size_t s = 0; s < samples_.size(); ++s) {
    const auto length = static_cast<std::int64_t>(samples_[s].ids.size());
    int pieces = 0;
    for (std::int64_t begin = 0; begin < length; ++pieces) {
      const std::int64_t piece = std::min(options_.seq_len - used, length - begin);
      open.push_back(
          {static_cast<std::int64_t>(s), static_cast<std::int32_t>(begin), static_cast<std::int32_t>(begin + piece)});
      begin += piece;
      used += piece;
      if (used == options_.seq_len) {
        add_sequence(std::exchange(open, {}));
        used = 0;
      }
    }
    report_.samples_split += pieces > 1;
  }
  add_sequence(std::move(open));  // the last one may be short
}

void Packer::shuffle_epoch() {
  order_.resize(sequences_.size());
  std::iota(order_.begin(), order_.end(), std::int64_t{0});
  if (!options_.shuffle) return;
  // A stream of random numbers of each epoch's own; the constant keeps it apart from other users of the same seed.
  constexpr std::uint64_t kShuffleStream = 0x7061636B00000000;  // "pack"
  Rng rng(options_.seed, kShuffleStream + static_cast<std::uint64_t>(cursor_.epoch));
  shuffle(order_, rng);
}

void Packer::restore(PackCursor cursor) {
  if (cursor.epoch < 0 || cursor.index < 0 || cursor.index > size()) {
    throw BadRecipe(
        "data cursor: expected a sequence in [0, {}] of an epoch, found sequence {} of epoch {}; has the data changed since "
        "the checkpoint?",
        size(), cursor.index, cursor.epoch);
  }
  cursor_ = cursor;
  shuffle_epoch();
}

void Packer::append(std::int64_t index, Batch& batch) const {
  batch.sequences.push_back(index);
  for (const Piece& piece : sequences_[static_cast<std::size_t>(index)]) {
    append_piece(samples_[static_cast<std::size_t>(piece.sample)], piece.begin, piece.end, batch);
  }
}

StepBatches Packer::next_step(std::int64_t batch_size, std::int64_t micro_batches) {
  if (batch_size < 1) throw BadRecipe("batch-size: expected at least 1, found {}", batch_size);
  if (micro_batches < 1 || micro_batches > batch_size) {
    throw BadRecipe("micro-batches: expected 1 to the batch size {}, found {}", batch_size, micro_batches);
  }
  StepBatches step;
  step.micro_batches.resize(static_cast<std::size_t>(micro_batches));
  for (std::int64_t i = 0; i < batch_size; ++i) {
    if (cursor_.index == size()) {
      cursor_ = {cursor_.epoch + 1, 0};
      shuffle_epoch();
    }
    append(order_[static_cast<std::size_t>(cursor_.index++)],
           step.micro_batches[static_cast<std::size_t>(i * micro_batches / batch_size)]);
  }
  for (const Batch& batch : step.micro_batches) step.labelled += batch.labelled;
  return step;
}

Batch Packer::sequence(std::int64_t index) const {
  if (index < 0 || index >= size()) throw LogicError("packer: sequence {} of {}", index, size());
  Batch batch;
  append(index, batch);
  return batch;
}

std::string PackReport::text() const {
  std::string out = fmt::format("{} sequences, {} tokens, {} of them targets\n", sequences, tokens, targets);
  if (samples_split > 0) out += fmt::format("{} samples lie in several sequences\n", samples_split);
  if (samples_cut > 0)
    out += fmt::format("warning: {} samples are longer than a sequence; {} tokens cut off\n", samples_cut, tokens_cut);
  if (sequences_without_targets > 0)
    out += fmt::format("{} sequences without a labelled token left out\n", sequences_without_targets);
  if (pairs_without_targets > 0)
    out += fmt::format("warning: {} pairs left out: an answer lies beyond the sequence's length\n", pairs_without_targets);
  return out;
}

Batch batch_of(std::span<const Sample> samples) {
  Batch batch;
  for (const Sample& sample : samples) append_piece(sample, 0, static_cast<std::int64_t>(sample.ids.size()), batch);
  return batch;
}

}  // namespace temper::text
