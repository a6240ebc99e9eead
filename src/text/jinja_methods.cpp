// Methods of str, list and dict, attributes of `loop`, global functions.
#include <algorithm>
#include <array>
#include <charconv>
#include <cstdlib>
#include <ctime>

#include "text/jinja_interpreter.h"
#include "text/jinja_strings.h"

namespace temper::text::jinja {
namespace {

using Names = std::initializer_list<std::string_view>;
bool one_of(std::string_view name, Names names) { return std::find(names.begin(), names.end(), name) != names.end(); }

/// A text argument, or nothing where it is absent or None.
std::optional<std::string_view> text_argument(Interpreter& interpreter, const Args& args, std::size_t index,
                                              std::string_view name) {
  const Value* value = args.get(index, name);
  if (!value || value->is_none()) return {};
  if (!value->is_string())
    interpreter.fail(fmt::format("argument {} must be a string, found {}", index + 1, type_name(*value)));
  return value->text();
}

std::string_view needed_text(Interpreter& interpreter, const Args& args, std::size_t index) {
  const auto text = text_argument(interpreter, args, index, "");
  if (!text) interpreter.fail(fmt::format("argument {} is missing", index + 1));
  return *text;
}

std::int64_t integer_argument(Interpreter& interpreter, const Args& args, std::size_t index, std::string_view name,
                              std::int64_t fallback) {
  const Value* value = args.get(index, name);
  if (!value || value->is_none()) return fallback;
  if (!value->is_integral())
    interpreter.fail(fmt::format("argument {} must be an integer, found {}", index + 1, type_name(*value)));
  return value->integer();
}

std::vector<Value> to_values(const std::vector<std::string_view>& parts) {
  return std::vector<Value>(parts.begin(), parts.end());
}

bool starts_or_ends(Interpreter& interpreter, std::string_view text, const Args& args, bool starts) {
  if (args.positional.empty()) interpreter.fail("argument 1 is missing");
  const Value& affix = args.positional[0];
  const auto matches = [&](const Value& value) {
    if (!value.is_string()) interpreter.fail(fmt::format("argument 1 must be a string, found {}", type_name(value)));
    return starts ? text.starts_with(value.text()) : text.ends_with(value.text());
  };
  if (!affix.is_list()) return matches(affix);
  return std::any_of(affix.list().items.begin(), affix.list().items.end(), matches);
}

/// Position of the needle in code points, first or last, or -1.
std::int64_t find_code_point(Interpreter& interpreter, std::string_view text, const Args& args, bool last) {
  const std::string_view needle = needed_text(interpreter, args, 0);
  const auto offsets = code_point_offsets(text);
  const auto n = static_cast<std::int64_t>(offsets.size()) - 1;
  const auto bound = [&](std::size_t index, std::int64_t fallback) {
    const std::int64_t at = integer_argument(interpreter, args, index, "", fallback);
    return std::clamp<std::int64_t>(at < 0 ? std::max<std::int64_t>(at, -n) + n : at, 0, n);
  };
  const std::int64_t begin = bound(1, 0), end = bound(2, n);
  if (begin > end) return -1;
  const std::string_view part =
      text.substr(offsets[static_cast<std::size_t>(begin)],
                  offsets[static_cast<std::size_t>(end)] - offsets[static_cast<std::size_t>(begin)]);
  if (last) interpreter.charge(part.size() * (needle.size() / 16 + 1));
  const std::size_t at = last ? part.rfind(needle) : find(part, needle);
  return at == std::string_view::npos ? -1 : begin + count_code_points(part.substr(0, at));
}

Value split_method(Interpreter& interpreter, std::string_view text, const Args& args, bool from_right) {
  const auto separator = text_argument(interpreter, args, 0, "sep");
  if (separator && separator->empty()) interpreter.fail("split: the separator is empty");
  if (from_right && separator) interpreter.charge(text.size() * (separator->size() / 16 + 1));
  const auto parts = split(text, separator, integer_argument(interpreter, args, 1, "maxsplit", -1), from_right);
  interpreter.charge(parts.size() * sizeof(String));
  return make_list(to_values(parts));
}

Value partition(Interpreter& interpreter, std::string_view text, const Args& args, bool from_right) {
  const std::string_view separator = needed_text(interpreter, args, 0);
  if (separator.empty()) interpreter.fail("partition: the separator is empty");
  if (from_right) interpreter.charge(text.size() * (separator.size() / 16 + 1));
  const std::size_t at = from_right ? text.rfind(separator) : find(text, separator);
  if (at == text.npos) {
    return make_list(from_right ? std::vector<Value>{"", "", text} : std::vector<Value>{text, "", ""}, ListKind::Tuple);
  }
  return make_list({text.substr(0, at), separator, text.substr(at + separator.size())}, ListKind::Tuple);
}

Value join_method(Interpreter& interpreter, const std::string& separator, const Args& args) {
  std::string out;
  bool first = true;
  for (const Value& part : args.positional.empty() ? std::vector<Value>() : interpreter.iterate(args.positional[0])) {
    if (!part.is_string()) interpreter.fail(fmt::format("join: expected strings, found {}", type_name(part)));
    interpreter.charge(part.text().size() + separator.size());
    if (!first) out += separator;
    first = false;
    out += part.text();
  }
  return out;
}

/// Fields of str.format: {}, {0}, {name}, {{ and }}; no attributes and no format specifications.
Value format_braces(Interpreter& interpreter, const std::string& format, const Args& args) {
  std::string out;
  std::size_t automatic = 0;
  bool numbered = false;
  for (std::size_t i = 0; i < format.size(); ++i) {
    const char c = format[i];
    if ((c == '{' || c == '}') && i + 1 < format.size() && format[i + 1] == c) {
      out += c;
      ++i;
    } else if (c == '{') {
      const std::size_t end = format.find('}', i);
      if (end == format.npos) interpreter.fail("format: '{' is not closed");
      const std::string field = format.substr(i + 1, end - i - 1);
      std::size_t index = 0;
      const Value* value = nullptr;
      if (field.empty()) {
        index = automatic++;
        if (index < args.positional.size()) value = &args.positional[index];
      } else if (std::from_chars(field.data(), field.data() + field.size(), index).ptr == field.data() + field.size()) {
        if (index < args.positional.size()) value = &args.positional[index];
      } else {
        value = args.get(args.positional.size(), field);
      }
      numbered = numbered || (!field.empty() && field[0] >= '0' && field[0] <= '9');
      if (numbered && automatic > 0) interpreter.fail("format: numbered and automatic fields do not mix");
      if (!value) interpreter.fail(fmt::format("format: nothing for the field '{{{}}}'", field));
      out += interpreter.text_of(*value);
      i = end;
    } else if (c == '}') {
      interpreter.fail("format: a single '}'");
    } else {
      out += c;
    }
  }
  interpreter.charge(out.size());
  return out;
}

std::string_view cut_affix(std::string_view text, std::string_view affix, bool prefix) {
  if (prefix) return text.starts_with(affix) ? text.substr(affix.size()) : text;
  return text.ends_with(affix) ? text.substr(0, text.size() - affix.size()) : text;
}

Value zfill(Interpreter& interpreter, const std::string& text, const Args& args) {
  const std::int64_t missing = integer_argument(interpreter, args, 0, "", 0) - count_code_points(text);
  if (missing <= 0) return text;
  interpreter.charge(static_cast<std::size_t>(missing));
  const std::size_t sign = !text.empty() && (text[0] == '-' || text[0] == '+') ? 1 : 0;
  return text.substr(0, sign) + std::string(static_cast<std::size_t>(missing), '0') + text.substr(sign);
}

Value count_text(Interpreter& interpreter, std::string_view text, const Args& args) {
  const std::string_view needle = needed_text(interpreter, args, 0);
  if (needle.empty()) return count_code_points(text) + 1;
  return static_cast<std::int64_t>(split(text, needle, -1).size()) - 1;
}

Value replace_method(Interpreter& interpreter, std::string_view text, const Args& args) {
  const std::string_view from = needed_text(interpreter, args, 0), to = needed_text(interpreter, args, 1);
  // The result's size is known only afterwards: charge the worst case that the budget allows before making it.
  const std::size_t matches = from.empty() ? text.size() + 1 : split(text, from, -1).size();
  interpreter.charge(text.size() + std::min(kMaxWork, matches * to.size()));
  return replace(text, from, to, integer_argument(interpreter, args, 2, "count", -1));
}

Value string_method(Interpreter& interpreter, const Value& self, std::string_view name, const Args& args) {
  const std::string& text = self.text();
  const auto same = [&](std::string result) { return Value(std::move(result), self.is_markup()); };
  const auto stripped = [&](Side side) {
    const auto characters = text_argument(interpreter, args, 0, "chars");
    interpreter.charge(text.size() * (characters ? characters->size() / 8 + 1 : 1));
    return same(std::string(strip(text, side, characters)));
  };
  interpreter.charge(text.size());
  if (name == "strip") return stripped(Side::Both);
  if (name == "lstrip") return stripped(Side::Left);
  if (name == "rstrip") return stripped(Side::Right);
  if (name == "split" || name == "rsplit") return split_method(interpreter, text, args, name == "rsplit");
  if (name == "startswith") return starts_or_ends(interpreter, text, args, true);
  if (name == "endswith") return starts_or_ends(interpreter, text, args, false);
  if (name == "replace") return replace_method(interpreter, text, args);
  if (name == "upper") return same(upper(text));
  if (name == "lower") return same(lower(text));
  if (name == "title") return same(title(text));
  if (name == "capitalize") return same(capitalize(text));
  if (name == "find" || name == "rfind") return find_code_point(interpreter, text, args, name == "rfind");
  if (name == "index" || name == "rindex") {
    const std::int64_t at = find_code_point(interpreter, text, args, name == "rindex");
    if (at < 0) interpreter.fail("substring not found");
    return at;
  }
  if (name == "count") return count_text(interpreter, text, args);
  if (name == "join") return join_method(interpreter, text, args);
  if (name == "format") return format_braces(interpreter, text, args);
  if (name == "splitlines")
    return make_list(to_values(splitlines(text, args.get(0, "keepends") && truth(*args.get(0, "keepends")))));
  if (name == "partition" || name == "rpartition") return partition(interpreter, text, args, name == "rpartition");
  if (name == "removeprefix") return std::string(cut_affix(text, needed_text(interpreter, args, 0), true));
  if (name == "removesuffix") return std::string(cut_affix(text, needed_text(interpreter, args, 0), false));
  if (name == "isdigit" || name == "isdecimal" || name == "isnumeric") return all_of_class(text, 'd');
  if (name == "isalpha") return all_of_class(text, 'a');
  if (name == "isalnum") return all_of_class(text, 'n');
  if (name == "isspace") return all_of_class(text, 's');
  if (name == "isupper") return is_cased(text, true);
  if (name == "islower") return is_cased(text, false);
  if (name == "zfill") return zfill(interpreter, text, args);
  throw Unsupported("a template uses str.{}(), which temper's interpreter does not have", name);
}

Value view(std::vector<Value> items, const char* name) {
  Value list = make_list(std::move(items), ListKind::View);
  list.list().view_name = name;
  return list;
}

Value dict_method(Interpreter& interpreter, const Value& self, std::string_view name, const Args& args) {
  const Dict& dict = self.dict();
  interpreter.charge(dict.items.size() * 2 * sizeof(Value));
  if (name == "get") {
    if (args.positional.empty()) interpreter.fail("get: the key is missing");
    if (const Value* found = dict.find(args.positional[0])) return *found;
    return args.positional.size() > 1 ? args.positional[1] : Value(None{});
  }
  if (name == "copy") return self;
  std::vector<Value> items;
  for (const auto& [key, value] : dict.items) {
    if (name == "items") {
      items.push_back(make_list({key, value}, ListKind::Tuple));
    } else {
      items.push_back(name == "keys" ? key : value);
    }
  }
  return view(std::move(items), name == "items" ? "dict_items" : name == "keys" ? "dict_keys" : "dict_values");
}

Value list_method(Interpreter& interpreter, const Value& self, std::string_view name, const Args& args) {
  const auto& items = self.list().items;
  if (name == "copy") return self;
  if (args.positional.empty()) interpreter.fail(fmt::format("{}: an argument is missing", name));
  std::int64_t count = 0;
  for (std::size_t i = 0; i < items.size(); ++i) {
    if (!interpreter.equal_values(items[i], args.positional[0])) continue;
    if (name == "index") return static_cast<std::int64_t>(i);
    ++count;
  }
  if (name == "index") interpreter.fail("index: the list has no such item");
  return count;
}

}  // namespace

MethodKind method_kind(const Value& self, std::string_view name) {
  static const Names kText = {
      "strip",       "lstrip",    "rstrip",    "split",      "rsplit",     "startswith", "endswith",     "replace",
      "upper",       "lower",     "title",     "capitalize", "find",       "rfind",      "index",        "rindex",
      "count",       "join",      "format",    "splitlines", "partition",  "rpartition", "removeprefix", "removesuffix",
      "isdigit",     "isdecimal", "isnumeric", "isalpha",    "isalnum",    "isspace",    "isupper",      "islower",
      "zfill",       "casefold",  "center",    "encode",     "expandtabs", "format_map", "isascii",      "isidentifier",
      "isprintable", "istitle",   "ljust",     "rjust",      "maketrans",  "swapcase",   "translate"};
  const auto kind = [&](Names safe, Names forbidden) {
    return one_of(name, safe) ? MethodKind::Safe : one_of(name, forbidden) ? MethodKind::Forbidden : MethodKind::None;
  };
  if (self.is_string()) return one_of(name, kText) ? MethodKind::Safe : MethodKind::None;
  if (self.is_dict())
    return kind({"get", "items", "keys", "values", "copy"}, {"clear", "pop", "popitem", "setdefault", "update", "fromkeys"});
  if (!self.is_list()) return MethodKind::None;
  switch (self.list().kind) {
    case ListKind::List:
      return kind({"index", "count", "copy"}, {"append", "clear", "extend", "insert", "pop", "remove", "reverse", "sort"});
    case ListKind::Tuple:
    case ListKind::Range: return kind({"index", "count"}, {});
    default: return MethodKind::None;
  }
}

Value call_method(Interpreter& interpreter, const Value& self, std::string_view name, const Args& args) {
  if (self.is_string()) return string_method(interpreter, self, name, args);
  return self.is_dict() ? dict_method(interpreter, self, name, args) : list_method(interpreter, self, name, args);
}

std::string format_percent(Interpreter& interpreter, const std::string& format, const Value& values) {
  const bool tuple = values.is_list() && values.list().kind == ListKind::Tuple;
  const std::vector<Value> list = tuple ? values.list().items : std::vector<Value>{values};
  std::size_t used = 0;
  std::string out;
  for (std::size_t i = 0; i < format.size(); ++i) {
    if (format[i] != '%') {
      out += format[i];
      continue;
    }
    const char kind = ++i < format.size() ? format[i] : '\0';
    if (kind == '%') {
      out += '%';
      continue;
    }
    if (std::string_view("sdir").find(kind) == std::string_view::npos || kind == '\0') {
      throw Unsupported("a template formats with '%{}'; temper's interpreter has %s, %d, %i, %r and %%", kind);
    }
    if (used >= list.size()) interpreter.fail("too few values for the format");
    const Value& value = list[used++];
    if ((kind == 'd' || kind == 'i') && !value.is_number()) {
      interpreter.fail(fmt::format("%{} needs a number, found {}", kind, type_name(value)));
    }
    const bool truncate = (kind == 'd' || kind == 'i') && value.is_number();
    interpreter.charge(weight_of(value));
    out += truncate ? std::to_string(static_cast<std::int64_t>(value.number())) : kind == 'r' ? repr(value) : str(value);
  }
  if (used < list.size() && (tuple || !values.is_dict())) interpreter.fail("too many values for the format");
  interpreter.charge(out.size());
  return out;
}

Value loop_attribute(const std::shared_ptr<Loop>& loop, std::string_view name) {
  const auto index = static_cast<std::int64_t>(loop->index), length = static_cast<std::int64_t>(loop->items.size());
  if (name == "index") return index + 1;
  if (name == "index0") return index;
  if (name == "revindex") return length - index;
  if (name == "revindex0") return length - index - 1;
  if (name == "first") return index == 0;
  if (name == "last") return index + 1 == length;
  if (name == "length") return length;
  if (name == "previtem" && index > 0) return loop->items[loop->index - 1];
  if (name == "nextitem" && index + 1 < length) return loop->items[loop->index + 1];
  if (name == "cycle") {
    auto cycle = std::make_shared<Callable>();
    cycle->name = "cycle";
    cycle->call = [i = loop->index](Interpreter& interpreter, const Args& args) {
      if (args.positional.empty()) interpreter.fail("loop.cycle() needs arguments");
      return args.positional[i % args.positional.size()];
    };
    return std::shared_ptr<const Callable>(std::move(cycle));
  }
  return Undefined{};
}

namespace {

Value global_range(Interpreter& interpreter, const Args& args) {
  std::vector<std::int64_t> n;
  for (const Value& value : args.positional) {
    if (!value.is_integral()) interpreter.fail(fmt::format("range() needs integers, found {}", type_name(value)));
    n.push_back(value.integer());
  }
  if (n.empty() || n.size() > 3) interpreter.fail("range() takes one to three integers");
  const std::int64_t begin = n.size() > 1 ? n[0] : 0, end = n.size() > 1 ? n[1] : n[0], step = n.size() > 2 ? n[2] : 1;
  if (step == 0) interpreter.fail("range(): the step cannot be 0");
  std::vector<Value> items;
  for (std::int64_t i = begin; step > 0 ? i < end : i > end;) {
    if (static_cast<std::int64_t>(items.size()) >= kMaxRange)
      interpreter.fail(fmt::format("range() is longer than {}", kMaxRange));
    items.emplace_back(i);
    if (__builtin_add_overflow(i, step, &i)) break;
  }
  interpreter.charge(items.size() * sizeof(Value));
  Value list = make_list(std::move(items), ListKind::Range);
  list.list().view_name = n.size() > 2 ? fmt::format("{}, {}, {}", begin, end, step) : fmt::format("{}, {}", begin, end);
  return list;
}

Value global_dict(Interpreter& interpreter, const Args& args) {
  std::vector<std::pair<Value, Value>> items;
  if (!args.positional.empty()) {
    if (!args.positional[0].is_dict()) interpreter.fail(fmt::format("dict() of a {}", type_name(args.positional[0])));
    items = args.positional[0].dict().items;
  }
  for (const auto& [key, value] : args.keyword) items.emplace_back(key, value);
  interpreter.charge(items.size() * 2 * sizeof(Value));
  return make_dict(std::move(items));
}

Value global_strftime_now(Interpreter& interpreter, const Args& args) {
  const std::string format(needed_text(interpreter, args, 0));
  if (format.empty() || format.size() > 256) interpreter.fail("strftime_now: a format of 1 to 256 bytes is needed");
  // SOURCE_DATE_EPOCH, the convention of reproducible builds, fixes the clock: seconds since 1970, shown in UTC.
  const char* fixed = std::getenv("SOURCE_DATE_EPOCH");
  const std::time_t now = fixed ? static_cast<std::time_t>(std::strtoll(fixed, nullptr, 10)) : std::time(nullptr);
  std::tm local{};
  if (fixed) {
    gmtime_r(&now, &local);
  } else {
    localtime_r(&now, &local);
  }
  std::array<char, 4096> buffer{};
  const std::size_t n = std::strftime(buffer.data(), buffer.size(), format.c_str(), &local);
  return std::string(buffer.data(), n);
}

}  // namespace

std::vector<std::pair<std::string, Value>> globals() {
  static const auto kGlobals = [] {
    std::vector<std::pair<std::string, Value>> list;
    const auto add = [&](const char* name, Value (*function)(Interpreter&, const Args&)) {
      list.emplace_back(name, std::make_shared<const Callable>(Callable{name, function, 1}));
    };
    add("range", global_range);
    add("dict", global_dict);
    add("namespace", [](Interpreter& interpreter, const Args& args) { return interpreter.make_namespace(args); });
    add("strftime_now", global_strftime_now);
    add("raise_exception", [](Interpreter& interpreter, const Args& args) -> Value {
      const Value* message = args.get(0, "message");
      interpreter.fail("the template refuses the conversation: " + (message ? interpreter.text_of(*message) : ""));
    });
    return list;
  }();
  return kGlobals;
}

}  // namespace temper::text::jinja
