// Chat templates render as Python's jinja2 renders them: goldens by tools/oracles/make_template_goldens.py.
#include <gtest/gtest.h>

#include <cstdlib>
#include <fstream>
#include <map>
#include <optional>
#include <sstream>

#include "base/error.h"
#include "text/chat_template.h"

namespace temper::text {
namespace {

std::string folder() {
  const char* other = std::getenv("TEMPER_TEMPLATES");
  return other ? other : std::string(TEMPER_TEST_DATA) + "/templates";
}

std::string read(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  EXPECT_TRUE(in) << path;
  std::stringstream text;
  text << in.rdbuf();
  return text.str();
}

/// The rendering, or nothing where temper refuses. What it says then goes to `error`.
std::optional<std::string> render(const std::string& source, const Json& test, std::string& error) {
  try {
    return ChatTemplate(source, test["template"]).render(test["messages"], test["add_generation_prompt"], test["variables"]);
  } catch (const Error& e) {
    error = e.what();
    return {};
  }
}

TEST(TemplateGolden, RendersAsJinja2) {
  const Json goldens = Json::parse(read(folder() + "/goldens.json"));
  setenv("SOURCE_DATE_EPOCH", std::to_string(goldens["epoch"].get<long>()).c_str(), 1);
  std::map<std::string, std::string> sources;
  std::map<std::string, int> wrong;
  std::size_t rendered = 0;
  for (const Json& test : goldens["cases"]) {
    const std::string name = test["template"];
    if (!sources.contains(name)) sources[name] = read(folder() + "/" + name);
    wrong.try_emplace(name, 0);
    std::string error;
    const auto text = render(sources[name], test, error);
    const bool refused = test["expected"].is_null();
    rendered += !refused;
    if (text.has_value() == !refused && (refused || *text == test["expected"].get<std::string>())) continue;
    ++wrong[name];
    ADD_FAILURE() << name << ", " << test["conversation"] << ", generation prompt " << test["add_generation_prompt"]
                  << "\nexpected " << test["expected"] << "\nfound    " << (text ? Json(*text).dump() : "error: " + error);
  }
  unsetenv("SOURCE_DATE_EPOCH");
  std::size_t right = 0;
  for (const auto& [name, count] : wrong) right += count == 0;
  RecordProperty("templates", std::to_string(right) + " of " + std::to_string(wrong.size()) + " agree");
  EXPECT_GT(rendered, 100u);
}

TEST(TemplateGolden, EachPointOfTheLanguage) {
  const Json goldens = Json::parse(read(folder() + "/goldens.json"));
  for (const Json& test : goldens["snippets"]) {
    std::optional<std::string> text;
    std::string error;
    try {
      text = ChatTemplate(test["source"].get<std::string>()).render(Json::array(), false);
    } catch (const Error& e) {
      error = e.what();
    }
    const Json found = text ? Json(*text) : Json();
    EXPECT_EQ(found.dump(), test["expected"].dump()) << test["source"] << "\n" << error;
  }
}

}  // namespace
}  // namespace temper::text
