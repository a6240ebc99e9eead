// Chat templates: a conversation and a model's own Jinja template make the text that the model was trained to read.
#pragma once

#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

namespace temper::text {

namespace jinja {
class Template;
}

/// JSON that keeps the order of keys: templates print objects, so the order is part of the rendered text.
using Json = nlohmann::ordered_json;

/// A parsed chat template. Copies share the parsed form, which is immutable: rendering is safe from several threads.
///
/// The dialect is what `transformers.apply_chat_template` gives templates: Jinja with `trim_blocks`, `lstrip_blocks`, loop
/// controls, `{% generation %}`, `raise_exception`, `strftime_now` and a `tojson` that does not escape HTML.
class ChatTemplate {
 public:
  /// Parses `source`. `name` (a file, say) is what errors call it. Throws BadFile with the template's line where it is no
  /// valid template.
  explicit ChatTemplate(std::string_view source, std::string name = "chat template");

  /// Renders `messages` (an array of objects with `role` and `content`). `variables` is an object with what else the
  /// template may read: `bos_token`, `eos_token`, `tools`, `documents`, `enable_thinking`, … `tools` and `documents` are
  /// null unless given. Throws BadData where the template itself refuses the conversation (`raise_exception`) or uses a
  /// value as what it is not, and OutOfMemory where it exceeds the limits on steps, depth or output; both name the
  /// template's line.
  std::string render(const Json& messages, bool add_generation_prompt, const Json& variables = Json::object()) const;

  /// The template's source as given.
  const std::string& source() const;

 private:
  std::shared_ptr<const jinja::Template> template_;
};

}  // namespace temper::text
