// The template language of chat templates: parse once, render many times.
#pragma once

#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "text/jinja_ast.h"

namespace temper::text::jinja {

/// An immutable parsed template. See ChatTemplate for the dialect, and jinja_interpreter.h for the limits.
class Template {
 public:
  /// Throws BadFile naming `name` and the line.
  Template(std::string_view source, std::string name);

  /// Throws BadData, Unsupported and OutOfMemory naming the line.
  std::string render(std::vector<std::pair<std::string, Value>> variables) const;

  const std::string& source() const { return source_; }

 private:
  std::string source_, name_;
  Body body_;
};

}  // namespace temper::text::jinja
