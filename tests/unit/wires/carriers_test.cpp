// What wires say of schemes, and the matrix in docs/wires.md.
#include "wires/carriers.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <iterator>

namespace temper::wires {
namespace {

bool carries(std::string_view target, std::string_view scheme) {
  const auto names = schemes_of(target);
  return std::ranges::find(names, scheme) != names.end();
}

TEST(Carriers, TorchaoCarriesWhatItsUsersKnow) {
  for (const char* name :
       {"int4", "int4-g32", "int8", "int8-int4", "int8-int8", "fp8-int4", "fp8-fp8", "mxfp8", "cactus", "mxfp4", "nvfp4"})
    EXPECT_TRUE(carries("torchao", name)) << name << ": " << refusal(*find_wire("torchao"), quant::scheme(name));
  for (const char* name : {"nf4", "q4_0", "q4_k_m"}) EXPECT_FALSE(carries("torchao", name)) << name;
}

TEST(Carriers, TargetsAndRefusalsAgree) {
  for (const quant::Scheme& scheme : quant::schemes()) {
    const auto targets = targets_of(scheme);
    for (const Wire* wire : wires())
      EXPECT_EQ(std::ranges::find(targets, wire->name()) != targets.end(), refusal(*wire, scheme).empty()) << scheme.name;
    for (const std::string& target : targets) {
      EXPECT_TRUE(carries(target, scheme.name)) << target;
      EXPECT_FALSE(readers_of(target).empty());
    }
  }
}

TEST(Carriers, TheMatrixInTheDocsIsCurrent) {
  std::ifstream file(std::filesystem::path(TEMPER_TEST_DATA) / "../../docs/wires.md");
  const std::string docs{std::istreambuf_iterator<char>(file), {}};
  EXPECT_NE(docs.find(matrix_markdown()), std::string::npos) << "docs/wires.md: put this in place of its matrix:\n"
                                                             << matrix_markdown();
}

}  // namespace
}  // namespace temper::wires
