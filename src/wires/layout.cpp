#include "wires/layout.h"

#include "base/error.h"

namespace temper::wires {

std::string module_of(const Matrix& matrix) {
  constexpr std::string_view kSuffix = ".weight";
  if (!matrix.name.ends_with(kSuffix)) throw LogicError("{}: no weight of a module", matrix.name);
  return matrix.name.substr(0, matrix.name.size() - kSuffix.size());
}

DType scale_dtype(quant::ScaleType type) {
  switch (type) {
    case quant::ScaleType::F32: return DType::F32;
    case quant::ScaleType::BF16: return DType::BF16;
    case quant::ScaleType::F16: return DType::F16;
    case quant::ScaleType::E4M3: return DType::F8E4M3;
    default: return DType::U8;
  }
}

std::optional<quant::ScaleType> scale_type(DType dtype) {
  switch (dtype) {
    case DType::F32: return quant::ScaleType::F32;
    case DType::BF16: return quant::ScaleType::BF16;
    case DType::F16: return quant::ScaleType::F16;
    default: return std::nullopt;
  }
}

std::string torch_name(DType dtype) {
  switch (dtype) {
    case DType::F32: return "float32";
    case DType::BF16: return "bfloat16";
    case DType::F16: return "float16";
    default: throw LogicError("no dtype of weights: {}", dtype_name(dtype));
  }
}

const quant::Codec* integer_codec(std::int64_t bits, bool symmetric, std::int64_t group, quant::ScaleType scale) {
  std::string name = fmt::format("int{}-{}", bits, symmetric ? "ctsym" : "ctasym");
  if (group > 0) name += fmt::format("-g{}", group);
  if (scale == quant::ScaleType::BF16) name += "-bf16";
  if (scale == quant::ScaleType::F16) name += "-f16";
  return quant::find_codec(name);
}

bool is_affine(const quant::ScaledFormat& format) { return format.integer() && format.mapping != quant::Mapping::Tinygemm; }

void require_fit(const Matrix& matrix, const quant::Codec& codec) {
  if (!codec.fits(matrix.cols))
    throw Unsupported("{}: rows of {} elements are no multiple of the groups of {}, {}", matrix.name, matrix.cols,
                      codec.name(), codec.group());
}

}  // namespace temper::wires
