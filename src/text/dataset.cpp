#include "text/dataset.h"

#include <algorithm>
#include <array>
#include <atomic>
#include <exception>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <limits>
#include <utility>

#include "base/error.h"
#include "base/parallel.h"
#include "text/dataset_turns.h"
#include "text/preferences.h"
#include "text/tokenizer.h"

namespace temper::text {
namespace {

constexpr std::array<std::pair<RowFormat, std::string_view>, 6> kFormats = {
    {{RowFormat::Auto, "auto"},
     {RowFormat::Messages, "messages"},
     {RowFormat::PromptCompletion, "prompt-completion"},
     {RowFormat::Alpaca, "alpaca"},
     {RowFormat::ShareGpt, "sharegpt"},
     {RowFormat::Text, "text"}}};

/// Turns rows into samples; holds what is the same for all of them.
class RowReader {
 public:
  RowReader(const Tokenizer& tokenizer, const DatasetOptions& options, DatasetReport& report)
      : tokenizer_(tokenizer), options_(options), report_(report) {
    const auto& source = options.chat_template ? options.chat_template : tokenizer.chat_template();
    if (source) template_.emplace(*source);
    const auto name = [&](const char* key, std::optional<std::int32_t> id) {
      if (id) variables_[key] = tokenizer.token_text(*id);
    };
    name("bos_token", tokenizer.bos_id());
    name("eos_token", tokenizer.eos_id());
    name("pad_token", tokenizer.pad_id());
    name("unk_token", tokenizer.unk_id());
    variables_.update(options.template_variables);
  }

  std::vector<Sample> read(const Json& row) {
    if (options_.pairs) return read_pair(row);
    return read_samples(row);
  }

 private:
  std::vector<Sample> read_samples(const Json& row) {
    if (!row.is_object()) throw BadData("expected a JSON object, found {}", row.type_name());
    ++report_.rows;
    std::vector<Sample> samples = convert(row);
    bool cut = false;
    for (Sample& sample : samples) cut = finish(sample) || cut;
    report_.rows_cut += cut;
    std::erase_if(samples, [](const Sample& s) { return std::count(s.labelled.begin(), s.labelled.end(), 1) == 0; });
    if (samples.empty()) ++report_.rows_without_labels;
    for (const Sample& sample : samples) {
      ++report_.samples;
      report_.tokens += static_cast<std::int64_t>(sample.ids.size());
      report_.labelled_tokens += std::count(sample.labelled.begin(), sample.labelled.end(), 1);
    }
    return samples;
  }

  /// Both answers of a preference; none where one has nothing labelled.
  std::vector<Sample> read_pair(const Json& row) {
    const auto eos = tokenizer_.eos_id();
    std::vector<Sample> pair;
    for (const AnswerRow& answer : split_preference(row, eos ? tokenizer_.token_text(*eos) : "")) {
      std::vector<Sample> samples = read_samples(answer.row);
      if (samples.empty()) continue;
      pair.push_back(std::move(samples.back()));  // of several, the one up to the last turn
      keep_last_labels(pair.back(), answer.answers);
    }
    --report_.rows;  // counted for each answer
    if (pair.size() < 2) pair.clear();
    return pair;
  }

  RowFormat detect(const Json& row) const {
    if (options_.format != RowFormat::Auto) return options_.format;
    if (row.contains("messages")) return RowFormat::Messages;
    if (row.contains("conversations")) return RowFormat::ShareGpt;
    if (row.contains("prompt") && row.contains("completion")) return RowFormat::PromptCompletion;
    if (row.contains("instruction")) return RowFormat::Alpaca;
    if (row.contains("text")) return RowFormat::Text;
    std::string keys;
    for (const auto& [key, value] : row.items()) keys += (keys.empty() ? "" : ", ") + key;
    throw BadData("expected messages, conversations, prompt and completion, instruction, or text; found the keys [{}]",
                  keys);
  }

