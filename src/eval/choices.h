// Multiple choice by log-likelihood: the model's answer is the choice it finds likeliest as a continuation of the question.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "eval/score.h"
#include "text/tokenizer.h"

namespace temper::eval {

struct ChoiceItem {
  std::string question;
  std::vector<std::string> choices;
  std::size_t answer = 0;  ///< Index into choices.
  std::int64_t row = 0;    ///< Line of the file, from 1.
};

/// Reads JSONL rows {"question", "choices": ["…", …], "answer"}; the answer is an index from 0, the text of a choice, or a
/// letter (A is the first). `max_rows` 0: all. Throws BadData naming file and line, BadFile.
std::vector<ChoiceItem> load_choices(const std::filesystem::path& path, std::int64_t max_rows = 0);

struct ChoiceReport {
  std::int64_t items = 0;
  Estimate accuracy;             ///< Choice of the highest Σ log-likelihood.
  Estimate accuracy_normalized;  ///< Choice of the highest Σ log-likelihood per byte of its text (UTF-8).
  double chance = 0;             ///< Mean of 1 / number of choices.
  std::vector<std::size_t> picked, picked_normalized;  ///< Index picked per item.
};

/// The question's tokens (BOS in front if the tokenizer adds one), then those of the choice, tokenized apart with one space
/// in front unless the question ends or the choice begins with white space. No chat template. Ties go to the first choice.
ChoiceReport score_choices(const ExecContext& ctx, model::Transformer& transformer, const text::Tokenizer& tokenizer,
                           const std::vector<ChoiceItem>& items, const ScoreOptions& options = {});

}  // namespace temper::eval
