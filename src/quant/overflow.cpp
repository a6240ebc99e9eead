#include "quant/overflow.h"

#include "base/error.h"

namespace temper::quant {

std::string overflow_of(const EncodedView& encoded, std::string_view name, std::int64_t first_row) {
  if (!encoded.codec) return "";
  const std::int64_t row = encoded.codec->first_overflow(encoded.bytes, encoded.rows, encoded.cols);
  if (row < 0) return "";
  return fmt::format(
      "{}: row {}: its weights are so large that {} cannot store their scale or minimum; take a format whose scales are "
      "bf16 "
      "or f32 (int4-sym-g32, int8-sym), or leave the tensor in 16 bits (\"; {}: none\" behind the scheme)",
      name, first_row + row, encoded.codec->name(), name);
}

void require_no_overflow(const EncodedView& encoded, std::string_view name, std::int64_t first_row) {
  if (const std::string why = overflow_of(encoded, name, first_row); !why.empty()) throw Unsupported("{}", why);
}

}  // namespace temper::quant
