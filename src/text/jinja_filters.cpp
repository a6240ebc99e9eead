// Filters: Jinja's own, and tojson as chat templates have it.
#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <map>

#include "text/jinja_interpreter.h"
#include "text/jinja_strings.h"

namespace temper::text::jinja {
namespace {

using I = Interpreter;

Value none_found(const char* what) { return Undefined{std::make_shared<const std::string>(what)}; }

bool flag(const Args& args, std::size_t index, const char* name, bool fallback = false) {
  const Value* value = args.get(index, name);
  return value ? truth(*value) : fallback;
}

std::int64_t integer(I& in, const Args& args, std::size_t index, const char* name, std::int64_t fallback) {
  const Value* value = args.get(index, name);
  if (!value || value->is_none()) return fallback;
  if (!value->is_integral()) in.fail(fmt::format("argument '{}' must be an integer, found {}", name, type_name(*value)));
  return value->integer();
}

Value generator(std::vector<Value> items) { return make_list(std::move(items), ListKind::Generator); }

/// What map, select and their kin go over: nothing for any false value, None too.
std::vector<Value> iterate_if_true(I& in, const Value& input) {
  return truth(input) ? in.iterate(input) : std::vector<Value>();
}

/// Item at a dotted path, each part an index or a name: what the `attribute` argument of filters means.
Value at_path(I& in, Value value, const Value& path) {
  if (path.is_integral()) return in.item(value, path);
  for (const std::string_view part : split(in.text_of(path), ".", -1)) {
    const bool number = !part.empty() && std::all_of(part.begin(), part.end(), [](char c) { return c >= '0' && c <= '9'; });
    value = in.item(
        value, number && part.size() < 10 ? Value(static_cast<std::int64_t>(std::stoll(std::string(part)))) : Value(part));
  }
  return value;
}

Args rest(const Args& args, std::size_t from) {
  Args out;
  if (args.positional.size() > from)
    out.positional.assign(args.positional.begin() + static_cast<std::ptrdiff_t>(from), args.positional.end());
  out.keyword = args.keyword;
  return out;
}

/// select, reject, selectattr, rejectattr.
Value select(I& in, const Value& input, const Args& args, bool by_attribute, bool keep) {
  const std::size_t skip = by_attribute ? 1 : 0;
  if (args.positional.size() < skip) in.fail("the attribute's name is missing");
  const bool has_test = args.positional.size() > skip;
  const Args test_args = rest(args, skip + 1);
  std::vector<Value> out;
  for (Value& item : iterate_if_true(in, input)) {
    const Value value = by_attribute ? at_path(in, item, args.positional[0]) : item;
    const bool passes = has_test ? in.apply_test(in.text_of(args.positional[skip]), value, test_args) : truth(value);
    if (passes == keep) out.push_back(std::move(item));
  }
  return generator(std::move(out));
}

Value map_filter(I& in, const Value& input, const Args& args) {
  std::vector<Value> out;
  const Value* path = args.positional.empty() ? args.get(0, "attribute") : nullptr;
  const Value* fallback = args.positional.empty() ? args.get(1, "default") : nullptr;
  if (!path && args.positional.empty()) in.fail("map needs a filter's name or attribute=");
  const Args filter_args = rest(args, 1);
  for (const Value& item : iterate_if_true(in, input)) {
    Value value = path ? at_path(in, item, *path) : in.apply_filter(in.text_of(args.positional[0]), item, filter_args);
    out.push_back(fallback && value.is_undefined() ? *fallback : std::move(value));
  }
  return generator(std::move(out));
}

/// What sorting and uniqueness compare: the attribute if one is named, in lower case unless told otherwise.
Value sort_key(I& in, const Value& item, const Value* attribute, bool case_sensitive) {
  Value value = attribute && !attribute->is_none() ? at_path(in, item, *attribute) : item;
  return value.is_string() && !case_sensitive ? Value(lower(value.text())) : value;
}

template <typename Key>
std::vector<Value> sorted(I& in, std::vector<Value> items, bool reverse, Key&& key) {
  std::vector<std::pair<Value, Value>> keyed;
  for (Value& item : items) keyed.emplace_back(key(item), std::move(item));
  std::stable_sort(keyed.begin(), keyed.end(), [&](const auto& a, const auto& b) {
    return reverse ? in.less(b.first, a.first) : in.less(a.first, b.first);
  });
  items.clear();
  for (auto& [k, item] : keyed) items.push_back(std::move(item));
  return items;
}

Value sort_filter(I& in, const Value& input, const Args& args) {
  const bool case_sensitive = flag(args, 1, "case_sensitive");
  const Value* attribute = args.get(2, "attribute");
  return make_list(sorted(in, in.iterate(input), flag(args, 0, "reverse"),
                          [&](const Value& item) { return sort_key(in, item, attribute, case_sensitive); }));
}

Value dictsort(I& in, const Value& input, const Args& args) {
  if (!input.is_dict()) in.fail(fmt::format("dictsort needs a mapping, found {}", type_name(input)));
  const bool case_sensitive = flag(args, 0, "case_sensitive");
  const Value* by = args.get(1, "by");
  const std::size_t part = by && by->is_string() && by->text() == "value" ? 1 : 0;
  std::vector<Value> pairs;
  for (const auto& [key, value] : input.dict().items) pairs.push_back(make_list({key, value}, ListKind::Tuple));
  in.charge(pairs.size() * 2 * sizeof(List));
  return make_list(sorted(in, std::move(pairs), flag(args, 2, "reverse"), [&](const Value& item) {
    return sort_key(in, item.list().items[part], nullptr, case_sensitive);
  }));
}

Value unique(I& in, const Value& input, const Args& args) {
  std::vector<Value> out, seen;
  for (Value& item : in.iterate(input)) {
    Value key = sort_key(in, item, args.get(1, "attribute"), flag(args, 0, "case_sensitive"));
    if (std::any_of(seen.begin(), seen.end(), [&](const Value& other) { return in.equal_values(other, key); })) continue;
    seen.push_back(std::move(key));
    out.push_back(std::move(item));
  }
  return generator(std::move(out));
}

Value extreme(I& in, const Value& input, const Args& args, bool greatest) {
  Value best = none_found("the extreme of an empty sequence"), best_key;
  bool first = true;
  for (const Value& item : in.iterate(input)) {
    Value key = sort_key(in, item, args.get(1, "attribute"), flag(args, 0, "case_sensitive"));
    if (first || (greatest ? in.less(best_key, key) : in.less(key, best_key))) {
      best = item;
      best_key = std::move(key);
    }
    first = false;
  }
  return best;
}

Value join(I& in, const Value& input, const Args& args) {
  const Value* separator = args.get(0, "d");
  const std::string between = separator ? in.text_of(*separator) : std::string();
  const Value* attribute = args.get(1, "attribute");
  std::string out;
  bool first = true;
  for (const Value& item : in.iterate(input)) {
    if (!first) out += between;
    first = false;
    out += in.text_of(attribute ? at_path(in, item, *attribute) : item);
    in.charge(between.size());
  }
  return out;
}

Value tojson(I& in, const Value& input, const Args& args) {
  JsonStyle style;
  style.ensure_ascii = flag(args, 0, "ensure_ascii");
  if (const Value* indent = args.get(1, "indent"); indent && !indent->is_none()) {
    style.indent = static_cast<int>(std::clamp<std::int64_t>(integer(in, args, 1, "indent", 0), 0, 64));
    style.item_separator.assign(1, ',');
  }
  if (const Value* separators = args.get(2, "separators"); separators && !separators->is_none()) {
    const std::vector<Value> parts = in.iterate(*separators);
    if (parts.size() != 2) in.fail("tojson: separators are two strings");
    style.item_separator = in.text_of(parts[0]);
    style.key_separator = in.text_of(parts[1]);
  }
  style.sort_keys = flag(args, 3, "sort_keys");
  const std::size_t extra =
      style.item_separator.size() + style.key_separator.size() +
      static_cast<std::size_t>(std::max(style.indent, 0)) * static_cast<std::size_t>(depth_of(input) + 1);
  if (extra > kMaxWork) in.charge(kMaxWork + 1);
  in.charge(weight_of(input) * (1 + extra / 4));
  try {
    return to_json(input, style);
  } catch (const BadData& error) {
    in.fail(error.what());
  }
}

Value length(I& in, const Value& input, const Args&) {
  if (input.is_undefined()) return std::int64_t{0};
  if (input.is_string()) {
    in.charge(input.text().size() / 8);
    return count_code_points(input.text());
  }
  if (input.is_dict()) return static_cast<std::int64_t>(input.dict().items.size());
  if (!input.is_list() || input.list().kind == ListKind::Generator)
    in.fail(fmt::format("a {} has no length", type_name(input)));
  return static_cast<std::int64_t>(input.list().items.size());
}

Value last(I& in, const Value& input, const Args&) {
  const bool reversible = !(input.is_list() && input.list().kind == ListKind::Generator);
  if (!reversible) in.fail("last needs a sequence, found a generator");
  std::vector<Value> items = in.iterate(input);
  return items.empty() ? none_found("the last item of an empty sequence") : items.back();
}

Value first(I& in, const Value& input, const Args&) {
  std::vector<Value> items = in.iterate(input);
  if (items.empty()) return none_found("the first item of an empty sequence");
  if (input.is_list() && input.list().kind == ListKind::Generator) {  // only the first has been read
    input.list().items.assign(items.begin() + 1, items.end());
  }
  return items.front();
}

Value reverse(I& in, const Value& input, const Args&) {
  std::vector<Value> items = in.iterate(input);
  std::reverse(items.begin(), items.end());
  if (!input.is_string()) return generator(std::move(items));
  std::string out;
  for (const Value& c : items) out += c.text();
  return out;
}

Value indent(I& in, const Value& input, const Args& args) {
  const Value* width = args.get(0, "width");
  const std::int64_t spaces = width && !width->is_string() ? integer(in, args, 0, "width", 4) : 4;
  in.charge(static_cast<std::size_t>(std::clamp<std::int64_t>(spaces, 0, static_cast<std::int64_t>(kMaxWork))));
  const std::string pad = width && width->is_string()
                              ? width->text()
                              : std::string(static_cast<std::size_t>(std::max<std::int64_t>(spaces, 0)), ' ');
  const bool blank = flag(args, 2, "blank");
  std::string text = in.text_of(input);
  text += '\n';  // as Jinja does, so that a text that ends in a line end keeps it
  const auto lines = splitlines(text);
  in.charge(text.size());
  std::string out;
  if (flag(args, 1, "first")) out = pad;
  for (std::size_t i = 0; i < lines.size(); ++i) {
    if (i > 0) out += '\n';
    if (i > 0 && (blank || !lines[i].empty())) {
      in.charge(pad.size());
      out += pad;
    }
    out += lines[i];
  }
  return out;
}

Value to_int(I& in, const Value& input, const Args& args) {
  const Value* fallback = args.get(0, "default");
  const Value otherwise = fallback ? *fallback : Value(std::int64_t{0});
  const std::int64_t base = integer(in, args, 1, "base", 10);
  if (input.is_integral()) return input.integer();
  if (input.is_float()) {
    if (!(std::fabs(input.number()) < 9.2e18)) return otherwise;
    return static_cast<std::int64_t>(input.number());
  }
  if (!input.is_string() || base < 2 || base > 36) return otherwise;
  const std::string text(strip(input.text(), Side::Both));
  char* end = nullptr;
  errno = 0;
  const std::int64_t whole = std::strtoll(text.c_str(), &end, static_cast<int>(base));
  if (!text.empty() && end == text.c_str() + text.size() && errno == 0) return whole;
  const double number = std::strtod(text.c_str(), &end);
  if (text.empty() || end != text.c_str() + text.size() || !(std::fabs(number) < 9.2e18)) return otherwise;
  return static_cast<std::int64_t>(number);
}

Value to_float(I&, const Value& input, const Args& args) {
  const Value* fallback = args.get(0, "default");
  const Value otherwise = fallback ? *fallback : Value(0.0);
  if (input.is_number()) return input.number();
  if (!input.is_string()) return otherwise;
  const std::string text(strip(input.text(), Side::Both));
  char* end = nullptr;
  const double number = std::strtod(text.c_str(), &end);
  return !text.empty() && end == text.c_str() + text.size() ? Value(number) : otherwise;
}

Value round_filter(I& in, const Value& input, const Args& args) {
  if (!input.is_number()) in.fail(fmt::format("round needs a number, found {}", type_name(input)));
  const double scale = std::pow(10.0, static_cast<double>(integer(in, args, 0, "precision", 0)));
  const Value* method = args.get(1, "method");
  const std::string how = method ? in.text_of(*method) : "common";
  const double x = input.number() * scale;
  return (how == "ceil" ? std::ceil(x) : how == "floor" ? std::floor(x) : std::nearbyint(x)) / scale;
}

Value items_filter(I& in, const Value& input, const Args&) {
  if (input.is_undefined()) return generator({});
  if (!input.is_dict()) in.fail(fmt::format("items needs a mapping, found {}", type_name(input)));
  std::vector<Value> out;
  for (const auto& [key, value] : input.dict().items) out.push_back(make_list({key, value}, ListKind::Tuple));
  in.charge(out.size() * 2 * sizeof(List));
  return generator(std::move(out));
}

Value default_filter(I&, const Value& input, const Args& args) {
  const bool absent = input.is_undefined() || (flag(args, 1, "boolean") && !truth(input));
  if (!absent) return input;
  const Value* fallback = args.get(0, "default_value");
  return fallback ? *fallback : Value("");
}

Value sum(I& in, const Value& input, const Args& args) {
  const Value* attribute = args.get(0, "attribute");
  const Value* start = args.get(1, "start");
  Value total = start ? *start : Value(std::int64_t{0});
  for (const Value& item : in.iterate(input)) {
    total = in.add(total, attribute && !attribute->is_none() ? at_path(in, item, *attribute) : item);
  }
  return total;
}

Value replace_filter(I& in, const Value& input, const Args& args) {
  Args texts;
  for (std::size_t i = 0; i < 2; ++i) {
    const Value* value = args.get(i, i == 0 ? "old" : "new");
    if (!value) in.fail("replace needs what to replace and by what");
    texts.positional.emplace_back(in.text_of(*value));
  }
  if (const Value* count = args.get(2, "count")) texts.positional.push_back(*count);
  return call_method(in, in.text_of(input), "replace", texts);
}

/// A filter that is a function of the text.
template <std::string (*F)(std::string_view)>
Value text_filter(I& in, const Value& input, const Args&) {
  return Value(F(in.text_of(input)), input.is_markup());
}

Value trim(I& in, const Value& input, const Args& args) {
  const Value* characters = args.get(0, "chars");
  const std::string text = in.text_of(input);
  if (!characters || characters->is_none()) return Value(std::string(strip(text, Side::Both)), input.is_markup());
  const std::string set = in.text_of(*characters);
  in.charge(text.size() * (set.size() / 8 + 1));
  return std::string(strip(text, Side::Both, set));
}

Value title_filter(I& in, const Value& input, const Args&) {
  // Words begin after white space, '-' and opening brackets, unlike str.title's.
  std::string out, word;
  const auto flush = [&] {
    out += capitalize(word);
    word.clear();
  };
  for (const char c : in.text_of(input)) {
    word += c;
    if (std::string_view("- \t\n\r\v\f({[<").find(c) != std::string_view::npos) flush();
  }
  flush();
  return out;
}

Value list_filter(I& in, const Value& input, const Args&) { return make_list(in.iterate(input)); }

Value abs_filter(I& in, const Value& input, const Args&) {
  if (!input.is_number()) in.fail(fmt::format("abs needs a number, found {}", type_name(input)));
  if (input.is_float()) return std::fabs(input.number());
  return input.integer() < 0 ? in.add(std::int64_t{0}, Value(-input.integer())) : Value(input.integer());
}

Value format_filter(I& in, const Value& input, const Args& args) {
  return format_percent(in, in.text_of(input), make_list(args.positional, ListKind::Tuple));
}

Value escape(I& in, const Value& input, const Args&) {
  return input.is_markup() ? input : Value(escape_html(in.text_of(input)), true);
}

Value wordcount(I& in, const Value& input, const Args&) {
  return static_cast<std::int64_t>(split(in.text_of(input), {}, -1).size());
}

}  // namespace

Filter find_filter(std::string_view name) {
  static const std::map<std::string_view, Filter> kFilters = {
      {"abs", abs_filter},
      {"capitalize", text_filter<capitalize>},
      {"count", length},
      {"d", default_filter},
      {"default", default_filter},
      {"dictsort", dictsort},
      {"e", escape},
      {"escape", escape},
      {"first", first},
      {"float", to_float},
      {"format", format_filter},
      {"indent", indent},
      {"int", to_int},
      {"items", items_filter},
      {"join", join},
      {"last", last},
      {"length", length},
      {"list", list_filter},
      {"lower", text_filter<lower>},
      {"map", map_filter},
      {"max", [](I& in, const Value& v, const Args& a) { return extreme(in, v, a, true); }},
      {"min", [](I& in, const Value& v, const Args& a) { return extreme(in, v, a, false); }},
      {"reject", [](I& in, const Value& v, const Args& a) { return select(in, v, a, false, false); }},
      {"rejectattr", [](I& in, const Value& v, const Args& a) { return select(in, v, a, true, false); }},
      {"replace", replace_filter},
      {"reverse", reverse},
      {"round", round_filter},
      {"safe", [](I& in, const Value& v, const Args&) { return Value(in.text_of(v), true); }},
      {"select", [](I& in, const Value& v, const Args& a) { return select(in, v, a, false, true); }},
      {"selectattr", [](I& in, const Value& v, const Args& a) { return select(in, v, a, true, true); }},
      {"sort", sort_filter},
      {"string", [](I& in, const Value& v, const Args&) { return v.is_string() ? v : Value(in.text_of(v)); }},
      {"sum", sum},
      {"title", title_filter},
      {"tojson", tojson},
      {"trim", trim},
      {"unique", unique},
      {"upper", text_filter<upper>},
      {"wordcount", wordcount},
  };
  const auto it = kFilters.find(name);
  return it == kFilters.end() ? nullptr : it->second;
}

}  // namespace temper::text::jinja
