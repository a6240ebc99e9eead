#include "files/json.h"

#include <vector>

#include "base/error.h"
#include "base/mapped_file.h"

namespace temper::files {
namespace {

constexpr std::size_t kMaxQuoted = 80;  // bytes of a value or a parser's message that are quoted back

std::string shortened(std::string text) {
  if (text.size() <= kMaxQuoted) return text;
  std::size_t end = kMaxQuoted;
  while (end > 0 && (static_cast<unsigned char>(text[end]) & 0xc0u) == 0x80u) --end;  // between UTF-8 characters
  text.resize(end);
  return text + "…";
}

/// Builds the document from the parser's events, which come from a loop and not from recursion, so that depth costs no
/// stack.
class Builder final : public nlohmann::json_sax<Json> {
 public:
  Builder(std::string_view origin, const JsonLimits& limits) : origin_(origin), limits_(limits) {}

  Json take() { return std::move(root_); }

  bool null() override { return add(nullptr); }
  bool boolean(bool value) override { return add(value); }
  bool number_integer(number_integer_t value) override { return add(value); }
  bool number_unsigned(number_unsigned_t value) override { return add(value); }
  bool number_float(number_float_t value, const string_t&) override { return add(value); }
  bool string(string_t& value) override { return add(std::move(value)); }
  bool binary(binary_t&) override { return false; }
  bool start_object(std::size_t) override { return open(Json::object()); }
  bool start_array(std::size_t) override { return open(Json::array()); }
  bool end_object() override { return close(); }
  bool end_array() override { return close(); }

  bool key(string_t& name) override {
    const auto [position, inserted] = stack_.back()->get_ref<Json::object_t&>().try_emplace(name);
    if (!inserted) throw BadFile("{}: key \"{}\" appears twice in one object", origin_, shortened(name));
    slot_ = &position->second;
    return true;
  }

  bool parse_error(std::size_t position, const std::string&, const nlohmann::detail::exception& error) override {
    std::string reason = error.what();
    if (const auto end_of_tag = reason.find("] "); end_of_tag != std::string::npos) reason.erase(0, end_of_tag + 2);
    throw BadFile("{}: not valid JSON at byte {}: {}", origin_, position, shortened(std::move(reason)));
  }

 private:
  template <typename Value>
  Json* place(Value&& value) {
    if (stack_.empty()) {
      root_ = Json(std::forward<Value>(value));
      return &root_;
    }
    if (stack_.back()->is_array()) return &stack_.back()->get_ref<Json::array_t&>().emplace_back(std::forward<Value>(value));
    *slot_ = Json(std::forward<Value>(value));
    return slot_;
  }

  template <typename Value>
  bool add(Value&& value) {
    place(std::forward<Value>(value));
    return true;
  }

  bool open(Json container) {
    if (stack_.size() >= limits_.max_depth) {
      throw BadFile("{}: more than {} levels of nested JSON", origin_, limits_.max_depth);
    }
    stack_.push_back(place(std::move(container)));
    return true;
  }

  bool close() {
    stack_.pop_back();
    return true;
  }

