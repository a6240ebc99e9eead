#include "export/chat_shape.h"

#include <string_view>
#include <vector>

#include "base/error.h"

namespace temper::exporter {
namespace {

using text::Json;

// Texts that no template writes of itself; letters only, so that none is trimmed, escaped or changed.
constexpr std::string_view kSystem = "TemperProbeSystem", kFirst = "TemperProbeFirst", kAnswer = "TemperProbeAnswer",
                           kSecond = "TemperProbeSecond";

Json message(std::string_view role, std::string_view content) { return {{"role", role}, {"content", content}}; }

/// The template's text, or nullopt where it refuses the conversation.
std::optional<std::string> try_render(const text::ChatTemplate& source, const Json& messages, bool generation,
                                      const Json& variables) {
  try {
    return source.render(messages, generation, variables);
  } catch (const BadData&) {
    return std::nullopt;
  }
}

/// What stands before, between and after the needles, which must each occur once, in this order.
std::optional<std::vector<std::string>> cut(const std::optional<std::string>& text,
                                            const std::vector<std::string_view>& needles) {
  if (!text) return std::nullopt;
  std::vector<std::string> pieces;
  std::size_t at = 0;
  for (const std::string_view needle : needles) {
    const std::size_t found = text->find(needle);
    if (found == std::string::npos || found < at || text->find(needle, found + 1) != std::string::npos) return std::nullopt;
    pieces.push_back(text->substr(at, found - at));
    at = found + needle.size();
  }
  pieces.push_back(text->substr(at));
  return pieces;
}

/// `text` without `prefix` at its begin, or `suffix` at its end.
std::optional<std::string> without_prefix(std::string_view text, std::string_view prefix) {
  if (!text.starts_with(prefix)) return std::nullopt;
  return std::string(text.substr(prefix.size()));
}
std::optional<std::string> without_suffix(std::string_view text, std::string_view suffix) {
  if (!text.ends_with(suffix)) return std::nullopt;
  return std::string(text.substr(0, text.size() - suffix.size()));
}

/// Turns of user and assistant.
std::optional<ChatShape> find_turns(const text::ChatTemplate& source, const Json& variables) {
  const Json user = message("user", kFirst), answer = message("assistant", kAnswer), second = message("user", kSecond);
  const auto alone = cut(try_render(source, Json::array({user}), false, variables), {kFirst});
  const auto asked = cut(try_render(source, Json::array({user}), true, variables), {kFirst});
  const auto answered = cut(try_render(source, Json::array({user, answer}), false, variables), {kFirst, kAnswer});
  const auto turns =
      cut(try_render(source, Json::array({user, answer, second}), true, variables), {kFirst, kAnswer, kSecond});
  if (!alone || !asked || !answered || !turns) return std::nullopt;
  ChatShape shape;
  shape.user_suffix = (*alone)[1];
  shape.assistant_suffix = (*answered)[2];
  const auto generation = without_prefix((*asked)[1], shape.user_suffix);
  const auto assistant_prefix = without_prefix((*turns)[1], shape.user_suffix);
  const auto user_prefix = without_prefix((*turns)[2], shape.assistant_suffix);
  if (!generation || !assistant_prefix || !user_prefix) return std::nullopt;
  const auto head = without_suffix((*asked)[0], *user_prefix);
  if (!head) return std::nullopt;
  shape.generation = *generation;
  shape.assistant_prefix = *assistant_prefix;
  shape.user_prefix = *user_prefix;
  shape.preamble = *head;
  const auto bos = variables.find("bos_token");
  if (bos != variables.end() && bos->is_string() && !bos->get<std::string>().empty()) {
    if (const auto rest = without_prefix(shape.preamble, bos->get<std::string>())) {
      shape.bos = bos->get<std::string>();
      shape.preamble = *rest;
    }
  }
  return shape;
}

/// Where a system message goes; false if that fits no shape.
bool find_system(const text::ChatTemplate& source, const Json& variables, ChatShape& shape) {
  const Json system = message("system", kSystem), user = message("user", kFirst), answer = message("assistant", kAnswer),
             second = message("user", kSecond);
  const auto rendered = try_render(source, Json::array({system, user}), true, variables);
  if (!rendered || rendered->find(kSystem) == std::string::npos) return true;  // refused, or passed over in silence
  const auto pieces = cut(rendered, {kSystem, kFirst});
  if (!pieces) return false;
  const auto head = without_prefix((*pieces)[0], shape.bos);
  if (!head) return false;
  if (const auto suffix = without_suffix((*pieces)[1], shape.user_prefix)) {
    shape.system = ChatShape::System::Block;
    shape.system_prefix = *head;
    shape.system_suffix = *suffix;
    return true;
  }
  const auto inside = without_prefix(*head, shape.preamble);
  if (!inside) return false;
  const auto turns = try_render(source, Json::array({system, user, answer, second}), true, variables);
  shape.system =
      cut(turns, {kSystem, kFirst, kAnswer, kSecond}) ? ChatShape::System::FirstUser : ChatShape::System::LastUser;
  shape.system_prefix = *inside;
  shape.system_suffix = (*pieces)[1];
  return true;
}

/// Conversations of every length that end with the user, with and without a system message.
std::vector<Json> trial_conversations(bool system) {
  constexpr std::string_view kTexts[] = {"What is 3 + 4?",
                                         "7",
                                         "Write \"code\":\nx = 1;",
                                         "```\nint x = 1; // {{ .Role }} <b>\n```",
                                         "Ça va? 你好 🙂",
                                         "Oui.\n\n- un\n- deux",
                                         "Thanks & bye",
                                         "Bye!",
                                         "One more?"};
  std::vector<Json> out;
  for (const bool with : {false, true}) {
    if (with && !system) continue;
    Json messages = Json::array();
    if (with) messages.push_back(message("system", "You are \"Tem\",\na careful helper."));
    for (std::size_t i = 0; i < std::size(kTexts); ++i) {
      messages.push_back(message(i % 2 == 0 ? "user" : "assistant", kTexts[i]));
      if (i % 2 == 0) out.push_back(messages);
    }
  }
  return out;
}

}  // namespace

std::string render(const ChatShape& shape, const Json& messages) {
  using System = ChatShape::System;
  std::string system, out = shape.bos;
  bool given = false;
  for (const Json& m : messages) {
    if (m["role"] != "system") continue;
    given = true;
    system = m["content"].get<std::string>();
  }
  if (!given || shape.system != System::Block) out += shape.preamble;
  bool first = true;
  for (std::size_t i = 0; i < messages.size(); ++i) {
    const auto content = messages[i]["content"].get<std::string>();
    const std::string role = messages[i]["role"];
    if (role == "system") {
      if (shape.system == System::Block) out += shape.system_prefix + content + shape.system_suffix;
    } else if (role == "user") {
      const bool here = given && ((shape.system == System::FirstUser && first) ||
                                  (shape.system == System::LastUser && i + 1 == messages.size()));
      out += (here ? shape.system_prefix + system + shape.system_suffix : shape.user_prefix) + content + shape.user_suffix;
      first = false;
    } else {
      out += shape.assistant_prefix + content + shape.assistant_suffix;
    }
  }
  return out + shape.generation;
}

std::optional<ChatShape> find_chat_shape(const text::ChatTemplate& source, const Json& variables) {
  std::optional<ChatShape> shape = find_turns(source, variables);
  if (!shape || !find_system(source, variables, *shape)) return std::nullopt;
  for (const Json& messages : trial_conversations(shape->system != ChatShape::System::Refused)) {
    const auto expected = try_render(source, messages, true, variables);
    if (!expected || *expected != render(*shape, messages)) return std::nullopt;
  }
  return shape;
}

}  // namespace temper::exporter
