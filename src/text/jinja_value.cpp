#include "text/jinja_value.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <limits>

#include "base/error.h"
#include "text/jinja_strings.h"
#include "text/unicode.h"

namespace temper::text::jinja {
namespace {

/// Adds a child's measures to its container's, whose `depth` starts at 1.
template <typename Container>
void measure(Container& container, const Value& child) {
  container.depth = std::max(container.depth, depth_of(child) + 1);
  container.weight += weight_of(child);
  if (container.depth > kMaxValueDepth) throw OutOfMemory("values nest deeper than {} levels", kMaxValueDepth);
  if (container.weight > kMaxValueWeight) throw OutOfMemory("a value grows beyond {} entries and bytes", kMaxValueWeight);
}

void append_escaped(std::string& out, char32_t c, bool json) {
  if (json && c > 0xFFFF) {  // JSON escapes are UTF-16
    c -= 0x10000;
    out += fmt::format("\\u{:04x}\\u{:04x}", 0xD800 + (static_cast<unsigned>(c) >> 10),
                       0xDC00 + (static_cast<unsigned>(c) & 0x3FF));
  } else if (!json && c < 0x100) {
    out += fmt::format("\\x{:02x}", static_cast<unsigned>(c));
  } else if (c > 0xFFFF) {
    out += fmt::format("\\U{:08x}", static_cast<unsigned>(c));
  } else {
    out += fmt::format("\\u{:04x}", static_cast<unsigned>(c));
  }
}

std::string string_repr(std::string_view text) {
  const char quote = text.find('\'') != text.npos && text.find('"') == text.npos ? '"' : '\'';
  std::string out(1, quote);
  for (std::size_t i = 0; i < text.size();) {
    const Utf8Step s = read_utf8(text.substr(i));
    const char32_t c = s.ok ? s.code_point : 0xFFFD;
    switch (c) {
      case '\n': out += "\\n"; break;
      case '\r': out += "\\r"; break;
      case '\t': out += "\\t"; break;
      case '\\': out += "\\\\"; break;
      default:
        if (c == static_cast<char32_t>(quote)) {
          out += '\\';
          out += quote;
        } else if (is_printable(c)) {
          append_utf8(out, c);
        } else {
          append_escaped(out, c, false);
        }
    }
    i += s.length;
  }
  return out + quote;
}

std::string json_string(std::string_view text, bool ensure_ascii) {
  std::string out = "\"";
  for (std::size_t i = 0; i < text.size();) {
    const Utf8Step s = read_utf8(text.substr(i));
    const char32_t c = s.ok ? s.code_point : 0xFFFD;
    switch (c) {
      case '"': out += "\\\""; break;
      case '\\': out += "\\\\"; break;
      case '\n': out += "\\n"; break;
      case '\r': out += "\\r"; break;
      case '\t': out += "\\t"; break;
      case '\b': out += "\\b"; break;
      case '\f': out += "\\f"; break;
      default:
        if (c < 0x20 || (ensure_ascii && c > 0x7E)) {
          append_escaped(out, c, true);
        } else {
          append_utf8(out, c);
        }
    }
    i += s.length;
  }
  return out + '"';
}

std::string list_repr(const List& list) {
  if (list.kind == ListKind::Generator) return "<generator object>";
  if (list.kind == ListKind::Range) return fmt::format("range({})", list.view_name);
  const bool tuple = list.kind == ListKind::Tuple;
  std::string out = list.kind == ListKind::View ? list.view_name + "([" : tuple ? "(" : "[";
  for (std::size_t i = 0; i < list.items.size(); ++i) out += (i ? ", " : "") + repr(list.items[i]);
  if (tuple && list.items.size() == 1) out += ',';
  return out + (list.kind == ListKind::View ? "])" : tuple ? ")" : "]");
}

}  // namespace

const Value* Dict::find(const Value& key) const {
  for (const auto& [k, v] : items) {
    if (equal(k, key)) return &v;
  }
  return nullptr;
}

const Value* Dict::find(std::string_view key) const {
  for (const auto& [k, v] : items) {
    if (k.is_string() && k.text() == key) return &v;
  }
  return nullptr;
}

const Value* Args::get(std::size_t index, std::string_view name) const {
  if (index < positional.size()) return &positional[index];
  for (const auto& [key, value] : keyword) {
    if (key == name) return &value;
  }
  return nullptr;
}

int depth_of(const Value& value) {
  return std::visit(
      [](const auto& data) {
        if constexpr (requires { data->depth; }) {
          return data->depth;
        } else {
          return 0;
        }
      },
      value.data());
}

std::size_t weight_of(const Value& value) {
  if (value.is_string()) return 1 + value.text().size();
  return value.is_list() ? value.list().weight : value.is_dict() ? value.dict().weight : 1;
}

Value make_list(std::vector<Value> items, ListKind kind) {
  auto list = std::make_shared<List>();
  for (const Value& v : items) measure(*list, v);
  list->items = std::move(items);
  list->kind = kind;
  return list;
}

Value make_dict(std::vector<std::pair<Value, Value>> items) {
  auto dict = std::make_shared<Dict>();
  for (const auto& [k, v] : items) {
    measure(*dict, k);
    measure(*dict, v);
  }
  dict->items = std::move(items);
  return std::shared_ptr<const Dict>(std::move(dict));
}

namespace {

Value from_json_at(const nlohmann::ordered_json& json, int depth) {
  if (depth > kMaxValueDepth) throw OutOfMemory("values nest deeper than {} levels", kMaxValueDepth);
  switch (json.type()) {
    case nlohmann::ordered_json::value_t::boolean: return json.get<bool>();
    case nlohmann::ordered_json::value_t::number_integer: return json.get<std::int64_t>();
    case nlohmann::ordered_json::value_t::number_unsigned:
      if (json.get<std::uint64_t>() > static_cast<std::uint64_t>(std::numeric_limits<std::int64_t>::max())) {
        return json.get<double>();
      }
      return json.get<std::int64_t>();
    case nlohmann::ordered_json::value_t::number_float: return json.get<double>();
    case nlohmann::ordered_json::value_t::string: return json.get_ref<const std::string&>();
    case nlohmann::ordered_json::value_t::array: {
      std::vector<Value> items;
      for (const auto& item : json) items.push_back(from_json_at(item, depth + 1));
      return make_list(std::move(items));
    }
    case nlohmann::ordered_json::value_t::object: {
      std::vector<std::pair<Value, Value>> items;
      for (const auto& [key, item] : json.items()) items.emplace_back(key, from_json_at(item, depth + 1));
      return make_dict(std::move(items));
    }
    default: return None{};
  }
}

}  // namespace

Value from_json(const nlohmann::ordered_json& json) { return from_json_at(json, 0); }

bool truth(const Value& value) {
  if (value.is_undefined() || value.is_none()) return false;
  if (value.is_bool()) return *value.as<bool>();
  if (value.is_number()) return value.number() != 0;
  if (value.is_string()) return !value.text().empty();
  if (value.is_list()) return value.list().kind == ListKind::Generator || !value.list().items.empty();
  if (value.is_dict()) return !value.dict().items.empty();
  return true;
}

bool equal(const Value& a, const Value& b) {
  if (a.is_number() && b.is_number()) {
    if (a.is_integral() && b.is_integral()) return a.integer() == b.integer();
    return a.number() == b.number();
  }
  if (a.data().index() != b.data().index()) return false;
  if (a.is_undefined() || a.is_none()) return true;
  if (a.is_string()) return a.text() == b.text();
  if (a.is_list()) {
    const List &x = a.list(), &y = b.list();
    if (x.kind != y.kind || x.kind == ListKind::Generator) return &x == &y;
    return std::equal(x.items.begin(), x.items.end(), y.items.begin(), y.items.end(), equal);
  }
  if (a.is_dict()) {
    const Dict &x = a.dict(), &y = b.dict();
    return x.items.size() == y.items.size() && std::all_of(x.items.begin(), x.items.end(), [&](const auto& item) {
             const Value* other = y.find(item.first);
             return other && equal(item.second, *other);
           });
  }
  // Namespaces, callables and loops are themselves only.
  return std::visit(
      [&](const auto& x) {
        const auto* y = b.as<std::decay_t<decltype(x)>>();
        if constexpr (requires { x.get(); }) {
          return x.get() == y->get();
        } else {
          return false;
        }
      },
      a.data());
}

std::string float_repr(double value) {
  if (std::isnan(value)) return "nan";
  if (std::isinf(value)) return value > 0 ? "inf" : "-inf";
  char buffer[64];
  const auto end = std::to_chars(buffer, buffer + sizeof buffer, value, std::chars_format::scientific).ptr;
  std::string digits(buffer, end);
  const std::size_t e = digits.find('e');
  const int exponent = std::stoi(digits.substr(e + 1));
  if (exponent < -4 || exponent >= 16)
    return digits;  // to_chars writes the exponent as Python does: a sign, two digits at least
  const auto fixed_end = std::to_chars(buffer, buffer + sizeof buffer, value, std::chars_format::fixed).ptr;
  std::string fixed(buffer, fixed_end);
  if (fixed.find('.') == fixed.npos) fixed += ".0";
  return fixed;
}

std::string str(const Value& value) {
  return value.is_string() ? value.text() : value.is_undefined() ? std::string() : repr(value);
}

std::string repr(const Value& value) {
  if (value.is_undefined()) return "Undefined";
  if (value.is_none()) return "None";
  if (value.is_bool()) return truth(value) ? "True" : "False";
  if (value.is_integral()) return std::to_string(value.integer());
  if (value.is_float()) return float_repr(value.number());
  if (value.is_markup()) return "Markup(" + string_repr(value.text()) + ")";
  if (value.is_string()) return string_repr(value.text());
  if (value.is_list()) return list_repr(value.list());
  if (value.is_dict()) {
    std::string out = "{";
    for (std::size_t i = 0; i < value.dict().items.size(); ++i) {
      const auto& [k, v] = value.dict().items[i];
      out += (i ? ", " : "") + repr(k) + ": " + repr(v);
    }
    return out + "}";
  }
  return fmt::format("<{} object>", type_name(value));
}

const char* type_name(const Value& value) {
  if (value.is_list()) {
    switch (value.list().kind) {
      case ListKind::List: return "list";
      case ListKind::Tuple: return "tuple";
      case ListKind::Range: return "range";
      case ListKind::View: return "dict view";
      case ListKind::Generator: return "generator";
    }
  }
  static constexpr const char* kNames[] = {"undefined", "None", "bool",      "int",      "float",      "str",
                                           "list",      "dict", "Namespace", "function", "LoopContext"};
  return kNames[value.data().index()];
}

namespace {

void json_newline(std::string& out, const JsonStyle& style, int level) {
  if (style.indent < 0) return;
  out += '\n';
  out.append(static_cast<std::size_t>(style.indent) * static_cast<std::size_t>(level), ' ');
}

std::string json_key(const Value& key, const JsonStyle& style) {
  if (key.is_string()) return json_string(key.text(), style.ensure_ascii);
  if (key.is_none()) return "\"null\"";
  if (key.is_bool()) return truth(key) ? "\"true\"" : "\"false\"";
  if (key.is_number()) return '"' + repr(key) + '"';
  throw BadData("tojson: a key of type {} has no form in JSON", type_name(key));
}

void append_json(std::string& out, const Value& value, const JsonStyle& style, int level);

template <typename Items, typename F>
void append_json_items(std::string& out, const Items& items, const char* brackets, const JsonStyle& style, int level,
                       F&& append) {
  out += brackets[0];
  bool first = true;
  for (const auto& item : items) {
    if (!first) out += style.item_separator;
    first = false;
    json_newline(out, style, level + 1);
    append(item);
  }
  if (!first) json_newline(out, style, level);
  out += brackets[1];
}

void append_json(std::string& out, const Value& value, const JsonStyle& style, int level) {
  if (value.is_none()) {
    out += "null";
  } else if (value.is_bool()) {
    out += truth(value) ? "true" : "false";
  } else if (value.is_float() && !std::isfinite(value.number())) {
    out += std::isnan(value.number()) ? "NaN" : value.number() > 0 ? "Infinity" : "-Infinity";
  } else if (value.is_number()) {
    out += repr(value);
  } else if (value.is_string()) {
    out += json_string(value.text(), style.ensure_ascii);
  } else if (value.is_list() && value.list().kind <= ListKind::Tuple) {
    append_json_items(out, value.list().items, "[]", style, level,
                      [&](const Value& item) { append_json(out, item, style, level + 1); });
  } else if (value.is_dict()) {
    auto items = value.dict().items;
    if (style.sort_keys) {
      std::stable_sort(items.begin(), items.end(), [](const auto& a, const auto& b) { return str(a.first) < str(b.first); });
    }
    append_json_items(out, items, "{}", style, level, [&](const auto& item) {
      out += json_key(item.first, style) + style.key_separator;
      append_json(out, item.second, style, level + 1);
    });
  } else {
    throw BadData("tojson: a value of type {} has no form in JSON", type_name(value));
  }
}

}  // namespace

std::string to_json(const Value& value, const JsonStyle& style) {
  std::string out;
  append_json(out, value, style, 0);
  return out;
}

}  // namespace temper::text::jinja
