#include "text/chat_template.h"

#include "text/jinja.h"

namespace temper::text {

ChatTemplate::ChatTemplate(std::string_view source, std::string name)
    : template_(std::make_shared<const jinja::Template>(source, std::move(name))) {}

std::string ChatTemplate::render(const Json& messages, bool add_generation_prompt, const Json& variables) const {
  std::vector<std::pair<std::string, jinja::Value>> context = {{"messages", jinja::from_json(messages)},
                                                               {"add_generation_prompt", add_generation_prompt}};
  for (const char* name : {"tools", "documents"}) {
    if (!variables.contains(name)) context.emplace_back(name, jinja::None{});
  }
  for (const auto& [name, value] : variables.items()) context.emplace_back(name, jinja::from_json(value));
  return template_->render(std::move(context));
}

const std::string& ChatTemplate::source() const { return template_->source(); }

}  // namespace temper::text
