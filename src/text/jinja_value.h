// Values of the template language: what Python's own types do where templates can tell.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

namespace temper::text::jinja {

class Interpreter;
class Value;
struct List;
struct Dict;
struct Namespace;
struct Callable;
struct Loop;

/// A name, key or item that is not there. Prints as nothing, is false, and has no attributes; `what` says what was missing.
struct Undefined {
  std::shared_ptr<const std::string> what;
};
struct None {};

/// UTF-8 text. Markup (what `safe` makes) escapes plain text that is added to it, as MarkupSafe does.
struct String {
  std::string text;
  bool markup = false;
};

/// Immutable, so that values can be shared; only a Namespace can be written to.
class Value {
 public:
  using Data = std::variant<Undefined, None, bool, std::int64_t, double, std::shared_ptr<const String>,
                            std::shared_ptr<List>, std::shared_ptr<const Dict>, std::shared_ptr<Namespace>,
                            std::shared_ptr<const Callable>, std::shared_ptr<Loop>>;

  Value() = default;
  Value(None) : data_(None{}) {}
  Value(Undefined u) : data_(std::move(u)) {}
  Value(bool b) : data_(b) {}
  Value(std::int64_t i) : data_(i) {}
  Value(double d) : data_(d) {}
  Value(std::string s, bool markup = false) : data_(std::make_shared<const String>(String{std::move(s), markup})) {}
  Value(std::string_view s) : Value(std::string(s)) {}
  Value(const char* s) : Value(std::string(s)) {}
  Value(std::shared_ptr<List> v) : data_(std::move(v)) {}
  Value(std::shared_ptr<const Dict> v) : data_(std::move(v)) {}
  Value(std::shared_ptr<Namespace> v) : data_(std::move(v)) {}
  Value(std::shared_ptr<const Callable> v) : data_(std::move(v)) {}
  Value(std::shared_ptr<Loop> v) : data_(std::move(v)) {}

  template <typename T>
  const T* as() const {
    return std::get_if<T>(&data_);
  }
  bool is_undefined() const { return as<Undefined>() != nullptr; }
  bool is_none() const { return as<None>() != nullptr; }
  bool is_bool() const { return as<bool>() != nullptr; }
  bool is_string() const { return as<std::shared_ptr<const String>>() != nullptr; }
  bool is_list() const { return as<std::shared_ptr<List>>() != nullptr; }
  bool is_dict() const { return as<std::shared_ptr<const Dict>>() != nullptr; }
  bool is_float() const { return as<double>() != nullptr; }
  /// An int or a bool, as in Python.
  bool is_integral() const { return as<std::int64_t>() != nullptr || is_bool(); }
  bool is_number() const { return is_integral() || is_float(); }

  /// Preconditions: the value is what the name says.
  const std::string& text() const { return (*as<std::shared_ptr<const String>>())->text; }
  bool is_markup() const { return is_string() && (*as<std::shared_ptr<const String>>())->markup; }
  List& list() const { return **as<std::shared_ptr<List>>(); }
  const Dict& dict() const { return **as<std::shared_ptr<const Dict>>(); }
  std::int64_t integer() const { return is_bool() ? *as<bool>() : *as<std::int64_t>(); }
  double number() const { return is_float() ? *as<double>() : static_cast<double>(integer()); }

  const Data& data() const { return data_; }

 private:
  Data data_;
};

/// The kinds of Python sequence and iterator that templates meet.
enum class ListKind {
  List,
  Tuple,
  Range,
  View,      ///< dict.keys() and the like: has a length, no index
  Generator  ///< what `map`, `select`, `items`, … give: can be read once, has neither length nor index
};

struct List {
  std::vector<Value> items;
  ListKind kind = ListKind::List;
  std::string view_name;   ///< "dict_items" and the like
  int depth = 1;           ///< of nesting; bounded, so that recursion over values is
  std::size_t weight = 1;  ///< values and text bytes within, shared ones counted each time: the cost of printing it
};

struct Dict {
  std::vector<std::pair<Value, Value>> items;  ///< in order of insertion
  int depth = 1;
  std::size_t weight = 1;

  const Value* find(const Value& key) const;
  const Value* find(std::string_view key) const;
};

struct Namespace {
  std::vector<std::pair<std::string, Value>> items;
};

/// Arguments of a call, a filter or a test.
struct Args {
  std::vector<Value> positional;
  std::vector<std::pair<std::string, Value>> keyword;

  /// Argument `index`, or the one called `name`, or nullptr.
  const Value* get(std::size_t index, std::string_view name) const;
};

struct Callable {
  std::string name;
  std::function<Value(Interpreter&, const Args&)> call;
  int depth = 1;  ///< of what it holds, as for List
};

/// What `loop` is inside a `for`.
struct Loop {
  std::vector<Value> items;
  std::size_t index = 0;
  int depth = 1;  ///< of what it holds, as for List
};

/// Greatest nesting and weight of lists and dicts.
inline constexpr int kMaxValueDepth = 200;
inline constexpr std::size_t kMaxValueWeight = std::size_t{1} << 26;

/// Nesting of a value: 0 for one that holds no others.
int depth_of(const Value& value);
/// Cost of walking a value once.
std::size_t weight_of(const Value& value);
/// Throw OutOfMemory beyond kMaxValueDepth or kMaxValueWeight.
Value make_list(std::vector<Value> items, ListKind kind = ListKind::List);
Value make_dict(std::vector<std::pair<Value, Value>> items);
/// Throws OutOfMemory beyond the same limits.
Value from_json(const nlohmann::ordered_json& json);

bool truth(const Value& value);
/// Python's ==.
bool equal(const Value& a, const Value& b);
/// Python's str() and repr().
std::string str(const Value& value);
std::string repr(const Value& value);
/// The type's name as Python's errors would put it.
const char* type_name(const Value& value);
/// Python's repr of a float.
std::string float_repr(double value);

struct JsonStyle {
  int indent = -1;  ///< spaces; -1: one line
  std::string item_separator = ", ", key_separator = ": ";
  bool sort_keys = false, ensure_ascii = false;
};
/// Python's json.dumps. Throws BadData for what JSON has no form for.
std::string to_json(const Value& value, const JsonStyle& style);

}  // namespace temper::text::jinja
