// The generated word problems are right, varied, repeatable, and apart.
#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <nlohmann/json.hpp>
#include <regex>
#include <set>
#include <sstream>

#include "base/atomic_file.h"
#include "base/error.h"
#include "text/word_problems.h"

namespace temper::text {
namespace {

TEST(WordProblems, EveryStepIsRight) {
  const std::regex step(R"((\d+) ([-+*/]) (\d+) = (\d+))"), answer(R"(\nAnswer: (\d+)$)"), number(R"(\d+)");
  for (const WordProblem& problem : make_word_problems(3, 3000)) {
    long last = -1;
    int steps = 0;
    for (std::sregex_iterator it(problem.answer.begin(), problem.answer.end(), step), end; it != end; ++it, ++steps) {
      const long a = std::stol((*it)[1]), b = std::stol((*it)[3]);
      const char op = (*it)[2].str()[0];
      if (op == '/') {
        EXPECT_EQ(a % b, 0) << problem.answer;
      }
      last = std::stol((*it)[4]);
      EXPECT_EQ(last, op == '+' ? a + b : op == '-' ? a - b : op == '*' ? a * b : a / b) << problem.answer;
    }
    EXPECT_GE(steps, 1);
    EXPECT_LE(steps, 3);
    std::smatch found;
    ASSERT_TRUE(std::regex_search(problem.answer, found, answer)) << problem.answer;
    EXPECT_EQ(std::stol(found[1]), last) << problem.answer;
    // Every number of the question is needed somewhere in the answer.
    for (std::sregex_iterator it(problem.question.begin(), problem.question.end(), number), end; it != end; ++it) {
      EXPECT_NE(problem.answer.find(it->str()), std::string::npos) << problem.question << problem.answer;
    }
  }
}

TEST(WordProblems, RepeatableAndVaried) {
  const auto a = make_word_problems(7, 2000), b = make_word_problems(7, 2500), c = make_word_problems(8, 2000);
  std::set<std::string> questions, answers;
  int same_as_c = 0;
  for (std::size_t i = 0; i < a.size(); ++i) {
    EXPECT_EQ(a[i].question, b[i].question);
    questions.insert(a[i].question);
    answers.insert(a[i].answer);
    same_as_c += a[i].question == c[i].question;
  }
  EXPECT_EQ(questions.size(), a.size());
  EXPECT_GT(answers.size(), a.size() * 9 / 10);
  EXPECT_LT(same_as_c, 5);
  EXPECT_THROW(make_word_problems(1, -1), BadRecipe);
}

TEST(WordProblems, TrainAndTestAreApart) {
  const auto folder = std::filesystem::temp_directory_path() / ("temper_problems_" + std::to_string(getpid()));
  write_word_problems(folder.string(), 1, 2000, 300);
  const auto questions = [&](const char* name, std::size_t n) {
    std::set<std::string> out;
    std::istringstream lines(read_file(folder / name));
    for (std::string line; std::getline(lines, line);) {
      const auto row = nlohmann::json::parse(line);
      EXPECT_EQ(row["messages"].size(), 2u);
      EXPECT_EQ(row["messages"][0]["role"], "user");
      EXPECT_EQ(row["messages"][1]["role"], "assistant");
      out.insert(row["messages"][0]["content"]);
    }
    EXPECT_EQ(out.size(), n);
    return out;
  };
  const auto train = questions("train.jsonl", 2000), test = questions("test.jsonl", 300);
  for (const auto& question : test) EXPECT_FALSE(train.contains(question)) << question;
  std::filesystem::remove_all(folder);
}

}  // namespace
}  // namespace temper::text