  std::vector<Sample> convert(const Json& row) {
    switch (detect(row)) {
      case RowFormat::Messages: ++report_.rows_messages; return from_messages(array(row, "messages"), row);
      case RowFormat::ShareGpt: ++report_.rows_sharegpt; return from_messages(sharegpt_messages(row), row);
      case RowFormat::PromptCompletion:
        ++report_.rows_prompt_completion;
        return {join_labelled(text(row, "prompt"), text(row, "completion"), false)};
      case RowFormat::Alpaca: ++report_.rows_alpaca; return from_alpaca(row);
      default: ++report_.rows_text; return {from_text(text(row, "text"))};
    }
  }

  static const Json& array(const Json& row, const char* key) {
    if (!row.contains(key) || !row[key].is_array()) {
      throw BadData("'{}': expected an array, found {}", key, row.contains(key) ? row[key].type_name() : "nothing");
    }
    return row[key];
  }

  static std::string text(const Json& object, const char* key) {
    if (!object.contains(key) || !object[key].is_string()) {
      throw BadData("'{}': expected a string, found {}", key, object.contains(key) ? object[key].type_name() : "nothing");
    }
    return object[key].get<std::string>();
  }

  static std::string optional_text(const Json& object, const char* key) {
    return object.contains(key) && !object[key].is_null() ? text(object, key) : std::string();
  }

  static Json sharegpt_messages(const Json& row) {
    static const std::array<std::pair<std::string_view, const char*>, 11> kRoles = {{{"human", "user"},
                                                                                     {"user", "user"},
                                                                                     {"gpt", "assistant"},
                                                                                     {"assistant", "assistant"},
                                                                                     {"model", "assistant"},
                                                                                     {"function_call", "assistant"},
                                                                                     {"system", "system"},
                                                                                     {"tool", "tool"},
                                                                                     {"function_response", "tool"},
                                                                                     {"observation", "tool"},
                                                                                     {"developer", "developer"}}};
    Json messages = Json::array();
    if (const std::string system = optional_text(row, "system"); !system.empty()) {
      messages.push_back({{"role", "system"}, {"content", system}});
    }
    for (const Json& turn : array(row, "conversations")) {
      if (!turn.is_object()) throw BadData("'conversations': expected objects, found {}", turn.type_name());
      const std::string from = text(turn, "from");
      const auto role = std::find_if(kRoles.begin(), kRoles.end(), [&](const auto& r) { return r.first == from; });
      if (role == kRoles.end()) throw BadData("'from': expected human, gpt, system or tool, found '{}'", from);
      messages.push_back({{"role", role->second}, {"content", text(turn, "value")}});
    }
    return messages;
  }

  std::vector<Sample> from_messages(const Json& messages, const Json& row) {
    for (const Json& message : messages) {
      if (!message.is_object()) throw BadData("a message: expected an object, found {}", message.type_name());
      text(message, "role");
    }
    if (!template_) {
      throw BadData(
          "a conversation needs a chat template, and the model has none; give one, or rows of prompt and completion");
    }
    Json variables = variables_;
    if (row.contains("tools"))
      variables["tools"] = row["tools"].is_string() ? Json::parse(row["tools"].get<std::string>()) : row["tools"];
    if (row.contains("chat_template_kwargs") && row["chat_template_kwargs"].is_object())
      variables.update(row["chat_template_kwargs"]);
    std::vector<Sample> samples;
    for (const RenderedTurns& turns : render_turns(*template_, messages, variables)) {
      samples.push_back(label_turns(turns, tokenizer_));
      report_.missing_eos += !turns.answers.empty() && !closes(samples.back());
    }
    report_.rows_split += samples.size() > 1;
    return samples;
  }

  /// Whether the last labelled token ends generation.
  bool closes(const Sample& sample) const {
    const auto last = std::find(sample.labelled.rbegin(), sample.labelled.rend(), 1);
    if (last == sample.labelled.rend()) return false;
    return tokenizer_.is_eog(sample.ids[static_cast<std::size_t>(sample.labelled.rend() - last - 1)]);
  }

