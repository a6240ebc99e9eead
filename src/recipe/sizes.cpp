#include "recipe/sizes.h"

#include <algorithm>
#include <array>
#include <cctype>
#include <charconv>
#include <string>
#include <utility>

#include "base/error.h"

namespace temper::recipe {

std::uint64_t parse_size(std::string_view text, std::string_view key) {
  static constexpr std::array<std::pair<std::string_view, double>, 10> kUnits = {{{"b", 1.0},
                                                                                  {"k", 1e3},
                                                                                  {"kb", 1e3},
                                                                                  {"m", 1e6},
                                                                                  {"mb", 1e6},
                                                                                  {"g", 1e9},
                                                                                  {"gb", 1e9},
                                                                                  {"kib", 1024.0},
                                                                                  {"mib", 1048576.0},
                                                                                  {"gib", 1073741824.0}}};
  double number = 0.0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  std::string unit(end, text.data() + text.size());
  unit.erase(0, unit.find_first_not_of(' ') == std::string::npos ? unit.size() : unit.find_first_not_of(' '));
  std::ranges::transform(unit, unit.begin(), [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
  const auto* found = std::ranges::find(kUnits, unit, [](const auto& entry) { return entry.first; });
  const double bytes = found == kUnits.end() ? 0.0 : number * found->second;
  if (error != std::errc() || !(bytes >= 1.0) || !(bytes <= 9e18))
    throw BadRecipe("{}: expected a size such as 500MB, 2GB or 1.5GiB, found \"{}\"", key, text);
  return static_cast<std::uint64_t>(bytes);
}

}  // namespace temper::recipe
