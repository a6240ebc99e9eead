// AtomicFile and MappedFile.
#include <gtest/gtest.h>
#include <sys/resource.h>
#include <unistd.h>

#include <csignal>
#include <utility>
#include <vector>

#include "base/atomic_file.h"
#include "base/error.h"
#include "base/mapped_file.h"
#include "temporary_folder.h"

namespace temper {
namespace {

using temper::testing::slurp;
using temper::testing::spill;
using temper::testing::TemporaryFolder;

std::ptrdiff_t entries(const TemporaryFolder& folder) {
  return std::distance(std::filesystem::directory_iterator(folder.path()), {});
}

std::string text(const MappedFile& file) {
  return {reinterpret_cast<const char*>(file.bytes().data()), file.bytes().size()};
}

TEST(AtomicFile, AppearsAtCommit) {
  TemporaryFolder folder;
  const auto path = folder / "a.txt";
  spill(path, "earlier");
  AtomicFile file(path);
  file.write("hello ");
  file.write("world");
  file.write_at(0, std::as_bytes(std::span("J", 1)));
  EXPECT_EQ(file.position(), 11u);
  EXPECT_EQ(slurp(path), "earlier");
  file.commit();
  EXPECT_EQ(slurp(path), "Jello world");
  EXPECT_EQ(entries(folder), 1);
}

TEST(AtomicFile, RoomIsZeroUntilWrittenTo) {
  TemporaryFolder folder;
  AtomicFile file(folder / "a.txt");
  file.write("ab");
  file.extend(4);
  const std::string_view text = "xy";
  file.write_at(4, std::as_bytes(std::span(text)));
  EXPECT_THROW(file.write_at(5, std::as_bytes(std::span(text))), LogicError);
  file.commit();
  EXPECT_EQ(read_file(folder / "a.txt"), std::string("ab\0\0xy", 6));
}

TEST(AtomicFile, AbandonedLeavesNothing) {
  TemporaryFolder folder;
  spill(folder / "a.txt", "earlier");
  {
    AtomicFile old(folder / "a.txt"), fresh(folder / "b.txt");
    old.write("half");
    fresh.write("half");
  }
  EXPECT_EQ(slurp(folder / "a.txt"), "earlier");
  EXPECT_EQ(entries(folder), 1);
}

TEST(AtomicFile, WriteAtStaysWithinWhatWasWritten) {
  TemporaryFolder folder;
  AtomicFile file(folder / "a.txt");
  file.write("abc");
  EXPECT_THROW(file.write_at(2, std::as_bytes(std::span("xy", 2))), LogicError);
  EXPECT_THROW(file.write_at(4, {}), LogicError);
  EXPECT_NO_THROW(file.write_at(3, {}));
}

TEST(AtomicFile, WhatTheSystemRefusesIsAnIoError) {
  TemporaryFolder folder;
  EXPECT_THROW(AtomicFile(folder / "none" / "a.txt"), IoError);
  std::filesystem::create_directory(folder / "taken");
  spill(folder / "taken" / "x", "x");
  AtomicFile file(folder / "taken");
  EXPECT_THROW(file.commit(), IoError);
}

TEST(AtomicFile, AFullDiskLeavesTheEarlierFile) {
  TemporaryFolder folder;
  const auto path = folder / "a.txt";
  spill(path, "earlier");
  // A limit on the size of files stands in for a full disk: write(2) stops short, then fails.
  rlimit saved{};
  ASSERT_EQ(::getrlimit(RLIMIT_FSIZE, &saved), 0);
  const rlimit small{1000, saved.rlim_max};
  const auto handler = std::signal(SIGXFSZ, SIG_IGN);
  ASSERT_EQ(::setrlimit(RLIMIT_FSIZE, &small), 0);
  std::string message;
  try {
    write_file(path, std::string(5000, 'x'));
  } catch (const IoError& error) {
    message = error.what();
  }
  ASSERT_EQ(::setrlimit(RLIMIT_FSIZE, &saved), 0);
  std::signal(SIGXFSZ, handler);
  EXPECT_NE(message.find("a.txt"), std::string::npos) << message;
  EXPECT_NE(message.find("untouched"), std::string::npos) << message;
  EXPECT_EQ(slurp(path), "earlier");
  EXPECT_EQ(entries(folder), 1);
}

TEST(TextFile, RoundTripAndLimit) {
  TemporaryFolder folder;
  const std::string body("zero \0 byte\n", 12);
  write_file(folder / "a.txt", body);
  EXPECT_EQ(read_file(folder / "a.txt"), body);
  EXPECT_EQ(read_file(folder / "a.txt", 12), body);
  EXPECT_THROW(read_file(folder / "a.txt", 11), BadFile);
  EXPECT_THROW(read_file(folder / "b.txt"), BadFile);
}

TEST(MappedFile, MapsAndMoves) {
  TemporaryFolder folder;
  spill(folder / "a", "abc");
  spill(folder / "b", "defg");
  spill(folder / "empty", "");
  MappedFile a(folder / "a"), b(folder / "b");
  EXPECT_EQ(text(a), "abc");
  EXPECT_EQ(a.path(), folder / "a");
  EXPECT_TRUE(MappedFile(folder / "empty").bytes().empty());
  const std::byte* data = a.bytes().data();
  MappedFile moved(std::move(a));
  EXPECT_EQ(moved.bytes().data(), data);
  moved = std::move(b);
  EXPECT_EQ(text(moved), "defg");
}

TEST(MappedFile, RefusesWhatIsNoRegularFile) {
  TemporaryFolder folder;
  EXPECT_THROW(MappedFile(folder / "missing"), BadFile);
  EXPECT_THROW(MappedFile(folder.path()), BadFile);
  EXPECT_THROW(MappedFile("/dev/null"), BadFile);
}

}  // namespace
}  // namespace temper
