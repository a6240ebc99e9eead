// A weight too large for the scales of a format is refused by name, by every verb and method, before anything is written.
#include <gtest/gtest.h>

#include "eval/loaded_model.h"
#include "export/export.h"
#include "tiny_model.h"
#include "train_fixture.h"

namespace temper {
namespace {

namespace fs = std::filesystem;

constexpr const char* kTensor = "model.layers.1.mlp.down_proj.weight";

struct Large : testing::TinyRun {
  testing::CpuContext cpu;
  explicit Large(const std::string& scheme)
      : testing::TinyRun({.vocab = 80, .hidden = 128, .intermediate = 256, .poison = 1e9f}, scheme) {
    testing::write_tiny_tokenizer(recipe.model.path);
  }
};

/// The message of the error, which is to be of that kind.
template <typename Kind, typename Action>
std::string message_of(Action&& action) {
  try {
    action();
  } catch (const Kind& error) {
    return error.what();
  }
  return "";
}

void expect_named(const std::string& message, const std::string& what) {
  for (const char* part : {kTensor, "row 0"}) EXPECT_NE(message.find(part), std::string::npos) << what << ": " << message;
}

TEST(Overflow, IsRefusedByName) {
  for (const auto& [scheme, target] :
       {std::pair{"q4_0", "gguf:q4_0"}, std::pair{"q4_k_m", "gguf:q4_k_m"}, std::pair{"int4-gptq-g32", "gptq"},
        std::pair{"int4-awq-g32", "gptq-v2"}, std::pair{"int8-ctasym-g32-f16", "gptq-v2"}}) {
    Large large(scheme);
    recipe::Recipe quantize = large.to("out");
    quantize.exporting.to = target;
    expect_named(message_of<Unsupported>([&] { exporter::quantize(large.cpu.ctx, quantize); }), scheme);
    EXPECT_FALSE(fs::exists(quantize.out)) << scheme;
    expect_named(message_of<Unsupported>([&] { eval::LoadedModel::open(large.cpu.ctx, large.recipe.model.path, scheme); }),
                 scheme);
    expect_named(message_of<Diverged>([&] { train::train(large.cpu.ctx, large.recipe, large.data); }), scheme);
  }
}

TEST(Overflow, FormatsThatReachAsFarTakeIt) {
  Large large("int4-sym-g32-bf16");
  recipe::Recipe quantize = large.to("out");
  quantize.exporting.to = "torchao";
  EXPECT_NO_THROW(exporter::quantize(large.cpu.ctx, quantize));
}

}  // namespace
}  // namespace temper
