// Schemes: which tensors of a model are held in which number format, by the names people know.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "quant/codec.h"
#include "quant/scheme_rules.h"

namespace temper::quant {

/// What a tensor is for, as the model's tensor table says.
enum class Role { Linear, Embedding, Head, Norm };
/// Which of a block's projections a Linear is.
enum class Projection { None, Q, K, V, O, Gate, Up, Down };

/// Where a tensor stands in its model: all that the choice of a codec may depend on.
struct TensorPlace {
  Role role = Role::Linear;
  Projection projection = Projection::None;
  int layer = -1, layers = 0;
  std::int64_t cols = 0;
  bool tied = false;                 ///< The embedding is the head, too.
  std::int64_t queries_per_key = 1;  ///< Query heads that share a key head.
  std::string name = {};             ///< "model.layers.0.self_attn.q_proj.weight"; for rules by name.
  bool fused = false;                ///< Its file stores it in one matrix with others (q, k and v; gate and up).
};

struct LlamaMix;

/// What a tensor is held in (nullptr: 16 bit), and the format that the scheme means for it: another one where that one's
/// blocks do not divide the tensor's rows and something stands in for it (fallback.h).
struct Held {
  const Codec* codec = nullptr;
  const Codec* meant = nullptr;
};

/// A row of the table of schemes. nullptr means the tensor stays 16-bit.
struct Scheme {
  std::string name;                ///< "q4_0", "int4-sym-g32", …
  const Codec* linear = nullptr;   ///< The blocks' projections; of a mix, those that no rule names.
  const Codec* table = nullptr;    ///< Embedding and head (also a tied table, in both uses), unless `mix` says.
  std::vector<std::string> wires;  ///< GGUF targets that carry it as trained: {"gguf:q4_0"}; wires are asked themselves.
  const LlamaMix* mix = nullptr;   ///< Rules by which tensors differ (llama_mixes.h).
  /// What activations are rounded to before each product with a quantized weight (activations.h), in f32 arithmetic;
  /// nullptr: nothing.
  const Codec* input = nullptr;
  std::vector<TensorRule> rules = {};  ///< Of one's own schemes: the last one that selects a tensor decides of it.
  /// What products with quantized weights are rounded to, a format with a static range; nullptr: nothing.
  const Codec* output = nullptr;
  /// Its readers take one group size for the whole model: no tensor falls back to a smaller one.
  bool one_group = false;

  /// Codec of a tensor, or nullptr. `importance`: whether the model is quantized with an importance matrix.
  const Codec* codec_for(const TensorPlace& place, bool importance = false) const { return held(place, importance).codec; }
  Held held(const TensorPlace& place, bool importance = false) const;
  /// The format to which activations are rounded before they are multiplied with that tensor, or nullptr; of a tied table,
  /// in its use as the head.
  const Codec* input_codec_for(const TensorPlace& place) const;
  /// The format to which the product with that tensor is rounded, or nullptr.
  const Codec* output_codec_for(const TensorPlace& place) const;
  /// The same, of a tensor of which only the role is known; not for schemes with a mix or rules.
  const Codec* codec_for(Role role) const;
  /// The rule that decides of a tensor, or nullptr.
  const TensorRule* rule_for(const TensorPlace& place) const;
};

/// All schemes: formats by their own names (int4-sym-g32, nf4 …) and those of torchao's users (int4, int8-int4, fp8-fp8 …),
/// and llama.cpp's file types (q4_0 … q6_k, q4_k_m …).
const std::vector<Scheme>& schemes();
/// Finds a scheme; q3_k, q4_k and q5_k are the medium mixes, as in llama.cpp, phone-deployment is int8-int4, and the name of
/// any format that encodes (find_codec) stands for projections in it. One's own is written
///     SCHEME[/ACTIVATIONS[/OUTPUTS]][; RULE]…        int4-sym-g32/int8-asym; head: int8-sym; layers 0-3: q8_0
/// with SCHEME one of the former or "none", ACTIVATIONS of activation_formats() or "none", OUTPUTS (what products are
/// rounded to) one of those with a static range or "none", and rules as in scheme_rules.h; it is made when asked for, and
/// its name is this text in its shortest form. Throws BadRecipe listing the known names, with the nearest one suggested.
/// "none" alone is no scheme: see callers.
const Scheme& scheme(std::string_view name);

}  // namespace temper::quant
