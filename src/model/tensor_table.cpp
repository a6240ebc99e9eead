#include "model/tensor_table.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <array>

#include "base/error.h"

namespace temper::model {
namespace {

struct LinearNames {
  std::string_view module, hf, gguf;
};
constexpr std::array<LinearNames, 7> kLinearNames = {{{"q_proj", "self_attn.q_proj", "attn_q"},
                                                      {"k_proj", "self_attn.k_proj", "attn_k"},
                                                      {"v_proj", "self_attn.v_proj", "attn_v"},
                                                      {"o_proj", "self_attn.o_proj", "attn_output"},
                                                      {"gate_proj", "mlp.gate_proj", "ffn_gate"},
                                                      {"up_proj", "mlp.up_proj", "ffn_up"},
                                                      {"down_proj", "mlp.down_proj", "ffn_down"}}};

struct VectorNames {
  std::string_view hf, gguf;
};
constexpr std::array<VectorNames, kBlockVectors> kVectorNames = {
    {{"input_layernorm.weight", "attn_norm.weight"},
     {"post_attention_layernorm.weight", "ffn_norm.weight"},
     {"post_attention_layernorm.weight", "post_attention_norm.weight"},
     {"post_feedforward_layernorm.weight", "post_ffw_norm.weight"},
     {"self_attn.q_norm.weight", "attn_q_norm.weight"},
     {"self_attn.k_norm.weight", "attn_k_norm.weight"},
     {"self_attn.q_proj.bias", "attn_q.bias"},
     {"self_attn.k_proj.bias", "attn_k.bias"},
     {"self_attn.v_proj.bias", "attn_v.bias"}}};

constexpr std::array<quant::Projection, 7> kProjections = {
    quant::Projection::Q,    quant::Projection::K,  quant::Projection::V,   quant::Projection::O,
    quant::Projection::Gate, quant::Projection::Up, quant::Projection::Down};

Shape linear_shape(const ArchSpec& a, Linear linear) {
  switch (linear) {
    case Linear::Q: return {a.q_size(), a.hidden_size};
    case Linear::K:
    case Linear::V: return {a.kv_size(), a.hidden_size};
    case Linear::O: return {a.hidden_size, a.q_size()};
    case Linear::Gate:
    case Linear::Up: return {a.intermediate_size, a.hidden_size};
    case Linear::Down: return {a.hidden_size, a.intermediate_size};
  }
  throw LogicError("no such linear");
}

std::int64_t permuted_heads(const ArchSpec& a, Linear linear) {
  if (!a.architecture->interleaved_heads) return 0;
  return linear == Linear::Q ? a.num_heads : linear == Linear::K ? a.num_kv_heads : 0;
}

std::int64_t vector_size(const ArchSpec& a, BlockVector which) {
  switch (which) {
    case BlockVector::QNorm:
    case BlockVector::KNorm: return a.head_dim;
    case BlockVector::QBias: return a.q_size();
    case BlockVector::KBias:
    case BlockVector::VBias: return a.kv_size();
    default: return a.hidden_size;
  }
}

bool is_bias(BlockVector which) { return which >= BlockVector::QBias; }

/// Where q, k, v or gate, up lie in the matrix that holds them together.
std::optional<FusedPart> fused_part(const ArchSpec& a, Linear linear, const std::string& hf, const std::string& gguf) {
  if (!a.architecture->fused) return {};
  const std::int64_t q = a.q_size(), kv = a.kv_size(), mlp = a.intermediate_size;
  const auto attention = [&](std::int64_t first) {
    return FusedPart{hf + "self_attn.qkv_proj.weight", gguf + "attn_qkv.weight", q + 2 * kv, first};
  };
  const auto gated = [&](std::int64_t first) {
    return FusedPart{hf + "mlp.gate_up_proj.weight", gguf + "ffn_up.weight", 2 * mlp, first};
  };
  switch (linear) {
    case Linear::Q: return attention(0);
    case Linear::K: return attention(q);
    case Linear::V: return attention(q + kv);
    case Linear::Gate: return gated(0);
    case Linear::Up: return gated(mlp);
    default: return {};
  }
}

}  // namespace

std::string_view module_name(Linear linear) { return kLinearNames[static_cast<std::size_t>(linear)].module; }

TensorTable::TensorTable(const ArchSpec& a) : layers_(static_cast<int>(a.num_layers)) {
  const float norm_offset = a.architecture->offset_norms ? 1.0f : 0.0f;
  const Shape vocabulary{a.vocab_size, a.hidden_size};
  infos_.push_back({"model.embed_tokens.weight", "token_embd.weight", vocabulary, quant::Role::Embedding});
  blocks_.resize(static_cast<std::size_t>(layers_));
  for (int layer = 0; layer < layers_; ++layer) add_block(a, layer);
  final_norm_ = infos_.size();
  infos_.push_back({"model.norm.weight", "output_norm.weight", Shape{a.hidden_size}, quant::Role::Norm});
  infos_.back().hf_offset = norm_offset;
  head_ = a.tied ? 0 : infos_.size();
  if (!a.tied) infos_.push_back({"lm_head.weight", "output.weight", vocabulary, quant::Role::Head});
  for (TensorInfo& info : infos_)
    info.place = {info.role,
                  quant::Projection::None,
                  info.layer,
                  layers_,
                  info.shape[info.shape.rank() - 1],
                  a.tied,
                  a.num_heads / a.num_kv_heads,
                  info.hf_name,
                  info.fused.has_value()};
  for (int layer = 0; layer < layers_; ++layer)
    for (const Linear l : kLinears) infos_[linear(layer, l)].place.projection = kProjections[static_cast<std::size_t>(l)];
}

/// A block's tensors: norm, projections q k v o with what belongs to them, norm, gate up down; then norms of the results.
void TensorTable::add_block(const ArchSpec& a, int layer) {
  const Architecture& family = *a.architecture;
  Block& block = blocks_[static_cast<std::size_t>(layer)];
  const std::string hf = fmt::format("model.layers.{}.", layer), gguf = fmt::format("blk.{}.", layer);
  const auto vector = [&](BlockVector which, bool present = true) {
    if (!present) return;
    VectorNames names = kVectorNames[static_cast<std::size_t>(which)];
    // With norms after attention, too, the one before the MLP has a name of its own.
    if (which == BlockVector::MlpNorm && family.post_norms) names.hf = "pre_feedforward_layernorm.weight";
    block.vectors[static_cast<std::size_t>(which)] = infos_.size();
    infos_.push_back({fmt::format("{}{}", hf, names.hf), fmt::format("{}{}", gguf, names.gguf), Shape{vector_size(a, which)},
                      quant::Role::Norm, layer});
    if (family.offset_norms && !is_bias(which)) infos_.back().hf_offset = 1.0f;
  };
  const auto linear = [&](Linear l) {
    const LinearNames& names = kLinearNames[static_cast<std::size_t>(l)];
    block.linears[static_cast<std::size_t>(l)] = infos_.size();
    infos_.push_back({fmt::format("{}{}.weight", hf, names.hf), fmt::format("{}{}.weight", gguf, names.gguf),
                      linear_shape(a, l), quant::Role::Linear, layer, permuted_heads(a, l)});
    infos_.back().fused = fused_part(a, l, hf, gguf);
  };
  vector(BlockVector::AttentionNorm);
  for (const Linear l : {Linear::Q, Linear::K, Linear::V, Linear::O}) linear(l);
  for (const BlockVector bias : {BlockVector::QBias, BlockVector::KBias, BlockVector::VBias}) vector(bias, family.qkv_bias);
  for (const BlockVector norm : {BlockVector::QNorm, BlockVector::KNorm}) vector(norm, family.qk_norm);
  vector(BlockVector::MlpNorm);
  for (const Linear l : {Linear::Gate, Linear::Up, Linear::Down}) linear(l);
  for (const BlockVector norm : {BlockVector::PostAttentionNorm, BlockVector::PostMlpNorm}) vector(norm, family.post_norms);
}

std::optional<std::size_t> TensorTable::vector(int layer, BlockVector which) const {
  const std::size_t index = blocks_[static_cast<std::size_t>(layer)].vectors[static_cast<std::size_t>(which)];
  return index == 0 ? std::nullopt : std::optional(index);
}
std::size_t TensorTable::linear(int layer, Linear linear) const {
  return blocks_[static_cast<std::size_t>(layer)].linears[static_cast<std::size_t>(linear)];
}
std::size_t TensorTable::final_norm() const { return final_norm_; }
std::size_t TensorTable::head() const { return head_; }

std::vector<std::vector<std::size_t>> stored_tensors(const TensorTable& table) {
  std::vector<std::vector<std::size_t>> stored;
  for (std::size_t i = 0; i < table.size(); ++i) {
    const bool follows = table[i].fused && table[i].fused->first_row > 0;  // parts follow one another in the table
    if (!follows) stored.emplace_back();
    stored.back().push_back(i);
  }
  return stored;
}

std::vector<std::string> misfits(const TensorTable& table, const quant::Scheme& scheme) {
  std::vector<std::string> found;
  for (const TensorInfo& info : table.all()) {
    for (const quant::Codec* codec : {scheme.codec_for(info.place), scheme.input_codec_for(info.place)})
      if (codec && !codec->fits(info.shape[1]))
        found.push_back(fmt::format("{} {} ({}, group {})", info.hf_name, info.shape.str(), codec->name(), codec->group()));
  }
  return found;
}

namespace {

/// Of a scheme with one group size for all tensors, the same in groups that fit, in words; empty if there is none.
std::string in_smaller_groups(const TensorTable& table, const quant::Scheme& scheme) {
  static constexpr std::array<std::string_view, 4> kGroups = {"-g256", "-g128", "-g64", "-g32"};
  std::string_view base = scheme.name;
  for (const std::string_view group : kGroups)
    if (base.ends_with(group)) base.remove_suffix(group.size());
  for (const std::string_view group : kGroups)
    for (const quant::Scheme& other : quant::schemes())
      if (other.name == fmt::format("{}{}", base, group) && other.name != scheme.name && misfits(table, other).empty())
        return fmt::format("{} is the same in groups that fit. ", other.name);
  return "";
}

}  // namespace

void require_fit(const TensorTable& table, const quant::Scheme& scheme) {
  std::vector<std::string> bad = misfits(table, scheme);
  if (bad.empty()) return;
  std::vector<std::string> fitting;
  for (const quant::Scheme& other : quant::schemes())
    if (misfits(table, other).empty()) fitting.push_back(other.name);
  const std::size_t count = bad.size();
  constexpr std::size_t kShown = 8;
  if (bad.size() > kShown) bad.resize(kShown);
  throw BadRecipe("scheme {}: its group does not divide the rows of {} tensors: {}{}. {}Schemes that fit this model: {}",
                  scheme.name, count, fmt::join(bad, ", "), count > kShown ? ", …" : "", in_smaller_groups(table, scheme),
                  fmt::join(fitting, ", "));
}

std::string describe(const TensorTable& table, const quant::Scheme& scheme) {
  struct Kind {
    std::string what, format;
    int count = 0;
  };
  std::vector<Kind> kinds;
  double bits = 0.0, weights = 0.0;
  for (std::size_t i = 0; i < table.size(); ++i) {
    const TensorInfo& info = table[i];
    if (info.role == quant::Role::Norm) continue;
    const auto [codec, meant] = scheme.held(info.place);
    const double each = codec ? codec->bits_per_weight(info.shape[1]) : 16.0;
    bits += each * static_cast<double>(info.shape.numel());
    weights += static_cast<double>(info.shape.numel());
    std::string what = info.role == quant::Role::Embedding ? (info.place.tied ? "embedding and head" : "embedding") : "head";
    for (const Linear l : kLinears)
      if (info.layer >= 0 && table.linear(info.layer, l) == i) what = module_name(l);
    std::string format = fmt::format("{:<24} {:>6.3f} bits", codec ? codec->name() : "16-bit", each);
    if (const quant::Codec* input = scheme.input_codec_for(info.place))
      format += fmt::format(", activations {}", input->name());
    if (codec != meant) format += fmt::format(", as rows of {} do not fit {}", info.shape[1], meant->name());
    const auto same = std::ranges::find_if(kinds, [&](const Kind& k) { return k.what == what && k.format == format; });
    ++(same == kinds.end() ? kinds.emplace_back(Kind{std::move(what), std::move(format)}) : *same).count;
  }
  std::string text;
  for (const Kind& kind : kinds) text += fmt::format("{:>4} × {:<18}  {}\n", kind.count, kind.what, kind.format);
  return text + fmt::format("       {:<18}  {:<24} {:>6.3f} bits a weight", "all matrices", "", bits / weights);
}

}  // namespace temper::model
