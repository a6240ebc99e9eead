// What the template interpreter refuses, and that no template can hang it or use up memory. Meaning is tested against jinja2
// in tests/golden/text/template_golden_test.cpp.
#include <gtest/gtest.h>

#include <cstdlib>

#include "base/error.h"
#include "text/chat_template.h"

namespace temper::text {
namespace {

std::string render(const std::string& source, const Json& variables = Json::object()) {
  return ChatTemplate(source).render(Json::array(), false, variables);
}

template <typename E>
std::string error_of(const std::string& source) {
  try {
    render(source);
  } catch (const E& error) {
    return error.what();
  }
  ADD_FAILURE() << "no such error: " << source.substr(0, 200);
  return "";
}

std::string repeat(const std::string& text, int n) {
  std::string out;
  for (int i = 0; i < n; ++i) out += text;
  return out;
}

TEST(Jinja, ErrorsNameTheLine) {
  EXPECT_NE(error_of<BadFile>("a\nb\n{% if x %}").find("line 3"), std::string::npos);
  EXPECT_NE(error_of<BadFile>("a\n{{ 1 + }}").find("line 2"), std::string::npos);
  EXPECT_NE(error_of<BadFile>("\n{{ 'abc }}").find("line 2"), std::string::npos);
  EXPECT_NE(error_of<BadFile>("{{ (1] }}").find("unexpected ']'"), std::string::npos);
  EXPECT_NE(error_of<BadData>("\n\n{{ a.b }}").find("line 3: 'a' is undefined"), std::string::npos);
  const std::string raised = error_of<BadData>("\n{{ raise_exception('roles must alternate') }}");
  EXPECT_NE(raised.find("line 2"), std::string::npos);
  EXPECT_NE(raised.find("roles must alternate"), std::string::npos);
  EXPECT_NE(error_of<BadData>("{{ 1 | frobnicate }}").find("'frobnicate'"), std::string::npos);
  error_of<BadFile>("{% include 'x' %}");
  error_of<BadFile>("{% break %}");
  error_of<BadFile>("{{ 99999999999999999999 }}");
  error_of<BadData>("{{ 9223372036854775807 + 1 }}");
  error_of<BadData>("{{ 1 // 0 }}{{ x }}");
  error_of<BadData>("{{ [1].append(1) }}");
}

TEST(Jinja, HostileTemplatesEnd) {
  error_of<OutOfMemory>("{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}");
  error_of<OutOfMemory>(
      "{% set ns = namespace(s='xxxxxxxx') %}{% for i in range(99) %}{% set ns.s = ns.s + ns.s %}{% endfor %}");
  error_of<OutOfMemory>("{{ 'x' * 9999999999 }}");
  error_of<OutOfMemory>("{{ ('x' * 1000000).replace('x', 'y' * 1000000) }}");
  error_of<OutOfMemory>("{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}");
  error_of<OutOfMemory>("{% set ns = namespace(l=[]) %}{% for i in range(9999) %}{% set ns.l = [ns.l] %}{% endfor %}");
  error_of<OutOfMemory>(
      "{% set ns = namespace(l=[1]) %}{% for i in range(99) %}{% set ns.l = [ns.l, ns.l] %}{% endfor %}{{ ns.l }}");
  error_of<OutOfMemory>(
      "{% set ns = namespace(l=1) %}{% for i in range(9999) %}{% for x in [ns.l] %}{% set ns.l = loop %}{% endfor %}{% "
      "endfor %}");
  error_of<BadData>("{{ range(100001) }}");
  error_of<BadFile>(repeat("{% if 1 %}", 5000));
  error_of<BadFile>("{{ " + repeat("(", 50000) + repeat(")", 50000) + " }}");
  error_of<BadFile>("{{ 1" + repeat(" + 1", 50000) + " }}");
  error_of<BadFile>("{{ x" + repeat(".a", 50000) + " }}");
  error_of<BadFile>("{{ x" + repeat("|list", 50000) + " }}");
  error_of<BadFile>("{{ " + repeat("not ", 50000) + "x }}");
}

TEST(Jinja, NamespacesMayHoldEachOther) {
  EXPECT_EQ(
      render("{% set a = namespace() %}{% set a.me = a %}{% macro m() %}m{% endmacro %}{% set a.m = m %}{{ a.me.me.m() }}"),
      "m");
  // A long chain of namespaces is freed without deep recursion.
  EXPECT_EQ(render("{% set n = namespace(p=0) %}{% for i in range(99999) %}{% set n.p = namespace(p=n.p) %}{% endfor %}ok"),
            "ok");
}

TEST(Jinja, ClockCanBeFixed) {
  setenv("SOURCE_DATE_EPOCH", "1753612800", 1);
  EXPECT_EQ(render("{{ strftime_now('%d %b %Y') }}"), "27 Jul 2025");
  unsetenv("SOURCE_DATE_EPOCH");
}

TEST(Jinja, VariablesKeepTheirOrder) {
  EXPECT_EQ(render("{{ tools | tojson }} {{ documents is none }}", {{"tools", Json::parse(R"({"z": 1, "a": 2})")}}),
            R"({"z": 1, "a": 2} True)");
}

}  // namespace
}  // namespace temper::text
