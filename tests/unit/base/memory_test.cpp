// What the process has in memory, and reading files without keeping them there.
#include <gtest/gtest.h>
#include <sys/mman.h>

#include <cstring>
#include <string>

#include "base/checksum.h"
#include "base/error.h"
#include "base/resident_memory.h"
#include "temporary_folder.h"

namespace temper {
namespace {

constexpr std::size_t kBytes = std::size_t{32} << 20;

void touch_and_free() {
  void* memory = ::mmap(nullptr, kBytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  ASSERT_NE(memory, MAP_FAILED);
  std::memset(memory, 1, kBytes);
  EXPECT_GE(resident_bytes(), kBytes);
  ::munmap(memory, kBytes);
}

TEST(ResidentMemory, ThePeakStaysUntilItBeginsAnew) {
  reset_peak_resident();
  const std::size_t before = peak_resident_bytes();
  touch_and_free();
  EXPECT_GE(peak_resident_bytes(), before + kBytes * 9 / 10);
  reset_peak_resident();
  EXPECT_LT(peak_resident_bytes(), before + kBytes / 2);
}

TEST(Checksum, OfAFileIsThatOfItsBytes) {
  testing::TemporaryFolder folder;
  std::string text((std::size_t{5} << 20) + 123, 'a');
  for (std::size_t i = 0; i < text.size(); i += 97) text[i] = static_cast<char>(i);
  testing::spill(folder / "file", text);
  std::size_t size = 0;
  EXPECT_EQ(checksum_of_file(folder / "file", &size), checksum_of(text));
  EXPECT_EQ(size, text.size());
  EXPECT_THROW(checksum_of_file(folder / "none"), BadFile);
}

TEST(Checksum, OfAFileKeepsLittleOfItInMemory) {
  testing::TemporaryFolder folder;
  testing::spill(folder / "file", std::string(kBytes, 'x'));
  reset_peak_resident();
  const std::size_t before = peak_resident_bytes();
  checksum_of_file(folder / "file");
  EXPECT_LT(peak_resident_bytes(), before + kBytes / 4);
}

}  // namespace
}  // namespace temper
