// Costs of formats are what a model with that one tensor in that format is measured to cost; mixes made of them are worth
// their bytes; what was measured is kept.
#include "ptq/sensitivity.h"

#include <gtest/gtest.h>

#include <cmath>
#include <nlohmann/json.hpp>

#include "base/atomic_file.h"
#include "model/checkpoint_reader.h"
#include "ops/cpu/cpu_backend.h"
#include "random_model.h"
#include "temporary_folder.h"

namespace temper::ptq {
namespace {

using temper::testing::RandomModel;

struct Measured : public ::testing::Test {
  void open(const RandomModel& shape) {
    temper::testing::write_random_model(folder / "model", shape);
    reader.emplace(model::CheckpointReader::open(folder / "model"));
    base.emplace(*reader, ctx.compute, model::Hold::Expanded);
    samples = temper::testing::counting_samples(12, shape.vocab, 3);
    for (const char* name : {"int2-sym-g32", "int3-sym-g32", "int4-sym-g32", "int8-sym-g32", "q4_k"})
      options.codecs.push_back(quant::find_codec(name));
  }
  Sensitivity measure() { return measure_sensitivity(ctx, *base, reader->arch(), samples, options); }
  double kld(std::span<const quant::Codec* const> codecs) {
    return measure_mix(ctx, *base, reader->arch(), codecs, samples, {}).kld.value;
  }

  temper::testing::TemporaryFolder folder;
  Arena arena{std::size_t{1} << 30};
  ExecContext ctx{&ops::cpu_backend(), &arena, DType::F32};
  std::optional<model::CheckpointReader> reader;
  std::optional<model::BaseWeights> base;
  std::vector<text::Sample> samples;
  SensitivityOptions options;
};

TEST_F(Measured, EveryCostIsThatOfTheModelWithOneTensorInAFormat) {
  for (const bool tied : {false, true}) {
    options.codecs.clear();
    open({.layers = 3, .tied = tied});
    const Sensitivity found = measure();
    EXPECT_EQ(found.layer_groups, 3);
    ASSERT_EQ(found.tensors.size(), tied ? 22u : 23u);
    for (const TensorCosts& tensor : found.tensors) {
      ASSERT_EQ(tensor.types.size(), 5u);  // rows of 64 and 96: no q4_k
      for (const TypeCost& type : tensor.types) {
        std::vector<const quant::Codec*> codecs(reader->table().size(), nullptr);
        codecs[tensor.tensor] = type.codec;
        const double expected = type.codec ? kld(codecs) : 0.0;
        // Exponentials in f32 and in double.
        EXPECT_NEAR(type.choice.cost, expected, 1e-4 * expected + 1e-8)
            << reader->table()[tensor.tensor].hf_name << " in " << (type.codec ? type.codec->name() : "16 bit");
      }
    }
  }
}

TEST_F(Measured, LayersAreMeasuredTogetherWhereTimeIsShort) {
  open({.layers = 4});
  options.minutes = 1e-9;
  const Sensitivity found = measure();
  EXPECT_EQ(found.layer_groups, 1);
  // What the group costs is shared out: its sum is that of the model with all of it in the format.
  std::vector<const quant::Codec*> codecs(reader->table().size(), nullptr);
  double sum = 0.0;
  for (const TensorCosts& tensor : found.tensors) {
    if (reader->table()[tensor.tensor].place.projection != quant::Projection::Up) continue;
    EXPECT_GT(tensor.types[1].choice.cost, 0.0);
    sum += tensor.types[1].choice.cost;
    codecs[tensor.tensor] = tensor.types[1].codec;
  }
  const double expected = kld(codecs);
  EXPECT_NEAR(sum, expected, 1e-4 * expected);
}

TEST_F(Measured, AMixIsWorthItsBytes) {
  open({.layers = 4});
  const Sensitivity found = measure();
  const Frontier frontier(found.choices());
  for (const quant::Codec* uniform : {options.codecs[1], options.codecs[2]}) {
    std::vector<const quant::Codec*> codecs(reader->table().size(), nullptr);
    std::uint64_t bytes = 0;
    for (const TensorCosts& tensor : found.tensors)
      for (const TypeCost& type : tensor.types)
        if (type.codec == uniform) {
          codecs[tensor.tensor] = uniform;
          bytes += type.choice.bytes;
        }
    const Allocation mix = frontier.within(bytes);
    EXPECT_LE(mix.bytes, bytes);
    EXPECT_LE(kld(codecs_of(found, mix, reader->table().size())), kld(codecs)) << uniform->name();
  }
}

TEST_F(Measured, IsKeptAndMeasuredAnewWhereItIsOfSomethingElse) {
  open({.layers = 2});
  const auto cache = folder / "kept.json";
  const auto cached = [&] { return cached_sensitivity(ctx, *base, reader->arch(), samples, options, cache); };
  const Sensitivity first = cached();
  const auto spoil = [&](auto&& change) {
    nlohmann::ordered_json json = nlohmann::ordered_json::parse(read_file(cache));
    change(json);
    write_file(cache, json.dump());
  };
  // A figure of its own shows where the file was believed.
  const auto mark = [](nlohmann::ordered_json& json) { json["tokens"] = 12345; };
  spoil(mark);
  EXPECT_EQ(cached().tokens, 12345);
  options.minutes = 5;  // every tensor is alone: more time changes nothing
  EXPECT_EQ(cached().tokens, 12345);
  spoil([](auto& json) { json["layer_groups"] = 1; });
  EXPECT_EQ(cached().tokens, first.tokens);
  spoil(mark);
  spoil([](auto& json) { json.erase("version"); });  // as the first version wrote it
  EXPECT_EQ(cached().tokens, first.tokens);
  spoil(mark);
  options.codecs.pop_back();
  EXPECT_EQ(cached().tokens, first.tokens);
}

}  // namespace
}  // namespace temper::ptq
