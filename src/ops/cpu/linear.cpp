#include "ops/cpu/linear.h"

#include <algorithm>
#include <vector>

#include "ops/cpu/integer_linear.h"
#include "ops/cpu/matmul.h"
#include "ops/cpu/rows.h"
#include "quant/activations.h"

namespace temper::ops::cpu {
namespace {

/// The activations as each part takes them: x itself, or copies of it, one for each rounding that occurs.
class Inputs {
 public:
  Inputs(const ExecContext& ctx, const TensorView& x, std::span<const LinearPart> parts) : ctx_(ctx) {
    inputs_.push_back({{}, x});
    for (const LinearPart& part : parts) {
      const quant::InputFormat rounding = input_rounding(ctx, part.weight);
      if (find(rounding)) continue;
      const TensorView input = workspace(ctx, "linear").allocate(x.dtype, Shape{x.rows(), x.cols()});
      if (!is_dry(ctx)) round_activations(x, rounding, input);
      inputs_.push_back({rounding, input});
    }
  }
  const TensorView& of(const LinearPart& part) const { return *find(input_rounding(ctx_, part.weight)); }

 private:
  struct Input {
    quant::InputFormat rounding;
    TensorView x;
  };
  const TensorView* find(const quant::InputFormat& rounding) const {
    const auto input = std::ranges::find(inputs_, rounding, &Input::rounding);
    return input == inputs_.end() ? nullptr : &input->x;
  }

  const ExecContext& ctx_;
  std::vector<Input> inputs_;
};

/// Rows [begin, end) of one part's weight.
void few_rows(const Kernels& kernels, const TensorView& x, const LinearPart& part, bool accumulate, Index begin, Index end) {
  const quant::EncodedView& codes = part.weight.encoded;
  if (codes.codec)
    codes.codec->dot_rows(codes.row_range(begin, end), x, part.y.slice_cols(begin, end), accumulate);
  else
    kernels.few_rows_product(rows_of(x), rows_of(part.weight.dense), rows_of(part.y), x.rows(), x.cols(), 1.0f, accumulate,
                             begin, end);
}

}  // namespace

void linear(const ExecContext& ctx, Isa isa, const Kernels& kernels, const TensorView& x, std::span<const LinearPart> parts,
            bool accumulate) {
  const auto integers = [&](const LinearPart& part) { return multiplies_integers(ctx, part.weight); };
  const auto some = std::ranges::count_if(parts, integers);
  if (some == std::ssize(parts)) return integer_linear(ctx, x, parts, accumulate);
  if (some > 0) {  // as in a mix of formats
    for (const LinearPart& part : parts) linear(ctx, isa, kernels, x, {&part, 1}, accumulate);
    return;
  }
  const ArenaScope scope(workspace(ctx, "linear"));
  const Inputs inputs(ctx, x, parts);
  if (x.rows() > kFewRows) {
    for (const LinearPart& part : parts)
      matmul(ctx, isa, kernels, inputs.of(part), part.weight.dense, part.y, {.transpose_b = true, .accumulate = accumulate});
    return;
  }
  if (is_dry(ctx)) return;
  // All parts' rows one after the other: threads meet once.
  Index rows = 0;
  for (const LinearPart& part : parts) rows += part.weight.rows();
  constexpr Index kGrain = 65536;  // weights worth a thread
  parallel_for(rows, std::max<Index>(1, kGrain / x.cols()), [&](Index begin, Index end) {
    Index first = 0;
    for (const LinearPart& part : parts) {
      const Index last = first + part.weight.rows();
      if (begin < last && end > first)
        few_rows(kernels, inputs.of(part), part, accumulate, std::max(begin, first) - first, std::min(end, last) - first);
      first = last;
    }
  });
}

void round_activations(const TensorView& x, const quant::InputFormat& rounding, const TensorView& out) {
  for_rows(x.rows(), x.cols(), [&](Index begin, Index end) {
    const TensorView in = x.slice_rows(begin, end), rounded = out.slice_rows(begin, end);
    if (rounding.codec)
      quant::round_activations(*rounding.codec, in, rounded, rounding.range);
    else
      quant::round_activations(rounding.grid, in, rounded);
  });
}

void embedding(const ExecContext& ctx, const Kernels& kernels, const Weight& table, std::span<const std::int32_t> tokens,
               const TensorView& out) {
  for_rows(out.rows(), out.cols(), [&](Index begin, Index end) {
    for (Index r = begin; r < end; ++r) {
      const Index token = tokens[static_cast<std::size_t>(r)];
      if (table.dense) {
        kernels.convert(rows_of(table.dense, token), rows_of(out, r), 1, out.cols());
        continue;
      }
      const TensorView row(rows_of(out, r).data, DType::F32, Shape{1, out.cols()});
      table.encoded.codec->decode_rows(table.encoded.row_range(token, token + 1), row);
      if (ctx.compute != DType::BF16) continue;
      for (float& value : row.span<float>()) value = to_float(to_bf16(value));
    }
  });
}

}  // namespace temper::ops::cpu
