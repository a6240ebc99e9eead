#include "ops/cpu/linear.h"

#include "ops/cpu/matmul.h"
#include "ops/cpu/rows.h"

namespace temper::ops::cpu {

void linear(const ExecContext& ctx, Isa isa, const Kernels& kernels, const TensorView& x, std::span<const LinearPart> parts,
            bool accumulate) {
  for (const LinearPart& part : parts) {
    const quant::EncodedView& codes = part.weight.encoded;
    if (x.rows() > kFewRows || !codes.codec) {
      matmul(ctx, isa, kernels, x, part.weight.dense, part.y, {.transpose_b = true, .accumulate = accumulate});
      continue;
    }
    parallel_for(codes.rows, std::max<Index>(1, 65536 / codes.cols), [&](Index begin, Index end) {
      codes.codec->dot_rows(codes.row_range(begin, end), x, part.y.slice_cols(begin, end), accumulate);
    });
  }
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
