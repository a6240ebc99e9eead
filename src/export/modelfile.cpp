#include "export/modelfile.h"

#include <fmt/chrono.h>

#include <ctime>

#include "base/error.h"

namespace temper::exporter {
namespace {

/// A Go string literal that is written out; nothing for an empty text. Only whitespace of the layout lies before it, which
/// "{{-" takes away.
std::string literal(std::string_view text) {
  if (text.empty()) return {};
  std::string quoted;
  for (const char c : text) {
    switch (c) {
      case '\n': quoted += "\\n"; break;
      case '\r': quoted += "\\r"; break;
      case '\t': quoted += "\\t"; break;
      case '"': quoted += "\\\""; break;
      case '\\': quoted += "\\\\"; break;
      default:
        if (static_cast<unsigned char>(c) < 0x20)
          quoted += fmt::format("\\x{:02x}", static_cast<unsigned char>(c));
        else
          quoted += c;
    }
  }
  return "{{- \"" + quoted + "\" }}";
}

std::string turn(std::string_view prefix, std::string_view suffix) {
  return literal(prefix) + "{{- .Content }}" + literal(suffix);
}

/// The user's turn, with the system message in it where it belongs there.
std::string user_turn(const ChatShape& shape) {
  const std::string plain = turn(shape.user_prefix, shape.user_suffix);
  const char* where = nullptr;
  if (shape.system == ChatShape::System::FirstUser) where = "(le $i 1)";  // the system message itself may be message 0
  if (shape.system == ChatShape::System::LastUser) where = "(eq (len (slice $.Messages $i)) 1)";
  if (where == nullptr) return plain;
  return fmt::format("{{{{- if and $.System {} }}}}", where) + literal(shape.system_prefix) + "{{- $.System }}" +
         turn(shape.system_suffix, shape.user_suffix) + "\n{{- else }}" + plain + "\n{{- end }}";
}

/// Texts of the tokens that end a turn.
std::vector<std::string> stop_texts(const text::Tokenizer& tokenizer) {
  std::vector<std::string> out;
  for (const std::int32_t id : tokenizer.eog_ids())
    if (std::string text = tokenizer.decode(std::span(&id, 1), false); !text.empty()) out.push_back(std::move(text));
  return out;
}

/// True if a fixed part of the shape is today's date, as templates write it.
bool holds_date(const ChatShape& shape) {
  const std::time_t now = std::time(nullptr);
  for (const std::tm& day : {fmt::localtime(now), fmt::gmtime(now)})
    for (const std::string& date :
         {fmt::format("{:%d %b %Y}", day), fmt::format("{:%d %B %Y}", day), fmt::format("{:%Y-%m-%d}", day)})
      if ((shape.preamble + shape.system_prefix).find(date) != std::string::npos) return true;
  return false;
}

/// In Modelfiles a text of several lines stands between three quotation marks, which it cannot contain.
std::string quoted_text(std::string_view key, const std::string& text) {
  if (text.find("\"\"\"") != std::string::npos || text.ends_with('"'))
    throw BadRecipe("{}: a Modelfile cannot hold a text with three quotation marks, or one at its end", key);
  return "\"\"\"" + text + "\"\"\"";
}

std::string template_part(const text::Tokenizer& tokenizer) {
  if (!tokenizer.chat_template()) return "# The model has no chat template.\n";
  text::Json variables = text::Json::object();
  if (tokenizer.bos_id()) variables["bos_token"] = tokenizer.token_text(*tokenizer.bos_id());
  if (tokenizer.eos_id()) variables["eos_token"] = tokenizer.token_text(*tokenizer.eos_id());
  const auto shape = find_chat_shape(text::ChatTemplate(*tokenizer.chat_template()), variables);
  if (!shape)
    return "# TEMPLATE is left out: the model's chat template does more than to write something before and after each\n"
           "# turn, and its text cannot be written as an Ollama template with certainty. Ollama then takes the one in the\n"
           "# GGUF if it knows it.\n";
  std::string out;
  if (holds_date(*shape)) out += "# The model's template writes the day's date; here it is the day of this export.\n";
  if (shape->system == ChatShape::System::Refused) out += "# The model's template takes no system message.\n";
  return out + "TEMPLATE " + quoted_text("chat template", go_template(*shape, tokenizer.adds_bos())) + "\n";
}

}  // namespace

std::string go_template(const ChatShape& shape, bool adds_bos) {
  const bool block = shape.system == ChatShape::System::Block;
  std::string out = adds_bos ? "" : literal(shape.bos);
  if (block && !shape.preamble.empty())
    out += "{{- if and .Messages (ne (index .Messages 0).Role \"system\") }}" + literal(shape.preamble) + "{{- end }}\n";
  else
    out += literal(shape.preamble);
  out += "{{- range $i, $message := .Messages }}\n";
  if (block)
    out += "{{- if eq .Role \"system\" }}" + turn(shape.system_prefix, shape.system_suffix) +
           "\n{{- else if eq .Role \"user\" }}";
  else
    out += "{{- if eq .Role \"user\" }}";
  out += user_turn(shape) + "\n{{- else if eq .Role \"assistant\" }}" +
         turn(shape.assistant_prefix, shape.assistant_suffix) + "\n{{- end }}\n{{- end }}" + literal(shape.generation);
  return out;
}

std::string modelfile(const text::Tokenizer& tokenizer, const ModelfileOptions& options) {
  std::string out = fmt::format("# ollama create NAME -f THIS_FILE\nFROM {}\n", options.from);
  if (!options.adapter.empty()) out += fmt::format("ADAPTER {}\n", options.adapter);
  out += template_part(tokenizer);
  if (!options.system.empty()) out += "SYSTEM " + quoted_text("generate.system", options.system) + "\n";
  for (const std::string& stop : stop_texts(tokenizer)) {
    if (stop.find_first_of("\"\n") == std::string::npos) out += fmt::format("PARAMETER stop \"{}\"\n", stop);
  }
  return out;
}

std::filesystem::path modelfile_path(const std::filesystem::path& gguf) {
  return std::filesystem::path(gguf).replace_extension(".Modelfile");
}

}  // namespace temper::exporter
