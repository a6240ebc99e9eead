#include "base/profile.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <nlohmann/json.hpp>

#include "base/atomic_file.h"
#include "base/error.h"

namespace temper {
namespace {

void op(const char* name, double flops, double bytes) {
  ProfileScope scope(name);
  scope.add(flops, bytes);
}

const ProfileRow* find(const std::vector<ProfileRow>& rows, std::string_view section, std::string_view name) {
  for (const ProfileRow& row : rows)
    if (row.section == section && row.name == name) return &row;
  return nullptr;
}

TEST(Profile, AddsUpWhatItRecordsAndNothingElse) {
  Profile profile;
  op("before", 1, 1);
  {
    const ProfileRecording recording(&profile);
    op("a", 1, 10);
    const ProfileSection outer("outer");
    op("a", 2, 20);
    {
      const ProfileSection inner("inner");
      op("a", 4, 40);
    }
    op("a", 8, 80);
  }
  op("after", 1, 1);
  const auto rows = profile.rows();
  ASSERT_EQ(rows.size(), 3u);
  EXPECT_EQ(find(rows, "", "a")->flops, 1);
  EXPECT_EQ(find(rows, "inner", "a")->bytes, 40);
  const ProfileRow* outer = find(rows, "outer", "a");
  ASSERT_TRUE(outer);
  EXPECT_EQ(outer->calls, 2);
  EXPECT_EQ(outer->flops, 10);
  double inside = 0;
  for (const ProfileRow& row : rows) inside += row.seconds;
  EXPECT_LE(inside, profile.seconds());
}

TEST(Profile, RecordsInPiecesAndNotTwiceAtOnce) {
  Profile profile;
  const auto record = [&](const char* name) {
    const ProfileRecording recording(&profile);
    op(name, 0, 0);
    EXPECT_THROW(ProfileRecording{&profile}, LogicError);
  };
  record("one");
  op("between", 0, 0);
  record("two");
  const ProfileRecording nothing(nullptr);
  op("three", 0, 0);
  EXPECT_EQ(profile.rows().size(), 2u);
}

TEST(Profile, TraceIsInTheTraceEventFormat) {
  Profile profile;
  {
    const ProfileRecording recording(&profile);
    const ProfileSection section("forward");
    op("matmul", 6, 12);
    op("rope", 0, 4);
  }
  const auto path = std::filesystem::path(testing::TempDir()) / "profile_trace.json";
  profile.write_trace(path);
  const auto events = nlohmann::json::parse(read_file(path)).at("traceEvents");
  ASSERT_EQ(events.size(), 2u);
  EXPECT_EQ(events[0]["name"], "forward: matmul");
  EXPECT_EQ(events[0]["ph"], "X");
  EXPECT_EQ(events[0]["args"]["flops"], 6);
  EXPECT_GE(events[1]["ts"].get<double>(), events[0]["ts"].get<double>() + events[0]["dur"].get<double>() - 1e-3);
}

}  // namespace
}  // namespace temper
