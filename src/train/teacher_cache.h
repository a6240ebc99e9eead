// A teacher's likeliest tokens for every labelled token of a data set, in a file: computed once, read at every step.
//
// A safetensors file:
//   first    I64 [sequences + 1]   record of each packed sequence's first labelled token; the last: how many there are
//   records  U8 [tokens, 8k + 4]   for each labelled token in order: k ids (I32), k log p (F32), log of all other ids' sum
//                                  of p (F32; -inf where none is left); little-endian; p at the temperature below
//   __metadata__                   format, version, teacher, data, packing (fingerprints), vocab, top_k, temperature
#pragma once

#include <memory>
#include <span>
#include <string>
#include <vector>

#include "files/safetensors.h"
#include "train/teacher.h"

namespace temper::train {

/// What such a file was made from.
struct TeacherCacheKey {
  std::string teacher, data, packing;  ///< Fingerprints.
  std::int64_t vocab = 0, top_k = 0;
  double temperature = 1;
  bool operator==(const TeacherCacheKey&) const = default;
};

class TeacherCache {
 public:
  /// Records of some labelled tokens, as ops::TeacherRows takes them.
  struct Rows {
    std::vector<std::int32_t> ids;
    std::vector<float> log_probs, log_rest;
  };

  /// The file that run.recipe.distill names, made if it is not there. Throws BadRecipe, saying what differs, for one made
  /// from another teacher, data, packing or temperature; BadFile for a broken one; Interrupted.
  static std::unique_ptr<TeacherCache> open_or_make(const ExecContext& ctx, const ObjectiveRun& run, Teacher& teacher);
  /// Maps and checks a file; throws BadFile.
  explicit TeacherCache(const std::filesystem::path& path);
  /// The same over bytes that outlive the result.
  static TeacherCache parse(std::span<const std::byte> bytes, std::string origin);

  const TeacherCacheKey& key() const { return key_; }
  std::int64_t top_k() const { return key_.top_k; }
  std::int64_t sequences() const { return sequences_; }
  std::int64_t tokens() const { return tokens_; }
  const std::string& origin() const { return file_.origin(); }
  /// Of whole sequences, one after another. Throws BadFile for a record that is none: an id beyond the vocabulary, a
  /// logarithm of no probability.
  Rows rows(std::span<const std::int64_t> sequences) const;

 private:
  explicit TeacherCache(files::SafetensorsFile file);
  std::int64_t first(std::int64_t sequence) const;

  files::SafetensorsFile file_;
  TeacherCacheKey key_;
  std::int64_t sequences_ = 0, tokens_ = 0;
  std::span<const std::byte> first_, records_;
};

/// The record of a row of logits: see above. The lower id first where two are equally likely.
void append_top(std::span<const float> logits, std::int64_t k, double temperature, std::vector<std::byte>& record);

}  // namespace temper::train
