// Parallel loops, logging, errors, the interrupt flag, instruction sets.
#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <csignal>
#include <stdexcept>
#include <string>
#include <vector>

#include "base/cpu.h"
#include "base/error.h"
#include "base/interrupt.h"
#include "base/log.h"
#include "base/parallel.h"

namespace temper {
namespace {

class Threads {
 public:
  explicit Threads(int n) : saved_(num_threads()) { set_num_threads(n); }
  ~Threads() { set_num_threads(saved_); }

 private:
  int saved_;
};

TEST(Parallel, CoversEveryIndexOnce) {
  for (const int threads : {1, 2, 5}) {
    const Threads scope(threads);
    for (const std::int64_t n : {0, 1, 2, 7, 64, 1001})
      for (const std::int64_t grain : {0, 1, 3, 64, 5000}) {
        std::vector<std::atomic<int>> hits(static_cast<std::size_t>(n));
        parallel_for(n, grain, [&](std::int64_t begin, std::int64_t end) {
          for (std::int64_t i = begin; i < end; ++i) ++hits[static_cast<std::size_t>(i)];
        });
        for (const auto& h : hits) ASSERT_EQ(h.load(), 1) << threads << ' ' << n << ' ' << grain;
      }
  }
}

TEST(Parallel, NestedLoopsRunAndExceptionsArrive) {
  const Threads scope(2);
  std::atomic<int> sum{0};
  parallel_for(4, 1, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t i = begin; i < end; ++i)
      parallel_for(10, 1, [&](std::int64_t b, std::int64_t e) { sum += static_cast<int>(e - b); });
  });
  EXPECT_EQ(sum.load(), 40);
  EXPECT_THROW(parallel_for(4, 1, [](std::int64_t, std::int64_t) { throw BadData("row {}", 3); }), BadData);
  EXPECT_THROW(set_num_threads(0), BadRecipe);
}

TEST(Log, GoesToTheSinkOrNowhere) {
  std::vector<std::pair<LogLevel, std::string>> seen;
  log_info("nobody hears {}", 1);
  set_log_sink([&](LogLevel level, std::string_view message) { seen.emplace_back(level, message); });
  log_info("a {}", 1);
  log_warning("b {}", "two");
  set_log_sink({});
  log_info("c");
  ASSERT_EQ(seen.size(), 2u);
  EXPECT_EQ(seen[0], std::pair(LogLevel::Info, std::string("a 1")));
  EXPECT_EQ(seen[1], std::pair(LogLevel::Warning, std::string("b two")));
}

TEST(Errors, CarryTheirMessageAndExitCode) {
  try {
    throw BadFile("{}: expected {}, found {}", "a.gguf", 3, 4);
  } catch (const Error& error) {
    EXPECT_STREQ(error.what(), "a.gguf: expected 3, found 4");
    EXPECT_EQ(error.exit_code(), 3);
  }
  EXPECT_EQ(BadRecipe("x").exit_code(), 2);
  EXPECT_EQ(Interrupted("x").exit_code(), 130);
}

TEST(Interrupt, FlagFollowsTheSignal) {
  set_interrupted(false);
  install_interrupt_handler();
  EXPECT_FALSE(interrupted());
  ASSERT_EQ(::raise(SIGINT), 0);
  EXPECT_TRUE(interrupted());
  set_interrupted(false);
  EXPECT_FALSE(interrupted());
  std::signal(SIGINT, SIG_DFL);
  std::signal(SIGTERM, SIG_DFL);
}

TEST(Cpu, LevelsRiseFromGenericToTheDetectedOne) {
  const auto levels = available_isas();
  ASSERT_FALSE(levels.empty());
  EXPECT_EQ(levels.front(), Isa::Generic);
  EXPECT_EQ(levels.back(), detected_isa());
  EXPECT_TRUE(std::ranges::is_sorted(levels));
  EXPECT_LE(active_isa(), detected_isa());
  EXPECT_EQ(isa_name(Isa::Avx512Bf16), "avx512-bf16");
  EXPECT_FALSE(has_bf16_products(Isa::Avx512));
  EXPECT_TRUE(has_bf16_products(Isa::Amx));
}

}  // namespace
}  // namespace temper
