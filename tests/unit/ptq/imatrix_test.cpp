// Importance matrices: both formats written and read, and whatever is broken refused.
#include "ptq/imatrix.h"

#include <gtest/gtest.h>

#include <limits>

#include "base/atomic_file.h"
#include "base/error.h"
#include "temporary_folder.h"

namespace temper::ptq {
namespace {

ImportanceMatrix example() {
  ImportanceMatrix matrix;
  matrix.datasets = {"calibration.txt"};
  matrix.chunks = 3;
  matrix.chunk_size = 512;
  matrix.entries["blk.0.attn_q.weight"] = {{1.5f, 0.0f, 1536.0f, 7.25f}, {1536}};
  matrix.entries["blk.0.ffn_down.weight"] = {{2.0f, 4.0f}, {1536}};
  return matrix;
}

TEST(Imatrix, GgufRoundTrip) {
  const temper::testing::TemporaryFolder folder;
  write_imatrix(example(), folder / "m.gguf");
  const ImportanceMatrix read = read_imatrix(folder / "m.gguf");
  EXPECT_EQ(read.datasets, example().datasets);
  EXPECT_EQ(read.chunks, 3);
  EXPECT_EQ(read.chunk_size, 512);
  ASSERT_EQ(read.entries.size(), 2u);
  EXPECT_EQ(read.entries.at("blk.0.attn_q.weight").sums, example().entries["blk.0.attn_q.weight"].sums);
  EXPECT_EQ(read.entries.at("blk.0.ffn_down.weight").counts, std::vector<std::int64_t>{1536});
  EXPECT_EQ(read.importance("blk.0.attn_q.weight", 4), (std::vector<float>{1.5f / 1536, 0, 1, 7.25f / 1536}));
  EXPECT_TRUE(read.importance("output.weight", 4).empty());
  EXPECT_THROW(read.importance("blk.0.attn_q.weight", 8), BadFile);
}

TEST(Imatrix, OlderFormatRoundTrip) {
  const temper::testing::TemporaryFolder folder;
  write_imatrix(example(), folder / "m.dat");
  const ImportanceMatrix read = read_imatrix(folder / "m.dat");
  EXPECT_EQ(read.chunks, 3);
  EXPECT_EQ(read.datasets, example().datasets);
  ASSERT_EQ(read.entries.size(), 2u);
  // Stored as mean · calls: 1536 tokens are 3 calls.
  EXPECT_EQ(read.entries.at("blk.0.ffn_down.weight").counts, std::vector<std::int64_t>{3});
  EXPECT_FLOAT_EQ(read.importance("blk.0.ffn_down.weight", 2)[1], 4.0f / 1536);
}

TEST(Imatrix, TruncationsAreRefusedOrSeen) {
  const temper::testing::TemporaryFolder folder;
  for (const char* name : {"m.gguf", "m.dat"}) {
    write_imatrix(example(), folder / name);
    const std::string bytes = read_file(folder / name);
    const auto whole = std::as_bytes(std::span(bytes.data(), bytes.size()));
    EXPECT_EQ(parse_imatrix(whole, name).entries.size(), 2u);
    // Without the trailing note the older format is whole, too: llama.cpp reads such files.
    const std::size_t note = 4 + 4 + example().datasets[0].size();
    // GGUF ends with padding behind the last tensor, which need not be there.
    const std::size_t end = std::string_view(name) == "m.dat" ? bytes.size() : bytes.size() - 32;
    for (std::size_t n = 0; n < end; ++n) {
      const bool complete = std::string_view(name) == "m.dat" && (n == bytes.size() - note || n == bytes.size() - note + 4);
      if (complete)
        EXPECT_EQ(parse_imatrix(whole.first(n), name).entries.size(), 2u);
      else
        EXPECT_THROW(parse_imatrix(whole.first(n), name), BadFile) << name << " " << n;
    }
  }
}

TEST(Imatrix, ValuesThatAreNoSquaresAreRefused) {
  const temper::testing::TemporaryFolder folder;
  for (const float bad : {-1.0f, std::numeric_limits<float>::infinity(), std::numeric_limits<float>::quiet_NaN()})
    for (const char* name : {"m.gguf", "m.dat"}) {
      ImportanceMatrix matrix = example();
      matrix.entries["blk.0.ffn_down.weight"].sums[1] = bad;
      write_imatrix(matrix, folder / name);
      EXPECT_THROW(read_imatrix(folder / name), BadFile) << name << " " << bad;
    }
}

TEST(Imatrix, LengthsBeyondTheFileAreNotBelieved) {
  // One entry whose name would be 2 GiB long; one of -1 values.
  const std::int32_t huge[] = {1, 0x7fffffff, 0};
  EXPECT_THROW(parse_imatrix(std::as_bytes(std::span(huge)), "huge"), BadFile);
  const std::int32_t many[] = {0x7fffffff, 1, 1, 1};
  EXPECT_THROW(parse_imatrix(std::as_bytes(std::span(many)), "many"), BadFile);
}

}  // namespace
}  // namespace temper::ptq
