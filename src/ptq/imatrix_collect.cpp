#include "ptq/imatrix_collect.h"

#include <array>

#include "base/parallel.h"
#include "base/progress.h"
#include "base/scalar.h"
#include "ptq/runner.h"

namespace temper::ptq {
namespace {

/// Σ x² of the columns of each input of one block, or of the head.
class SquareSums final : public model::Taps {
 public:
  void input(const ExecContext&, int, model::LinearInput which, const TensorView& x) override {
    std::vector<float>& sums = sums_[static_cast<std::size_t>(which)];
    sums.resize(static_cast<std::size_t>(x.cols()), 0.0f);
    parallel_for(x.cols(), 64, [&](std::int64_t begin, std::int64_t end) {
      const auto add = [&]<typename T>(const T* data) {
        for (std::int64_t r = 0; r < x.rows(); ++r)
          for (std::int64_t c = begin; c < end; ++c) {
            const float value = to_float(data[r * x.row_stride + c]);
            sums[static_cast<std::size_t>(c)] += value * value;
          }
      };
      if (x.dtype == DType::BF16)
        add(x.as<bf16>());
      else
        add(x.as<float>());
    });
  }
  std::vector<float> take(model::LinearInput which) { return std::exchange(sums_[static_cast<std::size_t>(which)], {}); }

 private:
  std::array<std::vector<float>, model::kBlockInputs + 1> sums_;
};

}  // namespace

ImportanceMatrix collect_importance(const ExecContext& ctx, model::Transformer& model, const model::TensorTable& table,
                                    const Calibration& calibration, std::size_t memory_limit, bool head) {
  ImportanceMatrix matrix;
  matrix.datasets = {calibration.source};
  matrix.chunks = calibration.sequences;
  matrix.chunk_size = calibration.tokens / calibration.sequences;
  LayerRunner runner(ctx, model, calibration.batches, memory_limit);
  SquareSums sums;
  Progress progress("importance", runner.layers());
  const auto put = [&](std::size_t index, std::vector<float> values) {
    matrix.entries[table[index].stored_gguf_name()] = {std::move(values), {runner.tokens()}};
  };
  while (runner.layer() < runner.layers()) {
    const int layer = runner.layer();
    runner.advance(&sums);
    for (const model::Linear l : {model::Linear::Q, model::Linear::O, model::Linear::Gate, model::Linear::Down}) {
      const std::vector<float> values = sums.take(input_of(l));
      for (const model::Linear same : model::kLinears)
        if (input_of(same) == input_of(l)) put(table.linear(layer, same), values);
    }
    progress.update(layer + 1);
  }
  if (head && table.head() != table.embedding()) {
    runner.observe_head(sums);
    put(table.head(), sums.take(model::LinearInput::Head));
  }
  return matrix;
}

}  // namespace temper::ptq
