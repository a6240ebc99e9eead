// Schemes: which tensors of a model are held in which number format, by the names people know.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "quant/codec.h"

namespace temper::quant {

/// What a tensor is for, as the model's tensor table says.
enum class Role { Linear, Embedding, Head, Norm };

/// A row of the table of schemes. nullptr means the tensor stays 16-bit.
struct Scheme {
  std::string name;                ///< "q4_0", "int4-sym-g32", …
  const Codec* linear = nullptr;   ///< The blocks' projections.
  const Codec* table = nullptr;    ///< Embedding and head (also a tied table, in both uses).
  std::vector<std::string> wires;  ///< Export targets that carry it as trained: {"gguf:q4_0"}; empty: none yet.

  /// Codec of a tensor of this role, or nullptr.
  const Codec* codec_for(Role role) const;
};

/// All schemes: int4-sym-g32/g64/g128, int8-sym, int8-sym-g32/g64/g128 (linears only; no wire yet); q4_0 (table in q8_0),
/// q8_0.
const std::vector<Scheme>& schemes();
/// Finds a scheme; throws BadRecipe listing the known names, with the nearest one suggested. "none" is no scheme: see
/// callers.
const Scheme& scheme(std::string_view name);

}  // namespace temper::quant
