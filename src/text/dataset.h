// Datasets: JSONL rows become token ids with a mask that says which tokens the loss counts.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "text/chat_template.h"

namespace temper::text {

class Tokenizer;

/// One training document. `labelled[i]` is 1 where token i is a target of the loss; always 0 for i = 0, which nothing
/// predicts.
struct Sample {
  std::vector<std::int32_t> ids;
  std::vector<std::uint8_t> labelled;
  std::int64_t row = 0;  ///< 1-based line of the file it came from.
};

/// The layouts of a row; see `load_dataset`.
enum class RowFormat { Auto, Messages, PromptCompletion, Alpaca, ShareGpt, Text };

/// "auto", "messages", "prompt-completion", "alpaca", "sharegpt", "text". Throws BadRecipe for another name.
RowFormat parse_row_format(std::string_view name);
std::string_view row_format_name(RowFormat format);

/// Whether `text` rows, and alpaca rows without a template, begin with the BOS token. Templated rows hold what the template
/// says.
enum class BosRule { Auto, Always, Never };  ///< Auto: as the tokenizer's own `add_bos` says.

struct DatasetOptions {
  RowFormat format = RowFormat::Auto;
  std::int64_t max_length = 0;  ///< Tokens; what exceeds it is cut off at the end (and counted). 0: no limit.
  std::int64_t max_rows = 0;    ///< Reads only so many rows from the start. 0: all.
  BosRule bos = BosRule::Auto;
  Json template_variables = Json::object();  ///< Handed to the template (`enable_thinking`, …); a row's own keys win.
  std::optional<std::string> chat_template = std::nullopt;  ///< Replaces the tokenizer's own template.
  bool pairs = false;        ///< Rows are preferences (preferences.h): each gives two samples, chosen and rejected, or none.
  bool allow_empty = false;  ///< Inspecting: return the report even where nothing is left to learn.
};

/// What was found while loading. Rows are lines of the file; a row may give several samples, or none.
struct DatasetReport {
  std::string path;
  std::int64_t rows = 0, samples = 0, tokens = 0, labelled_tokens = 0;
  std::int64_t rows_messages = 0, rows_prompt_completion = 0, rows_alpaca = 0, rows_sharegpt = 0, rows_text = 0;
  std::int64_t rows_without_labels = 0;  ///< Nothing to learn in them; left out.
  std::int64_t rows_split = 0;           ///< Conversations that became one sample per assistant turn.
  std::int64_t rows_cut = 0;             ///< Longer than max_length.
  std::int64_t tokens_cut = 0;           ///< Tokens lost by that.
  std::int64_t missing_eos = 0;          ///< Templated samples whose last answer ends without an end-of-turn token.
  std::int64_t double_bos = 0;           ///< Samples that begin with two BOS tokens.
  std::int64_t longest = 0;              ///< Tokens of the longest sample, before it was cut.

  /// The counts of other rows of the same file.
  DatasetReport& operator+=(const DatasetReport& other);
  /// Several lines of text; warnings are marked "warning:".
  std::string text() const;
};

struct Dataset {
  std::vector<Sample> samples;
  DatasetReport report;
};

/// Reads a JSONL file, rows on all threads, samples in the file's order. Empty lines are skipped. A row is one of (detected
/// by its keys, in this order, unless forced):
/// - `messages`: [{role, content, …}], rendered through the chat template (`tools` and `chat_template_kwargs` of the row are
///   handed to it); loss on every assistant turn.
/// - `conversations`: ShareGPT, [{from, value}] with human, user, gpt, assistant, model, system, developer, tool,
///   function_call, function_response, observation; then as `messages`.
/// - `prompt`, `completion`: raw text: no template, nothing prepended or appended, tokenized apart with special
///   tokens parsed, and joined; loss on the completion.
/// - `instruction`[, `input`], `output`: alpaca: one user turn (instruction, blank line, input) and one answer through the
///   template if there is one; else Stanford Alpaca's prompt ("Below is an instruction that describes a task…", sections
///   "### Instruction:", "### Input:", "### Response:", each on a line of its own), the output and EOS; loss on the output.
/// - `text`: raw text, special tokens parsed, EOS appended; loss on all of it.
///
/// The mask of a conversation comes from rendering, never from searching for markers. Turn k's span begins where the
/// rendering of the turns before it, with the generation prompt, ends, and ends where the rendering up to and including turn
/// k ends. If one of these is no prefix of the whole conversation's rendering (templates that drop earlier reasoning), every
/// assistant turn becomes a sample of its own: the conversation up to it, with loss on that turn only. Turns after the last
/// answer are left out.
///
/// Boundary rule: the whole rendering is tokenized once, so ids are those that inference would see; a token belongs to the
/// span in which its first byte lies. White space that a template writes after the turn's closing special token is not
/// labelled, since generation has stopped by then.
///
/// Throws BadData naming file and line for a row that is broken, and naming the counts where no labelled token is left;
/// BadFile where the file cannot be read.
Dataset load_dataset(const std::string& path, const Tokenizer& tokenizer, const DatasetOptions& options = {});

/// The same for one row, which may give several samples; `origin` ("file:line") begins its errors. `report` is added to.
std::vector<Sample> make_samples(const Json& row, const std::string& origin, const Tokenizer& tokenizer,
                                 const DatasetOptions& options, DatasetReport& report);

}  // namespace temper::text
