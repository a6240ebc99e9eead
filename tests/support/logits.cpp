// logits MODEL ID…: what eval's model answers to these tokens, in f32 arithmetic; a line of numbers for each token. For
// tests that compare with other programs' logits.
#include <cstdlib>
#include <iostream>
#include <numeric>

#include "api/engine.h"
#include "eval/loaded_model.h"

int main(int count, char** words) {
  using namespace temper;
  std::vector<std::int32_t> ids;
  for (int i = 2; i < count; ++i) ids.push_back(std::atoi(words[i]));
  if (ids.empty()) return 2;
  try {
    recipe::RuntimeOptions options;
    options.compute = recipe::Compute::F32;
    const api::Engine engine(options);
    const auto model = eval::LoadedModel::open(engine.context(), words[1]);
    const auto length = static_cast<std::int32_t>(ids.size());
    std::vector<std::int32_t> positions(ids.size());
    std::iota(positions.begin(), positions.end(), 0);
    const std::vector<std::int32_t> none(ids.size(), -1);
    const ops::AttentionSpan span{0, length, 0, length};
    model->transformer().logits(engine.context(), {ids, positions, none, {&span, 1}}, positions,
                                [](std::size_t, const TensorView& logits) {
                                  for (std::int64_t row = 0; row < logits.rows(); ++row) {
                                    for (const float x : logits.slice_rows(row, row + 1).span<float>())
                                      std::cout << x << ' ';
                                    std::cout << '\n';
                                  }
                                });
  } catch (const std::exception& error) {
    std::cerr << error.what() << '\n';
    return 1;
  }
}
