// The shape of a chat template: what it writes before and after the text of each turn. Most templates are no more than that;
// other template languages can then say the same.
#pragma once

#include <optional>
#include <string>

#include "text/chat_template.h"

namespace temper::exporter {

struct ChatShape {
  /// Where a system message goes: in a turn of its own (Block), or into the first or the last user's turn; Refused: the
  /// template has no place for one.
  enum class System { Block, FirstUser, LastUser, Refused };

  std::string bos;       ///< The BOS token's text, if the template writes it.
  std::string preamble;  ///< Before the first turn; of a Block, only where no system message is given.
  System system = System::Refused;
  std::string system_prefix, system_suffix;  ///< Around the system message; within a user's turn: before it and behind it.
  std::string user_prefix, user_suffix, assistant_prefix, assistant_suffix;
  std::string generation;  ///< After the last turn, before the answer.
};

/// The shape of `source`, found by rendering conversations and looking where their texts come out, and then checked: other
/// conversations, rendered by the shape and by the template, are equal. nullopt if they are not, or the template refuses
/// them: then its text cannot be said by prefixes and suffixes. `variables` as for ChatTemplate::render.
std::optional<ChatShape> find_chat_shape(const text::ChatTemplate& source, const text::Json& variables);

/// A conversation (roles system, user, assistant) in that shape, up to where the answer begins.
std::string render(const ChatShape& shape, const text::Json& messages);

}  // namespace temper::exporter
