// JSON as models ship it: bounded in size and depth, duplicate keys refused, and read through accessors that name what is
// wrong.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <limits>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <string_view>

namespace temper::files {

using Json = nlohmann::json;

/// How much of a file is believed. The defaults fit tokenizer.json of the largest vocabularies.
struct JsonLimits {
  std::size_t max_bytes = std::size_t{256} << 20;
  std::size_t max_depth = 64;  ///< Nested arrays and objects.
};

/// Parses one JSON document (RFC 8259, UTF-8). `origin` is the file's name for messages. Throws BadFile on a syntax error,
/// trailing text, invalid UTF-8, a duplicate key, or a limit passed.
Json parse_json(std::string_view text, std::string_view origin, const JsonLimits& limits = {});

/// `parse_json` of a file. Throws BadFile also if the file is missing.
Json read_json(const std::filesystem::path& path, const JsonLimits& limits = {});

inline constexpr std::int64_t kMinInt = std::numeric_limits<std::int64_t>::min();
inline constexpr std::int64_t kMaxInt = std::numeric_limits<std::int64_t>::max();
inline constexpr double kMinNumber = std::numeric_limits<double>::lowest();
inline constexpr double kMaxNumber = std::numeric_limits<double>::max();

/// The member `key`, or null where `object` is no object, lacks it, or holds JSON null there.
const Json* find_key(const Json& object, std::string_view key);

/// Members that must be there. Each throws BadFile naming `origin`, the key, what was expected (type, and range [min, max])
/// and what was found. `require_number` takes integers too.
std::int64_t require_int(const Json& object, std::string_view key, std::string_view origin, std::int64_t min = kMinInt,
                         std::int64_t max = kMaxInt);
double require_number(const Json& object, std::string_view key, std::string_view origin, double min = kMinNumber,
                      double max = kMaxNumber);
bool require_bool(const Json& object, std::string_view key, std::string_view origin);
const std::string& require_string(const Json& object, std::string_view key, std::string_view origin);
const Json& require_object(const Json& object, std::string_view key, std::string_view origin);
const Json& require_array(const Json& object, std::string_view key, std::string_view origin);

/// The same for members that may be absent or null (nullopt, or a null pointer); one of a wrong type or range is still a
/// BadFile.
std::optional<std::int64_t> optional_int(const Json& object, std::string_view key, std::string_view origin,
                                         std::int64_t min = kMinInt, std::int64_t max = kMaxInt);
std::optional<double> optional_number(const Json& object, std::string_view key, std::string_view origin,
                                      double min = kMinNumber, double max = kMaxNumber);
std::optional<bool> optional_bool(const Json& object, std::string_view key, std::string_view origin);
std::optional<std::string> optional_string(const Json& object, std::string_view key, std::string_view origin);
const Json* optional_object(const Json& object, std::string_view key, std::string_view origin);
const Json* optional_array(const Json& object, std::string_view key, std::string_view origin);

/// What a value is, for messages: its type and, if short, its text: `number 3.5`, `string "abc"`, `array of 12`.
std::string describe(const Json& value);

}  // namespace temper::files
