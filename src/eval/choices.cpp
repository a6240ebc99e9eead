#include "eval/choices.h"

#include <algorithm>
#include <cctype>

#include "base/atomic_file.h"
#include "base/error.h"
#include "files/json.h"

namespace temper::eval {
namespace {

using files::Json;

std::size_t answer_index(const Json& answer, const std::vector<std::string>& choices, const std::string& origin) {
  if (answer.is_number_integer()) {
    const std::int64_t index = answer.get<std::int64_t>();
    if (index >= 0 && index < static_cast<std::int64_t>(choices.size())) return static_cast<std::size_t>(index);
  } else if (answer.is_string()) {
    const std::string& text = answer.get_ref<const std::string&>();
    if (const auto found = std::ranges::find(choices, text); found != choices.end())
      return static_cast<std::size_t>(found - choices.begin());
    if (text.size() == 1 && std::isalpha(static_cast<unsigned char>(text[0])) != 0) {
      const int letter = std::toupper(static_cast<unsigned char>(text[0])) - 'A';
      if (letter < static_cast<int>(choices.size())) return static_cast<std::size_t>(letter);
    }
  }
  throw BadData("{}: answer: expected an index from 0 to {}, the text of a choice, or its letter, found {}", origin,
                choices.size() - 1, files::describe(answer));
}

ChoiceItem read_item(const std::string& line, const std::string& origin) {
  ChoiceItem item;
  try {
    const Json row = files::parse_json(line, origin);
    item.question = files::require_string(row, "question", origin);
    for (const Json& choice : files::require_array(row, "choices", origin)) {
      if (!choice.is_string() || choice.get_ref<const std::string&>().empty())
        throw BadData("{}: choices: expected texts, found {}", origin, files::describe(choice));
      item.choices.push_back(choice.get<std::string>());
    }
    if (item.choices.size() < 2) throw BadData("{}: choices: expected at least 2, found {}", origin, item.choices.size());
    const Json* answer = files::find_key(row, "answer");
    if (answer == nullptr) throw BadData("{}: answer: missing", origin);
    item.answer = answer_index(*answer, item.choices, origin);
  } catch (const BadFile& error) {
    throw BadData("{}", error.what());
  }
  return item;
}

bool is_space(char c) { return std::isspace(static_cast<unsigned char>(c)) != 0; }

/// One sample per choice: question and choice, the choice's tokens labelled.
std::vector<text::Sample> choice_samples(const ChoiceItem& item, const text::Tokenizer& tokenizer) {
  std::vector<std::int32_t> question;
  if (tokenizer.adds_bos() && tokenizer.bos_id()) question.push_back(*tokenizer.bos_id());
  const std::vector<std::int32_t> ids = tokenizer.encode(item.question, true);
  question.insert(question.end(), ids.begin(), ids.end());
  if (question.empty()) throw BadData("row {}: the question has no tokens", item.row);
  const bool spaced = !item.question.empty() && is_space(item.question.back());
  std::vector<text::Sample> samples;
  for (const std::string& choice : item.choices) {
    const std::vector<std::int32_t> answer =
        tokenizer.encode(spaced || is_space(choice[0]) ? choice : " " + choice, true, text::TextPart::kContinuation);
    text::Sample sample;
    sample.row = item.row;
    sample.ids = question;
    sample.ids.insert(sample.ids.end(), answer.begin(), answer.end());
    sample.labelled.assign(question.size(), 0);
    sample.labelled.resize(sample.ids.size(), 1);
    samples.push_back(std::move(sample));
  }
  return samples;
}

}  // namespace

std::vector<ChoiceItem> load_choices(const std::filesystem::path& path, std::int64_t max_rows) {
  const std::string text = read_file(path);
  std::vector<ChoiceItem> items;
  std::int64_t row = 0;
  for (std::size_t begin = 0; begin < text.size();) {
    const std::size_t end = std::min(text.find('\n', begin), text.size());
    const std::string line = text.substr(begin, end - begin);
    begin = end + 1;
    ++row;
    if (std::ranges::all_of(line, is_space)) continue;
    items.push_back(read_item(line, fmt::format("{}:{}", path.string(), row)));
    items.back().row = row;
    if (max_rows > 0 && static_cast<std::int64_t>(items.size()) == max_rows) break;
  }
  if (items.empty()) throw BadData("{}: no rows; expected JSONL of question, choices, answer", path.string());
  return items;
}

ChoiceReport score_choices(const ExecContext& ctx, model::Transformer& transformer, const text::Tokenizer& tokenizer,
                           const std::vector<ChoiceItem>& items, const ScoreOptions& options) {
  std::vector<text::Sample> samples;
  for (const ChoiceItem& item : items) {
    std::vector<text::Sample> of_item = choice_samples(item, tokenizer);
    std::ranges::move(of_item, std::back_inserter(samples));
  }
  const std::vector<RowScore> scores = score_samples(ctx, transformer, samples, options);

  ChoiceReport report;
  report.items = static_cast<std::int64_t>(items.size());
  std::vector<double> right, right_normalized;
  const std::vector<double> ones(items.size(), 1.0);
  auto next = scores.begin();
  for (const ChoiceItem& item : items) {
    std::size_t best = 0, best_normalized = 0;
    const auto loss = [&](std::size_t c) { return next[static_cast<std::ptrdiff_t>(c)].nll; };
    const auto normalized = [&](std::size_t c) { return loss(c) / static_cast<double>(item.choices[c].size()); };
    for (std::size_t c = 1; c < item.choices.size(); ++c) {
      if (loss(c) < loss(best)) best = c;
      if (normalized(c) < normalized(best_normalized)) best_normalized = c;
    }
    next += static_cast<std::ptrdiff_t>(item.choices.size());
    report.picked.push_back(best);
    report.picked_normalized.push_back(best_normalized);
    right.push_back(best == item.answer ? 1.0 : 0.0);
    right_normalized.push_back(best_normalized == item.answer ? 1.0 : 0.0);
    report.chance += 1.0 / static_cast<double>(item.choices.size()) / static_cast<double>(items.size());
  }
  report.accuracy = bootstrap_ratio(right, ones, options.bootstrap);
  report.accuracy_normalized = bootstrap_ratio(right_normalized, ones, options.bootstrap);
  return report;
}

}  // namespace temper::eval
