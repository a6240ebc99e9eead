// Which part of a rendered conversation the model writes.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "text/chat_template.h"
#include "text/dataset.h"

namespace temper::text {

/// A rendering and the byte ranges [first, second) of it that are answers.
struct RenderedTurns {
  std::string text;
  std::vector<std::pair<std::size_t, std::size_t>> answers;
};

/// Renders a conversation so that every assistant turn is an answer of one of the results: one result with all of them where
/// the rendering of fewer turns is a prefix of the whole, else one result per turn. No result where no assistant speaks.
/// Throws BadData where a turn's beginning cannot be found.
std::vector<RenderedTurns> render_turns(const ChatTemplate& chat_template, const Json& messages, const Json& variables);

/// Tokenizes the rendering as a whole and labels the tokens whose first byte lies in an answer, but not white space behind
/// the last special token of an answer.
Sample label_turns(const RenderedTurns& turns, const Tokenizer& tokenizer);

}  // namespace temper::text
