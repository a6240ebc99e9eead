// Template text to tokens, with Jinja's white-space rules as chat templates set them: trim_blocks, lstrip_blocks.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace temper::text::jinja {

enum class TokenKind { Data, BlockBegin, BlockEnd, VariableBegin, VariableEnd, Name, String, Integer, Float, Operator, End };

struct Token {
  TokenKind kind = TokenKind::End;
  std::string text;  ///< Data and String: the text itself, escapes resolved. Name and Operator: as written.
  std::int64_t integer = 0;
  double number = 0;
  int line = 1;
};

/// All tokens, ending with one of kind End. Throws BadFile naming `name` and the line.
std::vector<Token> tokenize_template(std::string_view source, const std::string& name);

}  // namespace temper::text::jinja
