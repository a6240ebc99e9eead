#include "files/gguf_split.h"

#include <gtest/gtest.h>

#include <fstream>
#include <numeric>

#include "base/error.h"
#include "files/gguf.h"
#include "temporary_folder.h"

using namespace temper;
using namespace temper::files;
using temper::testing::TemporaryFolder;

namespace {

std::vector<std::byte> content(std::size_t tensor, std::size_t bytes) {
  std::vector<std::byte> out(bytes);
  for (std::size_t i = 0; i < bytes; ++i) out[i] = static_cast<std::byte>(17 * tensor + i);
  return out;
}

/// Five tensors of 40, 4, 100, 0 and 64 elements of a byte: padded 64, 32, 128, 0, 64.
constexpr std::int64_t kSizes[] = {40, 4, 100, 0, 64};

std::vector<std::filesystem::path> write_model(const std::filesystem::path& path, std::uint64_t limit,
                                               std::size_t alignment = 32) {
  GgufWriter writer(path, alignment, limit);
  writer.add_string("general.name", "m");
  for (std::size_t i = 0; i < std::size(kSizes); ++i)
    writer.declare_tensor("t" + std::to_string(i), GgmlType::I8, Shape{kSizes[i]});
  writer.begin_data();
  for (std::size_t i = std::size(kSizes); i-- > 0;)  // any order
    writer.write_at(i, 0, content(i, static_cast<std::size_t>(kSizes[i])));
  writer.commit();
  return writer.paths();
}

void expect_model(const GgufFile& file) {
  EXPECT_EQ(file.get_string("general.name"), "m");
  ASSERT_EQ(file.tensors().size(), std::size(kSizes));
  for (std::size_t i = 0; i < std::size(kSizes); ++i) {
    const GgufTensor& tensor = file.at("t" + std::to_string(i));
    EXPECT_EQ(&tensor, &file.tensors()[i]);
    const std::vector<std::byte> expected = content(i, static_cast<std::size_t>(kSizes[i]));
    EXPECT_TRUE(std::ranges::equal(tensor.data, expected)) << i;
  }
}

std::string slurp(const std::filesystem::path& path) {
  std::ifstream in(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), {}};
}
void spill(const std::filesystem::path& path, const std::string& text) { std::ofstream(path, std::ios::binary) << text; }

}  // namespace

TEST(GgufSplit, Names) {
  const auto name = parse_split_name("a/b-c-00002-of-00012.gguf");
  ASSERT_TRUE(name);
  EXPECT_EQ(name->prefix, "a/b-c");
  EXPECT_EQ(name->number, 2u);
  EXPECT_EQ(name->count, 12u);
  EXPECT_EQ(split_path(name->prefix, 2, 12), "a/b-c-00002-of-00012.gguf");
  EXPECT_EQ(split_prefix("a/m.q4_0.gguf"), "a/m.q4_0");
  EXPECT_EQ(split_prefix("a/m"), "a/m");
  for (const char* other :
       {"m.gguf", "m-00001-of-00002.bin", "m-1-of-2.gguf", "m-00003-of-00002.gguf", "m-00000-of-00002.gguf",
        "m00001-of-00002.gguf", "m-00001-of-99999999999999999999.gguf", "-of-00002.gguf"})
    EXPECT_FALSE(parse_split_name(other)) << other;
}

TEST(GgufSplit, TensorsAreAssignedInOrder) {
  const std::size_t bytes[] = {64, 32, 128, 0, 64};
  EXPECT_EQ(assign_splits(bytes, 96), (std::vector<std::size_t>{0, 0, 1, 2, 2}));
  EXPECT_EQ(assign_splits(bytes, 1), (std::vector<std::size_t>{0, 1, 2, 3, 3}));
  EXPECT_EQ(assign_splits(bytes, 288), (std::vector<std::size_t>{0, 0, 0, 0, 0}));
  EXPECT_EQ(assign_splits(bytes, 287), (std::vector<std::size_t>{0, 0, 0, 0, 1}));
}

TEST(GgufSplit, AnyPartOpensAllOfThem) {
  const TemporaryFolder folder;
  for (const std::size_t alignment : {32u, 64u}) {
    const auto paths = write_model(folder / "m.gguf", 96, alignment);
    ASSERT_EQ(paths.size(), alignment == 32 ? 3u : 4u);
    EXPECT_EQ(paths[1], split_path(folder / "m", 2, paths.size()));
    std::uint64_t bytes = 0;
    for (const auto& path : paths) bytes += std::filesystem::file_size(path);
    for (const auto& path : paths) {
      const GgufFile file(path);
      expect_model(file);
      EXPECT_EQ(file.file_bytes(), bytes);
      EXPECT_EQ(file.origin(), paths[0]);
      EXPECT_EQ(file.alignment(), alignment);
    }
  }
}

TEST(GgufSplit, OneFileWhereAllFits) {
  const TemporaryFolder folder;
  EXPECT_EQ(write_model(folder / "m.gguf", 1000), (std::vector{folder / "m.gguf"}));
  const GgufFile file(folder / "m.gguf");
  expect_model(file);
  EXPECT_EQ(file.find_value(kSplitCountKey), nullptr);
}

TEST(GgufSplit, PartsThatDoNotBelongTogetherAreRefused) {
  const TemporaryFolder folder;
  const auto paths = write_model(folder / "m.gguf", 96);
  const std::string second = slurp(paths[1]);
  std::filesystem::remove(paths[1]);
  EXPECT_THROW(GgufFile{paths[0]}, BadFile);  // missing
  spill(paths[1], slurp(paths[2]));
  EXPECT_THROW(GgufFile{paths[0]}, BadFile);  // another number
  spill(paths[1], slurp(paths[0]));
  EXPECT_THROW(GgufFile{paths[2]}, BadFile);
  spill(paths[1], second.substr(0, second.size() / 2));
  EXPECT_THROW(GgufFile{paths[0]}, BadFile);  // truncated
  spill(paths[1], second);
  EXPECT_NO_THROW(GgufFile{paths[0]});
  spill(folder / "other.gguf", second);
  EXPECT_THROW(GgufFile{folder / "other.gguf"}, BadFile);  // no name of a part
  // A model of other tensors under the same names of parts.
  GgufWriter other(folder / "o.gguf", 32, 32);
  for (const char* name : {"t0", "x", "y"}) other.declare_tensor(name, GgmlType::I8, Shape{32});
  other.write(content(0, 96));
  other.commit();
  spill(paths[1], slurp(other.paths()[1]));
  EXPECT_THROW(GgufFile{paths[0]}, BadFile);
}

TEST(GgufSplit, NothingAppearsBeforeTheCommit) {
  const TemporaryFolder folder;
  {
    GgufWriter writer(folder / "m.gguf", 32, 32);
    writer.declare_tensor("a", GgmlType::I8, Shape{32});
    writer.declare_tensor("b", GgmlType::I8, Shape{32});
    writer.write(content(0, 40));
    EXPECT_THROW(writer.commit(), LogicError);
  }
  EXPECT_TRUE(std::filesystem::is_empty(folder.path()));
}
