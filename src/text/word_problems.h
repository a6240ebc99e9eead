// The project's own training text: short arithmetic word problems with worked answers, made from a seed.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace temper::text {

struct WordProblem {
  std::string question;
  std::string answer;  ///< Worked steps, a line each, and a last line "Answer: N".
};

/// `count` problems of one to three steps, all questions different, fixed by `seed` alone. Problem i is a pure function of
/// (seed, i) up to the skipping of repeats.
std::vector<WordProblem> make_word_problems(std::uint64_t seed, std::int64_t count);

/// Writes `folder`/train.jsonl and `folder`/test.jsonl, one {"messages": [user, assistant]} a line; no question of the
/// one occurs in the other. The folder is made if missing. Throws IoError where it cannot be written.
void write_word_problems(const std::string& folder, std::uint64_t seed, std::int64_t n_train, std::int64_t n_test);

}  // namespace temper::text