  std::vector<Sample> from_alpaca(const Json& row) {
    const std::string instruction = text(row, "instruction"), input = optional_text(row, "input"),
                      output = text(row, "output");
    if (template_) {
      const Json messages = {{{"role", "user"}, {"content", input.empty() ? instruction : instruction + "\n\n" + input}},
                             {{"role", "assistant"}, {"content", output}}};
      return from_messages(messages, row);
    }
    // The prompt that Stanford Alpaca's data was made for (github.com/tatsu-lab/stanford_alpaca).
    const std::string prompt =
        input.empty()
            ? fmt::format(
                  "Below is an instruction that describes a task. Write a response that appropriately completes the "
                  "request.\n\n### Instruction:\n{}\n\n### Response:\n",
                  instruction)
            : fmt::format(
                  "Below is an instruction that describes a task, paired with an input that provides further context. "
                  "Write a response that appropriately completes the request.\n\n### Instruction:\n{}\n\n### "
                  "Input:\n{}\n\n### Response:\n",
                  instruction, input);
    return {join_labelled(prompt, output, true)};
  }

  bool begins_with_bos() const {
    return options_.bos == BosRule::Always || (options_.bos == BosRule::Auto && tokenizer_.adds_bos());
  }

  void begin(Sample& sample) const {
    if (!begins_with_bos()) return;
    if (!tokenizer_.bos_id()) throw BadData("BOS was asked for, and the tokenizer has none");
    sample.ids.push_back(*tokenizer_.bos_id());
  }

  void end(Sample& sample) const {
    if (tokenizer_.eos_id()) sample.ids.push_back(*tokenizer_.eos_id());
  }

  void add(Sample& sample, std::string_view content, TextPart part) const {
    const std::vector<std::int32_t> ids = tokenizer_.encode(content, true, part);
    sample.ids.insert(sample.ids.end(), ids.begin(), ids.end());
  }

  /// What follows on `ids`: as if both were one text.
  TextPart part_after(const std::vector<std::int32_t>& ids) const {
    return !ids.empty() && tokenizer_.is_added(ids.back()) ? TextPart::kAfterToken : TextPart::kContinuation;
  }

  /// Prompt and answer, tokenized apart; with BOS and EOS around them if `framed`.
  Sample join_labelled(const std::string& prompt, const std::string& answer, bool framed) const {
    Sample sample;
    if (framed) begin(sample);
    add(sample, prompt, TextPart::kWhole);
    const std::size_t first = std::max<std::size_t>(sample.ids.size(), 1);
    add(sample, answer, prompt.empty() ? TextPart::kWhole : part_after(sample.ids));
    if (framed) end(sample);
    sample.labelled.assign(sample.ids.size(), 0);
    for (std::size_t i = first; i < sample.ids.size(); ++i) sample.labelled[i] = 1;
    return sample;
  }

  Sample from_text(const std::string& content) const {
    Sample sample;
    begin(sample);
    add(sample, content, TextPart::kWhole);
    end(sample);
    sample.labelled.assign(sample.ids.size(), 1);
    if (!sample.labelled.empty()) sample.labelled[0] = 0;
    return sample;
  }

  /// Counts what is odd about a sample and cuts it; true if it was cut.
  bool finish(Sample& sample) {
    tokenizer_.check_rows(sample.ids);
    const auto length = static_cast<std::int64_t>(sample.ids.size());
    report_.longest = std::max(report_.longest, length);
    const auto bos = tokenizer_.bos_id();
    report_.double_bos += bos && length > 1 && sample.ids[0] == *bos && sample.ids[1] == *bos;
    if (options_.max_length <= 0 || length <= options_.max_length) return false;
    report_.tokens_cut += length - options_.max_length;
    sample.ids.resize(static_cast<std::size_t>(options_.max_length));
    sample.labelled.resize(sample.ids.size());
    return true;
  }

