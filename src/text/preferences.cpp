#include "text/preferences.h"

#include <algorithm>

#include "base/error.h"

namespace temper::text {
namespace {

constexpr std::array<const char*, 2> kAnswers = {"chosen", "rejected"};

bool is_assistant(const Json& message) {
  return message.is_object() && message.contains("role") && message["role"] == "assistant";
}

/// An answer's turns after `begin`, all of the assistant.
std::size_t count_answers(const Json& messages, std::size_t begin, const char* key) {
  if (begin >= messages.size()) throw BadData("'{}': no turn of the assistant after the prompt", key);
  for (std::size_t i = begin; i < messages.size(); ++i)
    if (!is_assistant(messages[i]))
      throw BadData("'{}': expected turns of the assistant after the prompt, found {}", key, messages[i].dump());
  return messages.size() - begin;
}

std::size_t common_messages(const Json& a, const Json& b) {
  std::size_t n = 0;
  while (n < a.size() && n < b.size() && a[n] == b[n]) ++n;
  return n;
}

std::array<AnswerRow, 2> from_messages(const Json& row) {
  const bool has_prompt = row.contains("prompt") && !row["prompt"].is_null();
  // Answers that begin with the assistant's turn go on from the prompt; others are whole conversations.
  const bool whole = !row["chosen"].empty() && !is_assistant(row["chosen"].front());
  Json prompt = Json::array();
  if (!whole) {
    if (!has_prompt) throw BadData("'prompt': nothing there, and 'chosen' begins with an answer");
    prompt = row["prompt"].is_string() ? Json::array({{{"role", "user"}, {"content", row["prompt"]}}}) : row["prompt"];
    if (!prompt.is_array()) throw BadData("'prompt': expected a string or messages, found {}", prompt.type_name());
  }
  const std::size_t shared = whole ? common_messages(row["chosen"], row["rejected"]) : prompt.size();
  std::array<AnswerRow, 2> result;
  for (std::size_t i = 0; i < kAnswers.size(); ++i) {
    Json messages = prompt;
    for (const Json& message : row[kAnswers[i]]) messages.push_back(message);
    result[i].answers = count_answers(messages, shared, kAnswers[i]);
    result[i].row = {{"messages", messages}};
    for (const char* key : {"tools", "chat_template_kwargs"})
      if (row.contains(key)) result[i].row[key] = row[key];
  }
  return result;
}

/// Up to where both differ, without the space before that.
std::size_t common_text(const std::string& a, const std::string& b) {
  std::size_t n = static_cast<std::size_t>(std::ranges::mismatch(a, b).in1 - a.begin());
  while (n > 0 && (static_cast<unsigned char>(a[n < a.size() ? n : n - 1]) & 0xC0) == 0x80) --n;  // within a character
  return n > 0 && a[n - 1] == ' ' ? n - 1 : n;
}

std::array<AnswerRow, 2> from_text(const Json& row, const std::string& eos) {
  std::array<std::string, 2> answers = {row["chosen"].get<std::string>(), row["rejected"].get<std::string>()};
  std::string prompt;
  if (row.contains("prompt") && !row["prompt"].is_null()) {
    if (!row["prompt"].is_string()) throw BadData("'prompt': expected a string, as 'chosen' is one");
    prompt = row["prompt"].get<std::string>();
  } else {
    const std::size_t shared = common_text(answers[0], answers[1]);
    prompt = answers[0].substr(0, shared);
    for (std::string& answer : answers) answer.erase(0, shared);
  }
  std::array<AnswerRow, 2> result;
  for (std::size_t i = 0; i < answers.size(); ++i) result[i].row = {{"prompt", prompt}, {"completion", answers[i] + eos}};
  return result;
}

}  // namespace

std::array<AnswerRow, 2> split_preference(const Json& row, const std::string& eos) {
  if (!row.is_object()) throw BadData("expected a JSON object, found {}", row.type_name());
  for (const char* key : kAnswers)
    if (!row.contains(key)) throw BadData("expected a row of preferences (prompt, chosen, rejected): no '{}'", key);
  if (row["chosen"] == row["rejected"]) throw BadData("'chosen' and 'rejected' are the same");
  if (row["chosen"].is_array() && row["rejected"].is_array()) return from_messages(row);
  if (row["chosen"].is_string() && row["rejected"].is_string()) return from_text(row, eos);
  throw BadData("'chosen' and 'rejected': expected two strings or two lists of messages, found {} and {}",
                row["chosen"].type_name(), row["rejected"].type_name());
}

void keep_last_labels(Sample& sample, std::size_t runs) {
  std::size_t seen = 0;
  for (std::size_t i = sample.labelled.size(); i-- > 0;) {
    if (!sample.labelled[i]) continue;
    const bool ends_a_run = i + 1 == sample.labelled.size() || !sample.labelled[i + 1];
    // A label taken away counts as the gap it leaves: `seen` has passed `runs` by then.
    if (ends_a_run && seen <= runs) ++seen;
    if (seen > runs) sample.labelled[i] = 0;
  }
}

}  // namespace temper::text
