#include "model/tensor_table.h"

#include <fmt/ranges.h>

#include <algorithm>

#include "base/error.h"

namespace temper::model {
namespace {

// Order of a block's tensors in the table: norm, projections q k v o, norm, projections gate up down.
constexpr std::size_t kPerBlock = 9;
constexpr std::array<std::size_t, 7> kLinearOffset = {1, 2, 3, 4, 6, 7, 8};
constexpr std::size_t kAttentionNormOffset = 0, kMlpNormOffset = 5;

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
  return linear == Linear::Q ? a.num_heads : linear == Linear::K ? a.num_kv_heads : 0;
}

}  // namespace

std::string_view module_name(Linear linear) { return kLinearNames[static_cast<std::size_t>(linear)].module; }

TensorTable::TensorTable(const ArchSpec& a) : layers_(static_cast<int>(a.num_layers)) {
  const auto matrix = [&](std::string hf, std::string gguf, Shape shape, quant::Role role, int layer, std::int64_t heads) {
    infos_.push_back({std::move(hf), std::move(gguf), std::move(shape), role, layer, heads});
  };
  const auto norm = [&](std::string hf, std::string gguf, int layer) {
    infos_.push_back({std::move(hf), std::move(gguf), Shape{a.hidden_size}, quant::Role::Norm, layer, 0});
  };
  matrix("model.embed_tokens.weight", "token_embd.weight", {a.vocab_size, a.hidden_size}, quant::Role::Embedding, -1, 0);
  for (int layer = 0; layer < layers_; ++layer) {
    const std::string hf = fmt::format("model.layers.{}.", layer), gguf = fmt::format("blk.{}.", layer);
    const auto linear = [&](Linear l) {
      const LinearNames& names = kLinearNames[static_cast<std::size_t>(l)];
      matrix(fmt::format("{}{}.weight", hf, names.hf), fmt::format("{}{}.weight", gguf, names.gguf), linear_shape(a, l),
             quant::Role::Linear, layer, permuted_heads(a, l));
    };
    norm(hf + "input_layernorm.weight", gguf + "attn_norm.weight", layer);
    for (const Linear l : {Linear::Q, Linear::K, Linear::V, Linear::O}) linear(l);
    norm(hf + "post_attention_layernorm.weight", gguf + "ffn_norm.weight", layer);
    for (const Linear l : {Linear::Gate, Linear::Up, Linear::Down}) linear(l);
  }
  final_norm_ = infos_.size();
  norm("model.norm.weight", "output_norm.weight", -1);
  head_ = a.tied ? 0 : infos_.size();
  if (!a.tied) matrix("lm_head.weight", "output.weight", {a.vocab_size, a.hidden_size}, quant::Role::Head, -1, 0);
  for (TensorInfo& info : infos_)
    info.place = {info.role, quant::Projection::None,      info.layer,  layers_, info.shape[info.shape.rank() - 1],
                  a.tied,    a.num_heads / a.num_kv_heads, info.hf_name};
  for (int layer = 0; layer < layers_; ++layer)
    for (const Linear l : kLinears) infos_[linear(layer, l)].place.projection = kProjections[static_cast<std::size_t>(l)];
}

std::size_t TensorTable::attention_norm(int layer) const {
  return 1 + static_cast<std::size_t>(layer) * kPerBlock + kAttentionNormOffset;
}
std::size_t TensorTable::mlp_norm(int layer) const {
  return 1 + static_cast<std::size_t>(layer) * kPerBlock + kMlpNormOffset;
}
std::size_t TensorTable::linear(int layer, Linear linear) const {
  return 1 + static_cast<std::size_t>(layer) * kPerBlock + kLinearOffset[static_cast<std::size_t>(linear)];
}
std::size_t TensorTable::final_norm() const { return final_norm_; }
std::size_t TensorTable::head() const { return head_; }

std::vector<std::string> misfits(const TensorTable& table, const quant::Scheme& scheme) {
  std::vector<std::string> found;
  for (const TensorInfo& info : table.all()) {
    for (const quant::Codec* codec : {scheme.codec_for(info.place), scheme.input_codec_for(info.place)})
      if (codec && !codec->fits(info.shape[1]))
        found.push_back(fmt::format("{} {} ({}, group {})", info.hf_name, info.shape.str(), codec->name(), codec->group()));
  }
  return found;
}

void require_fit(const TensorTable& table, const quant::Scheme& scheme) {
  std::vector<std::string> bad = misfits(table, scheme);
  if (bad.empty()) return;
  std::vector<std::string> fitting;
  for (const quant::Scheme& other : quant::schemes())
    if (misfits(table, other).empty()) fitting.push_back(other.name);
  const std::size_t count = bad.size();
  constexpr std::size_t kShown = 8;
  if (bad.size() > kShown) bad.resize(kShown);
  throw BadRecipe("scheme {}: its group does not divide the rows of {} tensors: {}{}. Schemes that fit this model: {}",
                  scheme.name, count, fmt::join(bad, ", "), count > kShown ? ", …" : "", fmt::join(fitting, ", "));
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
    const quant::Codec* codec = scheme.codec_for(info.place);
    const double each = codec ? codec->bits_per_weight(info.shape[1]) : 16.0;
    bits += each * static_cast<double>(info.shape.numel());
    weights += static_cast<double>(info.shape.numel());
    std::string what = info.role == quant::Role::Embedding ? (info.place.tied ? "embedding and head" : "embedding") : "head";
    for (const Linear l : kLinears)
      if (info.layer >= 0 && table.linear(info.layer, l) == i) what = module_name(l);
    std::string format = fmt::format("{:<24} {:>6.3f} bits", codec ? codec->name() : "16-bit", each);
    if (const quant::Codec* input = scheme.input_codec_for(info.place))
      format += fmt::format(", activations {}", input->name());
    const auto same = std::ranges::find_if(kinds, [&](const Kind& k) { return k.what == what && k.format == format; });
    ++(same == kinds.end() ? kinds.emplace_back(Kind{std::move(what), std::move(format)}) : *same).count;
  }
  std::string text;
  for (const Kind& kind : kinds) text += fmt::format("{:>4} × {:<18}  {}\n", kind.count, kind.what, kind.format);
  return text + fmt::format("       {:<18}  {:<24} {:>6.3f} bits a weight", "all matrices", "", bits / weights);
}

}  // namespace temper::model
