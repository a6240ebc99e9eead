// What a target is refused for, before any work, where parts of one stored matrix meet it.
#include "model/targets.h"

#include <gtest/gtest.h>

#include "adapted_arch.h"
#include "base/error.h"

namespace temper::model {
namespace {

/// Phi-3 whose parts begin at multiples of `head` · 4 rows.
TensorTable phi3(std::int64_t head, std::int64_t mlp) {
  ArchSpec arch = testing::adapted_arch("phi3");
  arch.hidden_size = 128;
  arch.head_dim = head;
  arch.intermediate_size = mlp;
  return TensorTable(arch);
}

std::string refusal(const TensorTable& table, std::string_view target, std::string_view scheme, PartsFit fit) {
  try {
    require_target(target, table, quant::scheme(scheme), DType::BF16, fit);
    return "";
  } catch (const BadRecipe& error) {
    return error.what();
  }
}

TEST(FusedTargets, AreToldOfStoredMatrices) {
  const TensorTable table = phi3(32, 256);
  const WireMatrices all = wire_matrices(table, quant::scheme("w4a16-g32"), DType::BF16);
  std::size_t tensors = 0;
  for (std::size_t i = 0; i < all.matrices.size(); ++i) {
    EXPECT_EQ(all.tensors[i].front(), tensors) << all.matrices[i].name;
    tensors += all.tensors[i].size();
    if (!all.matrices[i].name.ends_with("0.mlp.gate_up_proj.weight")) continue;
    EXPECT_EQ(all.matrices[i].rows, 512);
    EXPECT_EQ(all.tensors[i].size(), 2U);
  }
  EXPECT_EQ(tensors, table.size());
}

TEST(FusedTargets, ParametersOfTheWholeMatrixAreFitWhole) {
  const TensorTable table = phi3(32, 256);
  for (const auto& [target, scheme] :
       {std::pair{"torchao", "nvfp4"}, std::pair{"compressed-tensors", "nvfp4a16"},
        std::pair{"compressed-tensors", "fp8-e4m3-ct-tensor-bf16"}, std::pair{"bitsandbytes", "nf4-dq"}}) {
    EXPECT_EQ(refusal(table, target, scheme, PartsFit::Together), "") << scheme;
    const std::string why = refusal(table, target, scheme, PartsFit::Apart);
    EXPECT_NE(why.find("self_attn.qkv_proj.weight"), std::string::npos) << why;
    EXPECT_NE(why.find("temper quantize"), std::string::npos) << why;
    EXPECT_EQ(why.substr(why.rfind(':')).find(scheme), std::string::npos) << why;
  }
  for (const auto& [target, scheme] : {std::pair{"torchao", "int4-g32"}, std::pair{"compressed-tensors", "w8a8"},
                                       std::pair{"bitsandbytes", "nf4"}, std::pair{"awq", "int4-awq-g32"}})
    EXPECT_EQ(refusal(table, target, scheme, PartsFit::Apart), "") << scheme;
}

TEST(FusedTargets, BlocksOfRowsMayBeFitApartWherePartsBeginWithOne) {
  EXPECT_EQ(refusal(phi3(64, 256), "compressed-tensors", "fp8-block", PartsFit::Apart), "");
  EXPECT_NE(refusal(phi3(48, 256), "compressed-tensors", "fp8-block", PartsFit::Apart), "");
}

TEST(FusedTargets, PartsOfOneMatrixHaveOneFormat) {
  const TensorTable table = phi3(32, 256);
  const std::string why = refusal(table, "torchao", "int4-sym-g32; v_proj: int8-sym", PartsFit::Together);
  for (const char* expected : {"int4-sym-g32", "int8-sym", "q_proj", "v_proj", "qkv_proj"})
    EXPECT_NE(why.find(expected), std::string::npos) << expected << ": " << why;
  EXPECT_NE(refusal(table, "torchao", "none; up_proj: int8-sym", PartsFit::Together).find("16 bit"), std::string::npos);
}

TEST(FusedTargets, PartsOfOneMatrixHaveNoOutputRangesOfTheirOwn) {
  const std::string why =
      refusal(phi3(32, 256), "compressed-tensors", "int8-ctsym-bf16/int8-static-sym/int8-static-asym", PartsFit::Apart);
  EXPECT_NE(why.find("outputs"), std::string::npos) << why;
}

}  // namespace
}  // namespace temper::model
