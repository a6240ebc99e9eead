#include "text/dataset_turns.h"

#include <algorithm>
#include <optional>

#include "base/error.h"
#include "text/tokenizer.h"

namespace temper::text {
namespace {

Json first_messages(const Json& messages, std::size_t n) {
  return Json(messages.begin(), messages.begin() + static_cast<std::ptrdiff_t>(n));
}

std::size_t common_prefix(std::string_view a, std::string_view b) {
  const auto [end, other] = std::mismatch(a.begin(), a.end(), b.begin(), b.end());
  return static_cast<std::size_t>(end - a.begin());
}

/// Where answer k begins in `full`, the rendering up to and with it. Nothing where no prompt can be rendered: an answer that
/// opens the conversation, with a template that insists on a message before it.
std::optional<std::size_t> answer_begin(const ChatTemplate& chat_template, const Json& messages, std::size_t k,
                                        const Json& variables, std::string_view full) {
  const Json before = first_messages(messages, k);
  std::string prompt;
  try {
    prompt = chat_template.render(before, true, variables);
  } catch (const BadData&) {
    if (k == 0) return {};
    throw;
  }
  if (full.starts_with(prompt)) return prompt.size();
  // The generation prompt may promise what this answer does not hold (an opening <think>): what the two share was given.
  const std::string bare = chat_template.render(before, false, variables);
  const std::size_t shared = common_prefix(prompt, full);
  if (shared < bare.size()) {
    throw BadData(
        "message {}: the chat template renders the messages before it differently once it follows, so that its beginning "
        "cannot be "
        "found",
        k + 1);
  }
  return shared;
}

/// The token's bytes one after another, with each token's offset and the total.
std::string concatenate(const std::vector<std::int32_t>& ids, const Tokenizer& tokenizer,
                        std::vector<std::size_t>& offsets) {
  std::string bytes;
  for (const std::int32_t id : ids) {
    offsets.push_back(bytes.size());
    bytes += tokenizer.token_bytes(id);
  }
  return bytes;
}

/// Where text[:offset] ends in what the tokens spell, if a normalizer made that differ from the text.
std::size_t move_offset(const RenderedTurns& turns, std::size_t offset, std::string_view spelled,
                        const Tokenizer& tokenizer) {
  if (spelled == turns.text) return offset;
  std::vector<std::size_t> unused;
  const std::string prefix =
      concatenate(tokenizer.encode(std::string_view(turns.text).substr(0, offset), true), tokenizer, unused);
  return common_prefix(prefix, spelled);
}

bool is_blank(std::string_view bytes) { return bytes.find_first_not_of(" \t\r\n") == std::string_view::npos; }

}  // namespace

std::vector<RenderedTurns> render_turns(const ChatTemplate& chat_template, const Json& messages, const Json& variables) {
  std::vector<std::size_t> answers;
  for (std::size_t k = 0; k < messages.size(); ++k) {
    if (messages[k]["role"] == "assistant") answers.push_back(k);
  }
  std::vector<RenderedTurns> each;
  for (const std::size_t k : answers) {
    RenderedTurns turn;
    turn.text = chat_template.render(first_messages(messages, k + 1), false, variables);
    const auto begin = answer_begin(chat_template, messages, k, variables, turn.text);
    if (begin) turn.answers.emplace_back(*begin, turn.text.size());
    each.push_back(std::move(turn));
  }
  if (each.size() < 2) return each;
  const std::string& whole = each.back().text;
  const bool nested =
      std::all_of(each.begin(), each.end(), [&](const RenderedTurns& turn) { return whole.starts_with(turn.text); });
  if (!nested) return each;
  RenderedTurns all = std::move(each.back());
  each.pop_back();
  auto last = std::move(all.answers);
  all.answers.clear();
  for (const RenderedTurns& turn : each) all.answers.insert(all.answers.end(), turn.answers.begin(), turn.answers.end());
  all.answers.insert(all.answers.end(), last.begin(), last.end());
  each.clear();
  each.push_back(std::move(all));
  return each;
}

Sample label_turns(const RenderedTurns& turns, const Tokenizer& tokenizer) {
  Sample sample;
  sample.ids = tokenizer.encode(turns.text, true);
  sample.labelled.assign(sample.ids.size(), 0);
  std::vector<std::size_t> offsets;
  const std::string spelled = concatenate(sample.ids, tokenizer, offsets);
  for (const auto& [begin, end] : turns.answers) {
    const std::size_t from = move_offset(turns, begin, spelled, tokenizer), to = move_offset(turns, end, spelled, tokenizer);
    const auto first = std::lower_bound(offsets.begin(), offsets.end(), from) - offsets.begin();
    const auto last = std::lower_bound(offsets.begin(), offsets.end(), to) - offsets.begin();
    std::fill(sample.labelled.begin() + first, sample.labelled.begin() + last, std::uint8_t{1});
    for (auto i = last - 1; i > first; --i) {  // back over what follows the closing token
      const std::int32_t id = sample.ids[static_cast<std::size_t>(i)];
      if (tokenizer.is_special(id)) {
        std::fill(sample.labelled.begin() + i + 1, sample.labelled.begin() + last, std::uint8_t{0});
        break;
      }
      if (!is_blank(tokenizer.token_bytes(id))) break;
    }
  }
  if (!sample.labelled.empty()) sample.labelled[0] = 0;
  return sample;
}

}  // namespace temper::text