  const Tokenizer& tokenizer_;
  const DatasetOptions& options_;
  DatasetReport& report_;
  std::optional<ChatTemplate> template_;
  Json variables_ = Json::object();
};

/// Reads one row; errors begin with `origin`.
std::vector<Sample> read_row(RowReader& reader, const Json& row, const std::string& origin) {
  try {
    return reader.read(row);
  } catch (const OutOfMemory& error) {
    throw OutOfMemory("{}: {}", origin, error.what());
  } catch (const Unsupported& error) {
    throw Unsupported("{}: {}", origin, error.what());
  } catch (const BadData& error) {
    throw BadData("{}: {}", origin, error.what());
  } catch (const nlohmann::json::exception& error) {
    throw BadData("{}: {}", origin, error.what());
  }
}

/// A line of a file, and what became of it.
struct Line {
  std::int64_t number = 0;
  std::string text;
  std::vector<Sample> samples;
  std::exception_ptr error = nullptr;
};

/// The lines of a file that hold something, some thousand at a time.
class LineReader {
 public:
  LineReader(std::istream& file, std::int64_t max_lines)
      : file_(file), left_(max_lines > 0 ? max_lines : std::numeric_limits<std::int64_t>::max()) {}

  /// False at the end.
  bool next(std::vector<Line>& lines) {
    lines.clear();
    std::string text;
    while (left_ > 0 && lines.size() < kLinesAtOnce && std::getline(file_, text)) {
      ++number_;
      if (number_ == 1 && text.starts_with("\xEF\xBB\xBF")) text.erase(0, 3);
      if (text.find_first_not_of(" \t\r") == std::string::npos) continue;
      lines.push_back({number_, std::move(text), {}});
      --left_;
    }
    return !lines.empty();
  }

 private:
  static constexpr std::size_t kLinesAtOnce = 4096;
  std::istream& file_;
  std::int64_t left_, number_ = 0;
};

std::vector<Sample> read_line(RowReader& reader, const std::string& path, const Line& line) {
  const std::string origin = fmt::format("{}:{}", path, line.number);
  Json row;
  try {
    row = Json::parse(line.text);
  } catch (const nlohmann::json::exception& error) {
    throw BadData("{}: not a line of JSON: {}", origin, error.what());
  }
  std::vector<Sample> samples = read_row(reader, row, origin);
  for (Sample& sample : samples) sample.row = line.number;
  return samples;
}

/// Fills in samples, or the error, of every line up to the first that has an error; a thread for each reader.
void read_lines(const std::string& path, std::vector<Line>& lines, std::vector<RowReader>& readers) {
  std::atomic<std::size_t> next = 0;
  parallel_for(static_cast<std::int64_t>(readers.size()), 1, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t worker = begin; worker < end; ++worker) {
      for (std::size_t i; (i = next++) < lines.size();) {
        try {
          lines[i].samples = read_line(readers[static_cast<std::size_t>(worker)], path, lines[i]);
        } catch (...) {
          lines[i].error = std::current_exception();
          next = lines.size();  // earlier lines are with some thread already
        }
      }
    }
  });
}

void refuse_empty(const DatasetReport& report) {
  if (report.rows == 0) throw BadData("{}: the file has no rows", report.path);
  if (report.labelled_tokens > 0) return;
  throw BadData(
      "{}: nothing is left to learn: {} rows, none with a labelled token ({} cut at the maximal length). Check that answers "
      "are there "
      "and that the maximal length leaves room for them",
      report.path, report.rows, report.rows_cut);
}

}  // namespace

RowFormat parse_row_format(std::string_view name) {
  for (const auto& [format, known] : kFormats) {
    if (known == name) return format;
  }
  throw BadRecipe("data format: expected auto, messages, prompt-completion, alpaca, sharegpt or text, found '{}'", name);
}

