// Adapters that begin as a part of the weights, and the base that is rounded less an adapter.
#include "train/lora_init.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

#include "eval/loaded_model.h"
#include "eval/score.h"
#include "jacobi.h"
#include "model/base_format.h"
#include "model/peft.h"
#include "quant/scheme.h"
#include "tiny_model.h"
#include "train/run_folder.h"
#include "train_fixture.h"

namespace temper::train {
namespace {

using testing::CpuContext;
using testing::slurp;
using testing::TinyRun;

constexpr const char* kFormat = "int4-asym-g32";
constexpr std::int64_t kRank = 4;

/// A run that learns nothing, so that its adapter is what it began with; s = 5.
recipe::Recipe beginning(const TinyRun& tiny, const std::string& name, recipe::LoraInit init, std::int64_t iterations = 1) {
  recipe::Recipe recipe = tiny.to(name);
  recipe.model.base_format = kFormat;
  recipe.lora.init = init;
  recipe.lora.loftq_iterations = iterations;
  recipe.lora.alpha = 20;
  recipe.optim.lr = 0;
  recipe.optim.warmup_steps = 0;
  recipe.train.steps = 1;
  return recipe;
}

std::vector<double> doubles(const Tensor& tensor) {
  const auto values = tensor.span<const float>();
  return {values.begin(), values.end()};
}

std::vector<double> minus(std::vector<double> x, const std::vector<double>& y) {
  for (std::size_t i = 0; i < x.size(); ++i) x[i] -= y[i];
  return x;
}

double squares(const std::vector<double>& x) {
  double sum = 0;
  for (const double v : x) sum += v * v;
  return sum;
}

/// The tensors of an adapter's folder; what its header says of the base may differ.
std::string tensors_of(const std::filesystem::path& folder) {
  const std::string bytes = slurp(folder / "adapter_model.safetensors");
  std::uint64_t header = 0;
  std::memcpy(&header, bytes.data(), sizeof header);
  return bytes.substr(sizeof header + header);
}

/// s·B·A by the definition.
std::vector<double> product(const model::Adapters::Entry& entry) {
  const auto a = entry.a.span<const float>(), b = entry.b.span<const float>();
  const std::size_t cols = static_cast<std::size_t>(entry.a.cols()), r = static_cast<std::size_t>(entry.a.rows());
  std::vector<double> out(static_cast<std::size_t>(entry.b.rows()) * cols);
  for (std::size_t i = 0; i < out.size(); ++i)
    for (std::size_t k = 0; k < r; ++k)
      out[i] += static_cast<double>(entry.scale) * static_cast<double>(b[i / cols * r + k]) *
                static_cast<double>(a[k * cols + i % cols]);
  return out;
}

Tensor read(const model::CheckpointReader& reader, std::size_t index) {
  Tensor out(DType::F32, reader.table()[index].shape);
  reader.read(index, out);
  return out;
}

/// ‖W − base − s·B·A‖² of every adapted matrix, and the least that its rank allows.
struct Left {
  double found, best, all;
};
std::vector<Left> left(const std::filesystem::path& run, const model::CheckpointReader& original,
                       const model::CheckpointReader& base) {
  std::vector<Left> out;
  const model::Adapters adapters = model::load_peft(original.table(), run / kAdapterFolder);
  for (const auto& entry : adapters.entries()) {
    const auto lost = minus(doubles(read(original, entry.tensor)), doubles(read(base, entry.tensor)));
    const auto values = testing::singular_values(lost, static_cast<std::size_t>(entry.a.cols()));
    out.push_back({squares(minus(lost, product(entry))), testing::squares_from(values, kRank), squares(lost)});
  }
  return out;
}

/// With the adapter, the base is as near to the 16-bit weights as its rank allows, whatever the scale.
TEST(LoftQ, BeginsAtTheNearest) {
  TinyRun tiny;
  CpuContext cpu;
  const TrainResult result = train(cpu.ctx, beginning(tiny, "run", recipe::LoraInit::LoftQ), tiny.data);
  const auto original = model::CheckpointReader::open(tiny.recipe.model.path);
  const auto rounded = model::open_base(cpu.ctx, tiny.recipe.model.path, kFormat);
  for (const Left& matrix : left(result.run, original, rounded)) {
    EXPECT_GT(matrix.all, 0);
    EXPECT_LE(matrix.found, matrix.best + 1e-3 * matrix.all);
    EXPECT_LT(matrix.found, 0.9 * matrix.all);
  }
  EXPECT_FALSE(std::filesystem::exists(result.run / model::kStartFolder));
}

/// The base of iteration n is rounded less the adapter of iteration n − 1, and the adapter is the nearest to what that lost;
/// together they are never further from the weights than after the first.
TEST(LoftQ, Alternates) {
  TinyRun tiny;
  CpuContext cpu;
  const auto original = model::CheckpointReader::open(tiny.recipe.model.path);
  std::vector<Left> first;
  for (std::int64_t n = 1; n <= 4; ++n) {
    const std::string name = "run-" + std::to_string(n);
    const TrainResult result = train(cpu.ctx, beginning(tiny, name, recipe::LoraInit::LoftQ, n), tiny.data);
    const std::filesystem::path start = result.run / model::kStartFolder;
    if (n > 1) {
      EXPECT_EQ(tensors_of(start), tensors_of(tiny.folder / ("run-" + std::to_string(n - 1)) / kAdapterFolder)) << n;
    }
    const auto base = model::open_base(cpu.ctx, tiny.recipe.model.path, kFormat, n > 1 ? start : std::filesystem::path());
    EXPECT_EQ(model::base_checksum(base), result.info.base_checksum);
    const std::vector<Left> matrices = left(result.run, original, base);
    for (std::size_t i = 0; i < matrices.size(); ++i) {
      EXPECT_LE(matrices[i].found, matrices[i].best + 1e-3 * matrices[i].all);
      if (n > 1) {
        EXPECT_LE(matrices[i].found, first[i].found) << n;
      }
    }
    if (n == 1) first = matrices;
  }
}

/// s·B·A is the nearest to the weights of its rank, and shares the root of each singular value out to A and B, as peft's
/// pissa_init does; the decomposition's own bound (low_rank_approximation_test.cpp).
TEST(Pissa, BeginsAsThePrincipalComponents) {
  TinyRun tiny;
  CpuContext cpu;
  const TrainResult result = train(cpu.ctx, beginning(tiny, "run", recipe::LoraInit::Pissa), tiny.data);
  const auto original = model::CheckpointReader::open(tiny.recipe.model.path);
  const model::Adapters adapters = model::load_peft(original.table(), result.run / kAdapterFolder);
  for (const auto& entry : adapters.entries()) {
    const std::vector<double> weights = doubles(read(original, entry.tensor));
    const auto values = testing::singular_values(weights, static_cast<std::size_t>(entry.a.cols()));
    EXPECT_LE(squares(minus(weights, product(entry))), testing::squares_from(values, kRank) + 1e-4 * squares(weights));
    for (std::int64_t r = 0; r < kRank; ++r) {
      double of_a = 0, of_b = 0;
      for (std::int64_t k = 0; k < entry.a.cols(); ++k) of_a += std::pow(entry.a.as<float>()[r * entry.a.cols() + k], 2);
      for (std::int64_t n = 0; n < entry.b.rows(); ++n) of_b += std::pow(entry.b.as<float>()[n * kRank + r], 2);
      EXPECT_NEAR(of_a, values[static_cast<std::size_t>(r)] / 5, 1e-2 * values[0] / 5);
      EXPECT_NEAR(of_b, of_a, 1e-4 * of_a);
    }
  }
}

/// The base is what W − s·B·A rounds to: summed in f32, rank ascending, it is within the bound of such a sum of the
/// definition in double, and its codes are the base's.
TEST(Pissa, RoundsTheRest) {
  TinyRun tiny;
  CpuContext cpu;
  const TrainResult result = train(cpu.ctx, beginning(tiny, "run", recipe::LoraInit::Pissa), tiny.data);
  const auto original = model::CheckpointReader::open(tiny.recipe.model.path);
  const std::filesystem::path start = result.run / model::kStartFolder;
  EXPECT_EQ(tensors_of(start), tensors_of(result.run / kAdapterFolder));
  const auto base = model::open_base(cpu.ctx, tiny.recipe.model.path, kFormat, start);
  const quant::Codec& codec = *quant::scheme(kFormat).linear;
  const model::Adapters adapters = model::load_peft(original.table(), start);
  ASSERT_FALSE(adapters.entries().empty());
  for (const auto& entry : adapters.entries()) {
    const Tensor weights = read(original, entry.tensor), rest = read(original, entry.tensor);
    const std::size_t cols = static_cast<std::size_t>(entry.a.cols());
    const std::vector<double> all = doubles(weights), part = product(entry);
    constexpr double kEps = std::numeric_limits<float>::epsilon();
    for (std::size_t i = 0; i < all.size(); ++i) {
      float sum = 0;
      double sizes = std::abs(all[i]);
      for (std::int64_t r = 0; r < kRank; ++r) {
        const float term = entry.b.as<float>()[static_cast<std::int64_t>(i / cols) * kRank + r] *
                           entry.a.as<float>()[r * static_cast<std::int64_t>(cols) + static_cast<std::int64_t>(i % cols)];
        sum += term;
        sizes += std::abs(5.0 * static_cast<double>(term));
      }
      float& value = rest.span<float>()[i];
      value = weights.span<const float>()[i] + -5.0f * sum;
      // A product, at most four sums of these, one product and a sum: at most seven roundings of what is no larger than
      // sizes.
      EXPECT_NEAR(static_cast<double>(value), all[i] - part[i], 7 * kEps / 2 * sizes);
    }
    std::vector<std::byte> codes(static_cast<std::size_t>(entry.b.rows()) * codec.row_bytes(entry.a.cols()));
    codec.encode_rows(rest, codes);
    EXPECT_TRUE(std::ranges::equal(codes, base.stored(entry.tensor).encoded.bytes))
        << original.table()[entry.tensor].hf_name;
  }
}

/// A run is the same model when it is opened again, and refuses a base that is not the one it was trained on.
TEST(LoraInit, OpensTheSameBaseAgain) {
  for (const recipe::LoraInit init : {recipe::LoraInit::Pissa, recipe::LoraInit::LoftQ})
    for (const char* scheme : {"none", "q4_0"}) {
      TinyRun tiny({}, scheme);
      CpuContext cpu;
      tiny.recipe.model.base_format = kFormat;
      tiny.recipe.lora.init = init;
      tiny.recipe.lora.loftq_iterations = init == recipe::LoraInit::LoftQ ? 3 : 1;
      const TrainResult result = train(cpu.ctx, tiny.recipe, tiny.data);
      testing::write_tiny_tokenizer(tiny.folder / "model");
      const auto reopened = eval::LoadedModel::open(cpu.ctx, result.run);
      double nll = 0;
      std::int64_t tokens = 0;
      for (const auto& score : eval::score_samples(cpu.ctx, reopened->transformer(), tiny.data.held_out))
        nll += score.nll, tokens += score.tokens;
      EXPECT_EQ(nll / static_cast<double>(tokens), result.held_out->nll) << scheme;

      const std::filesystem::path weights = result.run / model::kStartFolder / "adapter_model.safetensors";
      std::string bytes = slurp(weights);
      bytes[bytes.size() - 2] = static_cast<char>(bytes[bytes.size() - 2] ^ 0x40);  // a high bit of the last B
      testing::spill(weights, bytes);
      EXPECT_THROW(eval::LoadedModel::open(cpu.ctx, result.run), VerifyFailed);
      EXPECT_THROW(train(cpu.ctx, tiny.resuming("run"), tiny.data), Error);
      std::filesystem::remove(weights);
      EXPECT_THROW(eval::LoadedModel::open(cpu.ctx, result.run), BadFile);
    }
}

TEST(LoraInit, RefusesWhatCannotBe) {
  TinyRun tiny;
  CpuContext cpu;
  recipe::Recipe partly = beginning(tiny, "partly", recipe::LoraInit::Pissa);
  partly.model.base_format = std::string(kFormat) + "; v_proj: none";
  EXPECT_THROW(train(cpu.ctx, partly, tiny.data), BadRecipe);
  partly.lora.target_modules = {"q_proj", "down_proj"};
  EXPECT_EQ(train(cpu.ctx, partly, tiny.data).info.lora_init, "pissa");
  // Its adapter belongs to its own base alone.
  recipe::Recipe next = tiny.to("next");
  next.model.base_format = kFormat;
  next.lora.adapter_any_base = true;
  for (const char* path : {"partly", "partly/adapter", "partly/adapter/"}) {
    next.lora.adapter = (tiny.folder / path).string();
    EXPECT_THROW(train(cpu.ctx, next, tiny.data), BadRecipe) << path;
  }
}

}  // namespace
}  // namespace temper::train
