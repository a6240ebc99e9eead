#include "files/json.h"

#include "files_support.h"

namespace temper::files {
namespace {

std::string nested(std::size_t depth) { return std::string(depth, '[') + std::string(depth, ']'); }

TEST(Json, ParsesWhatTheLibraryParses) {
  const std::string text = R"({"a": [1, -2, 3.5, true, null, "ä\u00e4\n"], "b": {"c": {}}, "d": 18446744073709551615})";
  EXPECT_EQ(parse_json(text, "x.json"), Json::parse(text));
  EXPECT_EQ(parse_json("[]", "x.json"), Json::array());
  EXPECT_EQ(parse_json("\"s\"", "x.json"), Json("s"));
}

TEST(Json, RefusesWhatIsMalformed) {
  for (const char* text :
       {"", "{", "{\"a\":1", "[1,]", "{} x", "{\"a\" 1}", "nul", "1e999", "\"\xff\"", "{'a':1}", "\"a\nb\""})
    expect_error<BadFile>([&] { parse_json(text, "x.json"); }, {"x.json", "not valid JSON"});
}

TEST(Json, RefusesDuplicateKeys) {
  expect_error<BadFile>([] { parse_json(R"({"a": 1, "b": 2, "a": 3})", "x.json"); }, {"x.json", "\"a\"", "twice"});
  expect_error<BadFile>([] { parse_json(R"({"o": {"a": 1, "a": 1}})", "x.json"); }, {"twice"});
  EXPECT_NO_THROW(parse_json(R"({"a": {"a": 1}, "b": {"a": 1}})", "x.json"));
}

TEST(Json, BoundsDepthAndSize) {
  EXPECT_NO_THROW(parse_json(nested(64), "x.json"));
  expect_error<BadFile>([] { parse_json(nested(65), "x.json"); }, {"64 levels"});
  expect_error<BadFile>([] { parse_json(nested(1'000'000), "x.json"); }, {"64 levels"});
  expect_error<BadFile>([] { parse_json("[1, 2]", "x.json", {.max_bytes = 5}); }, {"6 bytes", "5 allowed"});
}

TEST(Json, TypedMembers) {
  const Json j = parse_json(
      R"({"i": 3, "f": 2.5, "b": true, "s": "x", "o": {"k": 1}, "a": [1], "n": null, "u": 9223372036854775808})", "c");
  EXPECT_EQ(require_int(j, "i", "c", 0, 3), 3);
  EXPECT_EQ(require_number(j, "f", "c"), 2.5);
  EXPECT_EQ(require_number(j, "i", "c"), 3.0);
  EXPECT_TRUE(require_bool(j, "b", "c"));
  EXPECT_EQ(require_string(j, "s", "c"), "x");
  EXPECT_EQ(require_int(require_object(j, "o", "c"), "k", "c"), 1);
  EXPECT_EQ(require_array(j, "a", "c").size(), 1u);
  EXPECT_EQ(optional_int(j, "i", "c"), 3);
  for (const char* absent : {"n", "zzz"}) {
    EXPECT_EQ(optional_int(j, absent, "c"), std::nullopt);
    EXPECT_EQ(optional_number(j, absent, "c"), std::nullopt);
    EXPECT_EQ(optional_bool(j, absent, "c"), std::nullopt);
    EXPECT_EQ(optional_string(j, absent, "c"), std::nullopt);
    EXPECT_EQ(optional_object(j, absent, "c"), nullptr);
    EXPECT_EQ(optional_array(j, absent, "c"), nullptr);
  }
}

TEST(Json, WrongMembersAreNamed) {
  const Json j = parse_json(R"({"i": 3, "f": 2.5, "s": "x", "n": null, "u": 9223372036854775808})", "c");
  expect_error<BadFile>([&] { require_int(j, "i", "config.json", 4, 9); }, {"config.json", "\"i\"", "[4, 9]", "number 3"});
  expect_error<BadFile>([&] { require_int(j, "f", "config.json"); }, {"an integer", "number 2.5"});
  expect_error<BadFile>([&] { require_int(j, "u", "config.json"); }, {"an integer", "9223372036854775808"});
  expect_error<BadFile>([&] { require_int(j, "s", "config.json"); }, {"an integer", "string \"x\""});
  expect_error<BadFile>([&] { require_int(j, "zz", "config.json"); }, {"\"zz\"", "found none"});
  expect_error<BadFile>([&] { require_int(j, "n", "config.json"); }, {"\"n\"", "found none"});
  expect_error<BadFile>([&] { require_number(j, "f", "config.json", 3); }, {"at least 3", "2.5"});
  expect_error<BadFile>([&] { optional_bool(j, "i", "config.json"); }, {"true or false"});
  expect_error<BadFile>([&] { optional_string(j, "i", "config.json"); }, {"a string"});
  expect_error<BadFile>([&] { optional_object(j, "i", "config.json"); }, {"an object"});
  expect_error<BadFile>([&] { optional_array(j, "i", "config.json"); }, {"an array"});
  expect_error<BadFile>([&] { require_int(Json::array(), "i", "config.json"); }, {"an object", "array of 0"});
}

TEST(Json, QuotesLongValuesInPart) {
  const Json j = {{"s", std::string(10'000, 'y')}};
  EXPECT_LT(describe(j["s"]).size(), 120u);
  EXPECT_EQ(describe(Json::object({{"a", 1}})), "object of 1");
}

TEST(Json, MissingFile) {
  expect_error<BadFile>([] { read_json("/nowhere/config.json"); }, {"/nowhere/config.json"});
}

}  // namespace
}  // namespace temper::files
