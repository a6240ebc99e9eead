#include "tensor/dtype.h"

#include <array>

namespace temper {
namespace {
struct Row {
  DType dtype;
  std::string_view name;
  std::size_t size;
};
constexpr std::array<Row, 13> kRows = {{{DType::F64, "F64", 8},
                                        {DType::F32, "F32", 4},
                                        {DType::BF16, "BF16", 2},
                                        {DType::F16, "F16", 2},
                                        {DType::I64, "I64", 8},
                                        {DType::I32, "I32", 4},
                                        {DType::I16, "I16", 2},
                                        {DType::I8, "I8", 1},
                                        {DType::U8, "U8", 1},
                                        {DType::Bool, "BOOL", 1},
                                        {DType::F8E4M3, "F8_E4M3", 1},
                                        {DType::F8E5M2, "F8_E5M2", 1},
                                        {DType::F8E8M0, "F8_E8M0", 1}}};
}  // namespace

std::size_t dtype_size(DType dtype) { return kRows[static_cast<std::size_t>(dtype)].size; }
std::string_view dtype_name(DType dtype) { return kRows[static_cast<std::size_t>(dtype)].name; }

std::optional<DType> dtype_from_name(std::string_view name) {
  for (const Row& row : kRows)
    if (row.name == name) return row.dtype;
  return std::nullopt;
}

}  // namespace temper
