// Element types of GGUF tensors: ids and block sizes as ggml defines them (ggml.h, enum ggml_type; ggml-common.h).
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string_view>

#include "tensor/dtype.h"

namespace temper::files {

enum class GgmlType : std::uint32_t {
  F32 = 0,
  F16 = 1,
  Q4_0 = 2,
  Q4_1 = 3,
  Q5_0 = 6,
  Q5_1 = 7,
  Q8_0 = 8,
  Q8_1 = 9,
  Q2_K = 10,
  Q3_K = 11,
  Q4_K = 12,
  Q5_K = 13,
  Q6_K = 14,
  Q8_K = 15,
  IQ2_XXS = 16,
  IQ2_XS = 17,
  IQ3_XXS = 18,
  IQ1_S = 19,
  IQ4_NL = 20,
  IQ3_S = 21,
  IQ2_S = 22,
  IQ4_XS = 23,
  I8 = 24,
  I16 = 25,
  I32 = 26,
  I64 = 27,
  F64 = 28,
  IQ1_M = 29,
  BF16 = 30,
  TQ1_0 = 34,
  TQ2_0 = 35,
  MXFP4 = 39,
  NVFP4 = 40,
  Q1_0 = 41,
  Q2_0 = 42,
};

/// A row of the table: elements and bytes of one block (1 element for plain types).
struct GgmlTypeInfo {
  GgmlType type;
  std::string_view name;  ///< As the enumerator: "Q4_0".
  std::int64_t block_elements;
  std::size_t block_bytes;
};

/// The row of an id read from a file; null if the id is unknown.
const GgmlTypeInfo* find_ggml_type(std::uint32_t id);
/// The row of a type by its name, upper or lower case; null if unknown.
const GgmlTypeInfo* find_ggml_type(std::string_view name);
const GgmlTypeInfo& ggml_type_info(GgmlType type);
std::string_view ggml_type_name(GgmlType type);

/// Bytes of a row of `cols` elements; LogicError if `cols` is no multiple of the block.
std::size_t ggml_row_bytes(GgmlType type, std::int64_t cols);

/// The plain dtype that a GGUF type equals (F32, F16, BF16, F64, I8 … I64), or nullopt for a block type; and the way back.
std::optional<DType> plain_dtype(GgmlType type);
std::optional<GgmlType> ggml_type_of(DType dtype);

}  // namespace temper::files