std::string_view row_format_name(RowFormat format) {
  return std::find_if(kFormats.begin(), kFormats.end(), [&](const auto& f) { return f.first == format; })->second;
}

std::vector<Sample> make_samples(const Json& row, const std::string& origin, const Tokenizer& tokenizer,
                                 const DatasetOptions& options, DatasetReport& report) {
  RowReader reader(tokenizer, options, report);
  return read_row(reader, row, origin);
}

DatasetReport& DatasetReport::operator+=(const DatasetReport& other) {
  for (const auto counter :
       {&DatasetReport::rows, &DatasetReport::samples, &DatasetReport::tokens, &DatasetReport::labelled_tokens,
        &DatasetReport::rows_messages, &DatasetReport::rows_prompt_completion, &DatasetReport::rows_alpaca,
        &DatasetReport::rows_sharegpt, &DatasetReport::rows_text, &DatasetReport::rows_without_labels,
        &DatasetReport::rows_split, &DatasetReport::rows_cut, &DatasetReport::tokens_cut, &DatasetReport::missing_eos,
        &DatasetReport::double_bos})
    this->*counter += other.*counter;
  longest = std::max(longest, other.longest);
  return *this;
}

Dataset load_dataset(const std::string& path, const Tokenizer& tokenizer, const DatasetOptions& options) {
  std::ifstream file(path, std::ios::binary);
  if (!file || std::filesystem::is_directory(path)) throw BadFile("{}: expected a JSONL file that can be read", path);
  Dataset dataset;
  dataset.report.path = path;
  std::vector<DatasetReport> reports(static_cast<std::size_t>(num_threads()));  // one for each thread
  std::vector<RowReader> readers;
  readers.reserve(reports.size());
  for (DatasetReport& report : reports) readers.emplace_back(tokenizer, options, report);
  LineReader lines(file, options.max_rows);
  for (std::vector<Line> some; lines.next(some);) {
    read_lines(path, some, readers);
    for (Line& line : some) {
      if (line.error) std::rethrow_exception(line.error);
      std::ranges::move(line.samples, std::back_inserter(dataset.samples));
    }
  }
  if (file.bad()) throw BadFile("{}: reading failed", path);
  for (const DatasetReport& report : reports) dataset.report += report;
  if (!options.allow_empty) refuse_empty(dataset.report);
  return dataset;
}

std::string DatasetReport::text() const {
  std::string formats;
  const auto format = [&](std::int64_t n, RowFormat f) {
    if (n > 0) formats += fmt::format("{}{} {}", formats.empty() ? "" : ", ", n, row_format_name(f));
  };
  format(rows_messages, RowFormat::Messages);
  format(rows_prompt_completion, RowFormat::PromptCompletion);
  format(rows_alpaca, RowFormat::Alpaca);
  format(rows_sharegpt, RowFormat::ShareGpt);
  format(rows_text, RowFormat::Text);
  std::string out =
      fmt::format("{}: {} rows ({}), {} samples, {} tokens, {} of them labelled ({:.1f} %), longest sample {} tokens\n",
                  path, rows, formats, samples, tokens, labelled_tokens,
                  tokens > 0 ? 100.0 * static_cast<double>(labelled_tokens) / static_cast<double>(tokens) : 0.0, longest);
  if (rows_split > 0) {
    out += fmt::format(
        "{} conversations became a sample per answer, since the template renders earlier turns differently later\n",
        rows_split);
  }
  const auto warn = [&](std::int64_t n, const char* what) {
    if (n > 0) out += fmt::format("warning: {} {}\n", n, what);
  };
  warn(rows_without_labels, "rows have no labelled token and are left out");
  warn(rows_cut, fmt::format("rows are longer than the maximal length; {} tokens cut off", tokens_cut).c_str());
  warn(missing_eos,
       "samples do not end their last answer with a token that ends generation: the model may learn not to stop");
  warn(double_bos, "samples begin with two BOS tokens: template or text writes one that is already there");
  return out;
}

}  // namespace temper::text
