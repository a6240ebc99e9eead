// Recipes as YAML: nested groups (`lora: {r: 32}`) or dotted keys (`lora.r: 32`).
#include <yaml-cpp/yaml.h>

#include <set>

#include "base/atomic_file.h"
#include "base/error.h"
#include "recipe/options.h"

namespace temper::recipe {
namespace {

/// Reads one document; remembers what it has seen, since yaml-cpp lets a key occur twice.
class Reader {
 public:
  Reader(std::string_view origin, Recipe& recipe) : origin_(origin), recipe_(recipe) {}

  void read_document(const YAML::Node& root) {
    if (!root.IsDefined() || root.IsNull()) return;
    if (!root.IsMap()) throw BadRecipe("{}: expected options as \"key: value\", found {}", where(root), kind(root));
    for (const auto& entry : root) {
      const std::string key = key_of(entry.first);
      if (is_group(key) && find_option(key) == nullptr)
        read_group(key, entry.second);
      else
        read_option(key, entry.first, entry.second);
    }
  }

 private:
  static bool is_group(std::string_view name) {
    for (const Option& option : options())
      if (!name.empty() && group_of(option) == name) return true;
    return false;
  }

  static std::string_view kind(const YAML::Node& node) {
    if (node.IsMap()) return "a map";
    if (node.IsSequence()) return "a list";
    if (node.IsScalar()) return "a single value";
    return "nothing";
  }

  std::string where(const YAML::Node& node) const { return fmt::format("{}:{}", origin_, node.Mark().line + 1); }

  std::string key_of(const YAML::Node& node) const {
    if (!node.IsScalar()) throw BadRecipe("{}: expected the name of an option, found {}", where(node), kind(node));
    return node.Scalar();
  }

  void read_group(const std::string& group, const YAML::Node& node) {
    if (node.IsNull()) return;
    if (!node.IsMap()) throw BadRecipe("{}: {}: expected a group of options, found {}", where(node), group, kind(node));
    for (const auto& entry : node) read_option(group + "." + key_of(entry.first), entry.first, entry.second);
  }

  void read_option(const std::string& key, const YAML::Node& key_node, const YAML::Node& value) {
    const std::string place = where(key_node);
    const Option& option = require_option(key, place);
    if (!seen_.insert(key).second) throw BadRecipe("{}: {}: given twice; keep one", place, key);
    if (value.IsScalar()) {
      assign(option, recipe_, value.Scalar(), place);
    } else if (value.IsSequence() && is_list(option)) {
      std::vector<std::string> items;
      for (const auto& item : value) {
        if (!item.IsScalar()) throw BadRecipe("{}: {}: expected {}, found {}", place, key, expectation(option), kind(item));
        items.push_back(item.Scalar());
      }
      assign_list(option, recipe_, items, place);
    } else {
      throw BadRecipe("{}: {}: expected {}, found {}", place, key, expectation(option), kind(value));
    }
  }

  std::string_view origin_;
  Recipe& recipe_;
  std::set<std::string> seen_;
};

/// A double-quoted YAML scalar.
std::string double_quoted(std::string_view text) {
  std::string result = "\"";
  for (const char c : text) {
    if (c == '"' || c == '\\')
      result += {'\\', c};
    else if (static_cast<unsigned char>(c) < 0x20 || c == 0x7f)
      result += fmt::format("\\x{:02x}", static_cast<unsigned char>(c));
    else
      result += c;
  }
  return result + '"';
}

std::string yaml_value(const Option& option, const Recipe& recipe) {
  if (is_list(option)) {
    std::string list;
    for (const std::string& item : value_list(option, recipe)) list += (list.empty() ? "" : ", ") + item;
    return "[" + list + "]";
  }
  const std::string text = value_text(option, recipe);
  return std::holds_alternative<std::string& (*)(Recipe&)>(option.field) ? double_quoted(text) : text;
}

}  // namespace

void parse_yaml(std::string_view text, std::string_view origin, Recipe& recipe) {
  Recipe result = recipe;  // A refused recipe leaves the caller's as it was.
  try {
    Reader(origin, result).read_document(YAML::Load(std::string(text)));
  } catch (const YAML::Exception& error) {
    throw BadRecipe("{}:{}: not valid YAML: {}", origin, error.mark.line + 1, error.msg);
  }
  recipe = result;
}

void load_yaml(const std::filesystem::path& path, Recipe& recipe) {
  constexpr std::size_t kLargestRecipe = 1 << 20;
  parse_yaml(read_file(path, kLargestRecipe), path.string(), recipe);
}

std::string to_yaml(const Recipe& recipe) {
  std::string text, group;
  for (const Option& option : options()) {
    if (group_of(option) != group) {
      group = group_of(option);
      text += fmt::format("{}:\n", group);
    }
    const std::string_view name = option.key.substr(group.empty() ? 0 : group.size() + 1);
    text += fmt::format("{}{}: {}\n", group.empty() ? "" : "  ", name, yaml_value(option, recipe));
  }
  return text;
}

}  // namespace temper::recipe
