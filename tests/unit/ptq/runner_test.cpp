// Block by block over all batches equals batch by batch over all blocks, bit for bit.
#include "ptq/runner.h"

#include <gtest/gtest.h>

#include <cstring>
#include <map>

#include "model/checkpoint_reader.h"
#include "ops/cpu/cpu_backend.h"
#include "ptq/imatrix_collect.h"
#include "random_model.h"
#include "temporary_folder.h"

namespace temper::ptq {
namespace {

/// Every input that was seen, by layer and kind, batches one after another.
class Recorder : public model::Taps {
 public:
  void input(const ExecContext&, int layer, model::LinearInput which, const TensorView& x) override {
    auto& bytes = seen[{layer, which}];
    const auto* data = static_cast<const char*>(x.data);
    bytes.insert(bytes.end(), data, data + x.bytes());
  }
  std::map<std::pair<int, model::LinearInput>, std::vector<char>> seen;
};

class Runner : public ::testing::TestWithParam<DType> {
 protected:
  void SetUp() override { temper::testing::write_random_model(folder_ / "model", {.layers = 3}); }

  std::vector<eval::ModelBatch> batches() const {
    const auto samples = temper::testing::counting_samples(7, 96, 3);
    std::vector<eval::ModelBatch> out;
    for (std::size_t i = 0; i < samples.size(); i += 2)
      out.emplace_back(text::batch_of(std::span(samples).subspan(i, std::min<std::size_t>(2, samples.size() - i))));
    return out;
  }

  temper::testing::TemporaryFolder folder_;
  Arena arena_{std::size_t{1} << 30};
  ExecContext ctx_{&ops::cpu_backend(), &arena_, GetParam()};
};

TEST_P(Runner, EqualsTheWholePassInMemoryAndInAFile) {
  const auto reader = model::CheckpointReader::open(folder_ / "model");
  model::BaseWeights weights(reader, ctx_.compute);
  model::Transformer model(reader.arch(), weights);
  const auto all = batches();
  Recorder whole;
  model.set_taps(&whole);
  for (const eval::ModelBatch& batch : all) {
    std::vector<std::int32_t> rows(batch.view().tokens.size());
    for (std::size_t i = 0; i < rows.size(); ++i) rows[i] = static_cast<std::int32_t>(i);
    model.logits(ctx_, batch.view(), rows, [](std::size_t, const TensorView&) {});
  }
  model.set_taps(nullptr);
  ASSERT_EQ(whole.seen.size(), 3 * model::kBlockInputs + 1u);
  for (const std::size_t limit : {std::size_t{1} << 20, std::size_t{0}}) {
    Recorder layered, again;
    LayerRunner runner(ctx_, model, all, limit);
    EXPECT_EQ(runner.states().in_file(), limit == 0);
    while (runner.layer() < runner.layers()) {
      runner.observe(again);  // changes nothing
      runner.advance(&layered);
    }
    EXPECT_THROW(runner.advance(), LogicError);
    runner.observe_head(layered);
    EXPECT_TRUE(layered.seen == whole.seen);
    whole.seen.erase({-1, model::LinearInput::Head});
    EXPECT_TRUE(again.seen == whole.seen);
    whole.seen[{-1, model::LinearInput::Head}] = layered.seen[{-1, model::LinearInput::Head}];
  }
}

TEST_P(Runner, ImportanceIsTheSumOfSquares) {
  const auto reader = model::CheckpointReader::open(folder_ / "model");
  model::BaseWeights weights(reader, ctx_.compute);
  model::Transformer model(reader.arch(), weights);
  Calibration data;
  data.batches = batches();
  data.sequences = 7;
  for (const auto& batch : data.batches) data.tokens += static_cast<std::int64_t>(batch.view().tokens.size());
  const ImportanceMatrix matrix = collect_importance(ctx_, model, reader.table(), data, 1 << 20, /*head=*/true);
  EXPECT_EQ(matrix.entries.size(), 3 * 7 + 1u);
  Recorder recorder;
  LayerRunner runner(ctx_, model, data.batches, 1 << 20);
  runner.advance(&recorder);
  const auto& bytes = recorder.seen[{0, model::LinearInput::Down}];
  const ImportanceEntry& entry = matrix.entries.at("blk.0.ffn_down.weight");
  const auto cols = entry.sums.size();
  ASSERT_EQ(entry.counts, std::vector<std::int64_t>{data.tokens});
  const std::size_t elements = bytes.size() / dtype_size(ctx_.compute);
  ASSERT_EQ(elements, cols * static_cast<std::size_t>(data.tokens));
  std::vector<double> sums(cols, 0.0);
  for (std::size_t i = 0; i < elements; ++i) {
    float x;
    if (ctx_.compute == DType::BF16) {
      bf16 narrow;
      std::memcpy(&narrow, bytes.data() + i * sizeof(narrow), sizeof(narrow));
      x = to_float(narrow);
    } else {
      std::memcpy(&x, bytes.data() + i * sizeof(x), sizeof(x));
    }
    sums[i % cols] += static_cast<double>(x) * x;
  }
  // n additions of positive numbers in f32: relative error below n · 2^-24, and as much again for the squares.
  for (std::size_t c = 0; c < cols; ++c)
    EXPECT_NEAR(entry.sums[c], sums[c], sums[c] * static_cast<double>(data.tokens + 1) * 0x1p-23) << c;
}

INSTANTIATE_TEST_SUITE_P(Compute, Runner, ::testing::Values(DType::F32, DType::BF16));

}  // namespace
}  // namespace temper::ptq
