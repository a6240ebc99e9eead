// Text that a model writes by itself, many pieces side by side, kept on disk: data for those who have none.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "eval/loaded_model.h"
#include "text/dataset.h"

namespace temper::eval {

struct TextSampling {
  std::int64_t length = 512;  ///< Tokens of a text that a model reads; one more is drawn, which the last of them predicts.
  std::int64_t batch = 0;     ///< Texts written side by side; 0: as many as 512 MB of keys and values hold, 1 to 32.
  double temperature = 1;     ///< 1: the model's own distribution.
  std::uint64_t seed = 0;
};

/// `count` texts of `model`, as samples all of whose tokens but the first are labelled; rows count from 1. Each begins as a
/// document or, every other one, as the user's turn of a conversation where there is a chat template, and goes on for
/// `length` tokens, whatever ends within. A text depends on model, options and its number alone.
///
/// Written in rounds of `batch` texts, each a file in `folder` (TEXTS-KEY-ROUND.safetensors: ids I32 [batch, length + 1])
/// whose key is a checksum of `fingerprint` (of the model's weights), options, arithmetic and beginnings: a file that is
/// there is read, and others of other keys may lie beside it. Throws Interrupted, rounds done being kept; BadFile for a file
/// that holds no such texts; BadRecipe for a length that the model has no positions for.
std::vector<text::Sample> sample_texts(const ExecContext& ctx, LoadedModel& model, const TextSampling& options,
                                       std::int64_t count, const std::string& fingerprint,
                                       const std::filesystem::path& folder);

}  // namespace temper::eval
