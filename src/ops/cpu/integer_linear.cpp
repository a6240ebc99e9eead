#include "ops/cpu/integer_linear.h"

#include <algorithm>
#include <vector>

#include "ops/cpu/rows.h"
#include "quant/int_product.h"

namespace temper::ops::cpu {
namespace {

using quant::IntegerInput;

/// x in 8 bits, as each part takes it.
class IntegerInputs {
 public:
  IntegerInputs(const ExecContext& ctx, const TensorView& x, std::span<const LinearPart> parts) : ctx_(ctx) {
    for (const LinearPart& part : parts) {
      if (find(part)) continue;
      const IntegerInput& input = inputs_.emplace_back(workspace(ctx, "linear"), input_rounding(ctx, part.weight), x.rows(),
                                                       x.cols(), minimum_group(part));
      if (is_dry(ctx)) continue;
      for_rows(x.rows(), x.cols(), [&](Index begin, Index end) { input.round(x, begin, end); });
    }
  }
  const IntegerInput& of(const LinearPart& part) const { return *find(part); }

 private:
  static Index minimum_group(const LinearPart& part) {
    return quant::minimum_group(*part.weight.encoded.codec, part.weight.cols());
  }
  /// One with sums serves formats without minima, too.
  const IntegerInput* find(const LinearPart& part) const {
    const Index group = minimum_group(part);
    for (const IntegerInput& input : inputs_)
      if (input.format == input_rounding(ctx_, part.weight) && (group == 0 || group == input.sum_group)) return &input;
    return nullptr;
  }

  const ExecContext& ctx_;
  std::vector<IntegerInput> inputs_;
};

}  // namespace

void integer_linear(const ExecContext& ctx, const TensorView& x, std::span<const LinearPart> parts, bool accumulate) {
  const ArenaScope scope(workspace(ctx, "linear"));
  const IntegerInputs inputs(ctx, x, parts);
  if (is_dry(ctx)) return;
  const Index panel_rows = quant::integer_panel_rows();
  const auto panels_of = [&](const LinearPart& part) { return (part.weight.rows() + panel_rows - 1) / panel_rows; };
  Index panels = 0;
  for (const LinearPart& part : parts) panels += panels_of(part);
  // All parts' panels one after the other, for some rows of x: all of them, unless panels are too few for the threads.
  const Index cuts = std::clamp<Index>(4 * num_threads() / std::max<Index>(panels, 1), 1, (x.rows() + 127) / 128);
  const auto compute = [&](Index begin, Index end, Index first_row, Index last_row) {
    Index first = 0;
    for (const LinearPart& part : parts) {
      const Index last = first + panels_of(part);
      if (begin < last && end > first) {
        const Index row = (std::max(begin, first) - first) * panel_rows;
        const Index row_end = std::min((std::min(end, last) - first) * panel_rows, part.weight.rows());
        const quant::EncodedView& codes = part.weight.encoded;
        quant::integer_product({codes.codec, row_end - row, codes.cols, codes.row_range(row, row_end)}, inputs.of(part),
                               first_row, last_row, part.y.slice_rows(first_row, last_row).slice_cols(row, row_end),
                               accumulate);
      }
      first = last;
    }
  };
  constexpr Index kGrain = 65536;  // weights worth a thread
  parallel_for(panels * cuts, std::max<Index>(1, kGrain / (panel_rows * x.cols())), [&](Index begin, Index end) {
    while (begin < end) {
      const Index cut = begin / panels, panel = begin % panels, count = std::min(panels - panel, end - begin);
      compute(panel, panel + count, x.rows() * cut / cuts, x.rows() * (cut + 1) / cuts);
      begin += count;
    }
  });
}

}  // namespace temper::ops::cpu
