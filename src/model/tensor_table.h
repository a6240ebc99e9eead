// One record per tensor, read by the loader, quantizer, adapters, optimizer and exporters alike.
#pragma once

#include <array>
#include <cstddef>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "model/arch.h"
#include "quant/scheme.h"

namespace temper::model {

/// The projections of a block, in the order in which the forward pass uses them.
enum class Linear { Q, K, V, O, Gate, Up, Down };
inline constexpr std::array<Linear, 7> kLinears = {Linear::Q,    Linear::K,  Linear::V,   Linear::O,
                                                   Linear::Gate, Linear::Up, Linear::Down};
/// "q_proj", "k_proj", … as peft's target_modules name them.
std::string_view module_name(Linear linear);

/// The vectors of a block, F32. An architecture has the first two and some of the others.
enum class BlockVector { AttentionNorm, MlpNorm, PostAttentionNorm, PostMlpNorm, QNorm, KNorm, QBias, KBias, VBias };
inline constexpr std::size_t kBlockVectors = 9;

/// One of several matrices that a checkpoint stores as one, their rows after one another.
struct FusedPart {
  std::string hf_name, gguf_name;  ///< Of the stored matrix.
  std::int64_t rows = 0;           ///< It has so many,
  std::int64_t first_row = 0;      ///< of which ours begin here.
};

struct TensorInfo {
  std::string hf_name;    ///< "model.layers.0.self_attn.q_proj.weight"
  std::string gguf_name;  ///< "blk.0.attn_q.weight"
  Shape shape;            ///< [out, in] of a matrix, [n] of a vector.
  quant::Role role;       ///< Norm is every vector: norms and biases.
  int layer = -1;         ///< -1 outside of the blocks.
  std::int64_t permuted_heads =
      0;  ///< GGUF stores the rows of each of so many heads interleaved (llama's q and k); 0: as they are.
  quant::TensorPlace place = {};        ///< What schemes choose a codec by.
  float hf_offset = 0.0f;               ///< Hugging Face folders hold the tensor less this (Gemma's norms: 1).
  std::optional<FusedPart> fused = {};  ///< Where it is stored with others.

  bool weight_decay() const { return role != quant::Role::Norm; }  ///< Matrices decay, where they are trained.

  const std::string& stored_hf_name() const { return fused ? fused->hf_name : hf_name; }
  const std::string& stored_gguf_name() const { return fused ? fused->gguf_name : gguf_name; }
  /// Of the tensor that a checkpoint stores.
  Shape stored_shape() const { return fused ? Shape{fused->rows, shape[1]} : shape; }
};

class TensorTable {
 public:
  explicit TensorTable(const ArchSpec& arch);

  const std::vector<TensorInfo>& all() const { return infos_; }
  const TensorInfo& operator[](std::size_t index) const { return infos_[index]; }
  std::size_t size() const { return infos_.size(); }

  int layers() const { return layers_; }
  std::size_t embedding() const { return 0; }
  std::size_t attention_norm(int layer) const { return *vector(layer, BlockVector::AttentionNorm); }
  std::size_t mlp_norm(int layer) const { return *vector(layer, BlockVector::MlpNorm); }
  std::optional<std::size_t> vector(int layer, BlockVector which) const;
  std::size_t linear(int layer, Linear linear) const;
  std::size_t final_norm() const;
  std::size_t head() const;  ///< = embedding() when tied.

 private:
  struct Block {
    std::array<std::size_t, kLinears.size()> linears{};
    std::array<std::size_t, kBlockVectors> vectors{};  // 0, the embedding's index: there is none
  };
  void add_block(const ArchSpec& arch, int layer);

  std::vector<TensorInfo> infos_;
  std::vector<Block> blocks_;
  int layers_ = 0;
  std::size_t final_norm_ = 0, head_ = 0;
};

/// The tensors that each tensor of a checkpoint holds, by index in the table and in its order: one or, of a fused matrix,
/// its parts in the order of their rows.
std::vector<std::vector<std::size_t>> stored_tensors(const TensorTable& table);

/// Row r of the HF order is row gguf_row(r) of the GGUF order, for a matrix of `rows` rows in `heads` interleaved heads.
inline std::int64_t gguf_row(std::int64_t r, std::int64_t rows, std::int64_t heads) {
  if (heads == 0) return r;
  const std::int64_t d = rows / heads, head = r / d, i = r % d;
  return head * d + (i % (d / 2)) * 2 + i / (d / 2);
}

/// Tensors of `table` that `scheme` would hold in a codec that does not divide their rows, or whose activations': "name
/// [rows, cols] (int4-sym-g128, group 128)". Empty: the scheme fits, where need be with other formats (quant/fallback.h).
/// Used to refuse a run before it starts.
std::vector<std::string> misfits(const TensorTable& table, const quant::Scheme& scheme);
/// What each kind of matrix becomes under a scheme, a line each: "  24 × q_proj  int4-sym-g32  5.000 bits, activations
/// int8-asym", and what the scheme means for it where its rows do not fit that; the last line is the mean over all weights.
/// For people, before a run.
std::string describe(const TensorTable& table, const quant::Scheme& scheme);
/// Throws BadRecipe with the list of misfits and the schemes that fit, first the same one in smaller groups.
void require_fit(const TensorTable& table, const quant::Scheme& scheme);

}  // namespace temper::model
