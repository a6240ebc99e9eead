#include "base/progress.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

namespace temper {
namespace {

/// Keeps what it is told, with the names copied.
class RecordingSink final : public ProgressSink {
 public:
  RecordingSink() { set_progress_sink(this); }
  ~RecordingSink() override { set_progress_sink(nullptr); }
  void report(const ProgressReport& report) override {
    reports.push_back(report);
    names.emplace_back(report.name);
  }
  void status(std::string_view line) override { lines.emplace_back(line); }

  std::vector<ProgressReport> reports;
  std::vector<std::string> names, lines;
};

TEST(Progress, IsSilentWithoutASink) {
  Progress progress("work", 3);
  progress.update(1);
  status("nobody listens");
}

TEST(Progress, ReportsStepsAndTheEnd) {
  RecordingSink sink;
  status("reading");
  {
    Progress progress("train", 4);
    progress.update(1, {.tokens = 100, .loss = 2.5});
    progress.update(2, {.tokens = 200});
  }
  ASSERT_EQ(sink.reports.size(), 3u);
  EXPECT_EQ(sink.names, (std::vector<std::string>{"train", "train", "train"}));
  EXPECT_EQ(sink.lines, std::vector<std::string>{"reading"});
  EXPECT_EQ(sink.reports[0].loss, 2.5);
  EXPECT_FALSE(sink.reports[1].loss.has_value());
  EXPECT_GT(sink.reports[1].tokens_per_second, 0);
  EXPECT_GE(sink.reports[1].seconds_left, 0);
  EXPECT_FALSE(sink.reports[1].finished);
  EXPECT_TRUE(sink.reports[2].finished);
  EXPECT_EQ(sink.reports[2].done, 2);
}

TEST(Progress, AResumedRunCountsOnlyItsOwnWork) {
  RecordingSink sink;
  Progress progress("train", 10);
  progress.resume_from(8, 1'000'000);
  progress.update(8, {.tokens = 1'000'000});
  progress.update(9, {.tokens = 1'000'100});
  // Nothing done yet: neither a rate nor an estimate.
  EXPECT_EQ(sink.reports[0].tokens_per_second, 0);
  EXPECT_LT(sink.reports[0].seconds_left, 0);
  // One unit done, one left: as long again as it took; and the 100 tokens are its own, not the million before.
  EXPECT_DOUBLE_EQ(sink.reports[1].seconds_left, sink.reports[1].seconds);
  EXPECT_DOUBLE_EQ(sink.reports[1].tokens_per_second, 100 / sink.reports[1].seconds);
}

}  // namespace
}  // namespace temper