  std::string_view origin_;
  const JsonLimits& limits_;
  Json root_;
  std::vector<Json*> stack_;
  Json* slot_ = nullptr;
};

template <typename... Expected>
[[noreturn]] void wrong(std::string_view origin, std::string_view key, const Json& found,
                        fmt::format_string<Expected...> expected, Expected&&... arguments) {
  throw BadFile("{}: key \"{}\": expected {}, found {}", origin, key,
                fmt::format(expected, std::forward<Expected>(arguments)...), describe(found));
}

const Json& require(const Json& object, std::string_view key, std::string_view origin, std::string_view expected) {
  if (const Json* value = find_key(object, key)) return *value;
  if (!object.is_object()) throw BadFile("{}: expected an object with key \"{}\", found {}", origin, key, describe(object));
  throw BadFile("{}: key \"{}\": expected {}, found none", origin, key, expected);
}

std::string expected_int(std::int64_t min, std::int64_t max) {
  if (min == kMinInt && max == kMaxInt) return "an integer";
  if (max == kMaxInt) return fmt::format("an integer of at least {}", min);
  return fmt::format("an integer in [{}, {}]", min, max);
}

std::string expected_number(double min, double max) {
  if (min == kMinNumber && max == kMaxNumber) return "a number";
  if (max == kMaxNumber) return fmt::format("a number of at least {}", min);
  return fmt::format("a number in [{}, {}]", min, max);
}

std::int64_t to_int(const Json& value, std::string_view key, std::string_view origin, std::int64_t min, std::int64_t max) {
  const bool too_large = value.is_number_unsigned() && value.get<std::uint64_t>() > static_cast<std::uint64_t>(kMaxInt);
  if (!value.is_number_integer() || too_large) wrong(origin, key, value, "{}", expected_int(min, max));
  const auto number = value.get<std::int64_t>();
  if (number < min || number > max) wrong(origin, key, value, "{}", expected_int(min, max));
  return number;
}

double to_number(const Json& value, std::string_view key, std::string_view origin, double min, double max) {
  if (!value.is_number()) wrong(origin, key, value, "{}", expected_number(min, max));
  const auto number = value.get<double>();
  if (!(number >= min && number <= max)) wrong(origin, key, value, "{}", expected_number(min, max));
  return number;
}

bool to_bool(const Json& value, std::string_view key, std::string_view origin) {
  if (!value.is_boolean()) wrong(origin, key, value, "true or false");
  return value.get<bool>();
}

const std::string& to_string(const Json& value, std::string_view key, std::string_view origin) {
  if (!value.is_string()) wrong(origin, key, value, "a string");
  return value.get_ref<const std::string&>();
}

const Json& to_object(const Json& value, std::string_view key, std::string_view origin) {
  if (!value.is_object()) wrong(origin, key, value, "an object");
  return value;
}

const Json& to_array(const Json& value, std::string_view key, std::string_view origin) {
  if (!value.is_array()) wrong(origin, key, value, "an array");
  return value;
}

}  // namespace

Json parse_json(std::string_view text, std::string_view origin, const JsonLimits& limits) {
  if (text.size() > limits.max_bytes) {
    throw BadFile("{}: {} bytes of JSON, more than the {} allowed for a file of this kind", origin, text.size(),
                  limits.max_bytes);
  }
  Builder builder(origin, limits);
  Json::sax_parse(text.begin(), text.end(), &builder);
  return builder.take();
}

Json read_json(const std::filesystem::path& path, const JsonLimits& limits) {
  const MappedFile file(path);
  const auto bytes = file.bytes();
  return parse_json({reinterpret_cast<const char*>(bytes.data()), bytes.size()}, path.string(), limits);
}

const Json* find_key(const Json& object, std::string_view key) {
  if (!object.is_object()) return nullptr;
  const auto& members = object.get_ref<const Json::object_t&>();
  const auto found = members.find(key);
  return found == members.end() || found->second.is_null() ? nullptr : &found->second;
}

std::int64_t require_int(const Json& object, std::string_view key, std::string_view origin, std::int64_t min,
                         std::int64_t max) {
  return to_int(require(object, key, origin, expected_int(min, max)), key, origin, min, max);
}

double require_number(const Json& object, std::string_view key, std::string_view origin, double min, double max) {
  return to_number(require(object, key, origin, expected_number(min, max)), key, origin, min, max);
}

bool require_bool(const Json& object, std::string_view key, std::string_view origin) {
  return to_bool(require(object, key, origin, "true or false"), key, origin);
}

const std::string& require_string(const Json& object, std::string_view key, std::string_view origin) {
  return to_string(require(object, key, origin, "a string"), key, origin);
}

const Json& require_object(const Json& object, std::string_view key, std::string_view origin) {
  return to_object(require(object, key, origin, "an object"), key, origin);
}

const Json& require_array(const Json& object, std::string_view key, std::string_view origin) {
  return to_array(require(object, key, origin, "an array"), key, origin);
}

std::optional<std::int64_t> optional_int(const Json& object, std::string_view key, std::string_view origin, std::int64_t min,
                                         std::int64_t max) {
  const Json* value = find_key(object, key);
  return value ? std::optional(to_int(*value, key, origin, min, max)) : std::nullopt;
}

std::optional<double> optional_number(const Json& object, std::string_view key, std::string_view origin, double min,
                                      double max) {
  const Json* value = find_key(object, key);
  return value ? std::optional(to_number(*value, key, origin, min, max)) : std::nullopt;
}

std::optional<bool> optional_bool(const Json& object, std::string_view key, std::string_view origin) {
  const Json* value = find_key(object, key);
  return value ? std::optional(to_bool(*value, key, origin)) : std::nullopt;
}

std::optional<std::string> optional_string(const Json& object, std::string_view key, std::string_view origin) {
  const Json* value = find_key(object, key);
  return value ? std::optional(to_string(*value, key, origin)) : std::nullopt;
}

const Json* optional_object(const Json& object, std::string_view key, std::string_view origin) {
  const Json* value = find_key(object, key);
  return value ? &to_object(*value, key, origin) : nullptr;
}

const Json* optional_array(const Json& object, std::string_view key, std::string_view origin) {
  const Json* value = find_key(object, key);
  return value ? &to_array(*value, key, origin) : nullptr;
}

std::string describe(const Json& value) {
  if (value.is_array()) return fmt::format("array of {}", value.size());
  if (value.is_object()) return fmt::format("object of {}", value.size());
  if (value.is_null()) return "null";
  // A scalar prints flat; text that is no UTF-8 cannot come from the parser, but a caller may build it.
  return fmt::format("{} {}", value.type_name(), shortened(value.dump(-1, ' ', false, Json::error_handler_t::replace)));
}

}  // namespace temper::files
