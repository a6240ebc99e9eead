// Rows of preferences, as TRL takes them: a prompt with a chosen and a rejected answer.
#pragma once

#include <array>
#include <cstddef>
#include <string>

#include "text/chat_template.h"
#include "text/dataset.h"

namespace temper::text {

/// One answer of a preference as a row of `load_dataset` (messages, or prompt and completion), and how many assistant turns
/// at its end are the answer.
struct AnswerRow {
  Json row;
  std::size_t answers = 1;
};

/// Chosen and rejected answer of a row:
/// - `prompt`, `chosen`, `rejected` strings: raw text; `eos` is appended to the answers;
/// - the same as lists of messages, the answers with assistant turns only;
/// - `chosen` and `rejected` alone (or beside a `prompt` string), as whole conversations: what both begin with is the
/// prompt;
/// - a `prompt` string with lists of assistant turns: one user turn;
/// - `chosen` and `rejected` strings alone: the prompt is what both begin with, up to the last space before they differ.
/// `tools` and `chat_template_kwargs` are handed on. Throws BadData for anything else, and where both answers are the same.
std::array<AnswerRow, 2> split_preference(const Json& row, const std::string& eos);

/// Leaves only the last `runs` runs of labelled tokens labelled.
void keep_last_labels(Sample& sample, std::size_t runs);

}  // namespace temper::text
