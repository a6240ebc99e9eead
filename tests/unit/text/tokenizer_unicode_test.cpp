#include <gtest/gtest.h>

#include "text/unicode.h"

namespace temper::text {
namespace {

TEST(Utf8, RepairsAsPythonDoes) {
  // bytes.decode("utf-8", "replace") of CPython.
  const std::string r = "\xEF\xBF\xBD";
  EXPECT_EQ(replace_invalid_utf8("abc\xC3\xA9"), "abc\xC3\xA9");
  EXPECT_EQ(replace_invalid_utf8("\xFF"), r);
  EXPECT_EQ(replace_invalid_utf8("\x80\x80"), r + r);
  EXPECT_EQ(replace_invalid_utf8("a\xC3"), "a" + r);
  EXPECT_EQ(replace_invalid_utf8("\xE2\x82z"), r + "z");  // a truncated character is one part
  EXPECT_EQ(replace_invalid_utf8("\xF0\x9F\x98"), r);
  EXPECT_EQ(replace_invalid_utf8("\xC0\xAF"), r + r);                  // overlong
  EXPECT_EQ(replace_invalid_utf8("\xE0\x80\xAF"), r + r + r);          // overlong
  EXPECT_EQ(replace_invalid_utf8("\xED\xA0\x80"), r + r + r);          // surrogate
  EXPECT_EQ(replace_invalid_utf8("\xF4\x90\x80\x80"), r + r + r + r);  // above U+10FFFF
  EXPECT_TRUE(is_valid_utf8(std::string_view("\0\xF4\x8F\xBF\xBF", 5)));
  EXPECT_FALSE(is_valid_utf8("\xED\xBF\xBF"));
}

TEST(Utf8, EveryCharacterSurvives) {
  for (char32_t c = 0; c <= 0x10FFFF; ++c) {
    if (c >= 0xD800 && c <= 0xDFFF) continue;
    std::string text;
    append_utf8(text, c);
    const Utf8Step step = read_utf8(text);
    ASSERT_TRUE(step.ok) << static_cast<unsigned>(c);
    ASSERT_EQ(step.code_point, c);
    ASSERT_EQ(step.length, text.size());
  }
}

TEST(Utf8Stream, HoldsBackUnfinishedCharacters) {
  Utf8Stream stream;
  EXPECT_EQ(stream.push("a\xF0\x9F"), "a");
  EXPECT_EQ(stream.push("\x98"), "");
  EXPECT_EQ(stream.push("\x80!"), "\xF0\x9F\x98\x80!");
  EXPECT_EQ(stream.push("\xE4"), "");
  EXPECT_EQ(stream.push("z"), "\xEF\xBF\xBDz");
  EXPECT_EQ(stream.finish(), "");
  EXPECT_EQ(stream.push("\xE4\xBD"), "");
  EXPECT_EQ(stream.finish(), "\xEF\xBF\xBD");
  EXPECT_EQ(stream.finish(), "");
}

TEST(ByteAlphabet, IsABijection) {
  std::string all;
  for (int b = 0; b < 256; ++b) all.push_back(static_cast<char>(b));
  const std::string written = bytes_to_alphabet(all);
  EXPECT_EQ(alphabet_to_bytes(written), all);
  EXPECT_EQ(bytes_to_alphabet(" a\n\xFF"),
            "\xC4\xA0"
            "a\xC4\x8A\xC3\xBF");
  EXPECT_EQ(alphabet_to_bytes(" "), std::nullopt);  // a space is written otherwise
  EXPECT_EQ(alphabet_to_bytes("\xE4\xBD\xA0"), std::nullopt);
}

TEST(NormalForms, ComposeAndDecompose) {
  EXPECT_EQ(normalize("e\xCC\x81", NormalForm::kNfc), "\xC3\xA9");
  EXPECT_EQ(normalize("\xC3\xA9", NormalForm::kNfd), "e\xCC\x81");
  EXPECT_EQ(normalize("\xEF\xAC\x81", NormalForm::kNfc), "\xEF\xAC\x81");  // a ligature is only compatible
  EXPECT_EQ(normalize("\xEF\xAC\x81", NormalForm::kNfkc), "fi");
  EXPECT_EQ(normalize(std::string_view("\0a", 2), NormalForm::kNfc), std::string_view("\0a", 2));
}

}  // namespace
}  // namespace temper::text
