// The type of every tensor against llama-quantize's own choices (tools/oracles/make_llama_mixes_golden.py).
#include <gtest/gtest.h>

#include <fstream>
#include <map>
#include <sstream>

#include "quant/scheme.h"

namespace temper::quant {
namespace {

struct Model {
  int layers = 0;
  std::int64_t hidden = 0, intermediate = 0, heads = 0, kv_heads = 0;
  bool tied = false;
};

TensorPlace place_of(const Model& model, const std::string& kind, int layer) {
  static const std::map<std::string, Projection> projections = {
      {"attn_q", Projection::Q},      {"attn_k", Projection::K},      {"attn_v", Projection::V},
      {"attn_output", Projection::O}, {"ffn_gate", Projection::Gate}, {"ffn_up", Projection::Up},
      {"ffn_down", Projection::Down}};
  TensorPlace place;
  place.layers = model.layers;
  place.cols = kind == "ffn_down" ? model.intermediate : model.hidden;
  place.tied = model.tied;
  place.queries_per_key = model.heads / model.kv_heads;
  if (const auto found = projections.find(kind); found != projections.end()) {
    place.projection = found->second;
    place.layer = layer;
  } else {
    place.role = kind == "output" ? Role::Head : Role::Embedding;
  }
  return place;
}

TEST(LlamaMixes, ChooseAsLlamaQuantizeDoes) {
  std::ifstream in(std::string(TEMPER_TEST_DATA) + "/quant/llama_mixes.txt");
  ASSERT_TRUE(in);
  std::vector<std::string> types;
  std::map<std::string, Model> models;
  int compared = 0;
  for (std::string line; std::getline(in, line);) {
    std::istringstream words(line);
    std::string what, name, mix, kind, letters;
    words >> what;
    if (what == "types") {
      while (words >> name) types.push_back(name);
    } else if (what == "model") {
      Model m;
      words >> name >> m.layers >> m.hidden >> m.intermediate >> m.heads >> m.kv_heads >> m.tied;
      models[name] = m;
    } else {
      words >> name >> mix >> kind >> letters;
      for (std::size_t layer = 0; layer < letters.size(); ++layer) {
        const std::string& expected = types.at(static_cast<std::size_t>(letters[layer] - 'a'));
        const Codec* codec = scheme(mix).codec_for(place_of(models.at(name), kind, static_cast<int>(layer)));
        EXPECT_EQ(codec ? codec->name() : "f16", expected) << line << ": layer " << layer;
        ++compared;
      }
    }
  }
  EXPECT_GT(compared, 18 * 7 * (30 + 32 + 80 + 11));
}

/// q, k and v in one matrix (Phi-3), as src/llama-quant.cpp of llama.cpp has it for attn_qkv.
TEST(LlamaMixes, FusedQueriesKeysAndValuesHaveATypeOfTheirOwn) {
  const Model model{32, 512, 768, 8, 2, false};
  const std::map<std::string, std::string> expected = {{"q2_k", "q2_k"},   {"q3_k_s", "q3_k"},  {"q3_k_m", "q4_k"},
                                                       {"q3_k_l", "q4_k"}, {"q4_k_s", "q4_k"},  {"q4_k_m", "q5_k"},
                                                       {"q5_k_s", "q5_k"}, {"q5_k_m", "q6_k"},  {"q6_k", "q6_k"},
                                                       {"q4_0", "q4_0"},   {"iq4_xs", "iq4_xs"}};
  for (const auto& [mix, type] : expected)
    for (const char* kind : {"attn_q", "attn_k", "attn_v"})
      for (const int layer : {0, 20}) {
        TensorPlace place = place_of(model, kind, layer);
        place.fused = true;
        EXPECT_EQ(scheme(mix).codec_for(place)->name(), type) << mix << " " << kind;
      }
}

TEST(LlamaMixes, ImportanceChangesTheFirstLayersOfPlainTypes) {
  const Model model{32, 512, 768, 8, 8, true};
  const auto name = [&](const char* mix, int layer) {
    return scheme(mix).codec_for(place_of(model, "ffn_down", layer), true)->name();
  };
  EXPECT_EQ(name("q4_0", 3), "q4_1");
  EXPECT_EQ(name("q4_0", 4), "q4_0");
  EXPECT_EQ(name("q5_0", 0), "q5_1");
  EXPECT_EQ(name("iq4_xs", 0), "iq4_xs");
  EXPECT_EQ(name("q4_k_s", 0), "q5_k");
}

}  // namespace
}  // namespace temper::quant
