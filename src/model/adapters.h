// LoRA adapters (Hu et al. 2021): f32 masters of A [r, in] and B [out, r] for chosen projections, segments of one array.
#pragma once

#include <array>
#include <optional>
#include <string>
#include <vector>

#include "model/module_pattern.h"
#include "model/tensor_table.h"
#include "model/trainables.h"
#include "ops/ops.h"

namespace temper::model {

class BaseWeights;

/// Biases of the model that are trained beside adapters: none, every one, or those of adapted projections.
enum class LoraBias { None, All, LoraOnly };

struct LoraConfig {
  std::int64_t r = 16;
  double alpha = 32.0;
  bool rslora = false;                      ///< scale = alpha / sqrt(r) (Kalajdzievski 2023) instead of alpha / r.
  std::vector<std::string> target_modules;  ///< peft's names: "q_proj", …; empty: all seven.

  /// DoRA (Liu et al. 2024): W' = m / ‖W + s·B·A‖ · (W + s·B·A), norms of rows, which gradients take as constants.
  bool dora = false;
  LoraBias bias = LoraBias::None;
  std::vector<std::string> modules_to_save = {};  ///< "embed_tokens", "lm_head": trained whole beside the adapters.

  ModulePattern<std::int64_t> rank_pattern = {};  ///< Ranks of modules that differ from r.
  ModulePattern<double> alpha_pattern = {};       ///< Alphas that differ from alpha.
  double dropout = 0;  ///< Of the adapters' inputs in training passes where they are applied unmerged.
  std::vector<std::int64_t> layers_to_transform = {};  ///< Layers that get adapters; empty: all.

  /// Of a module, "model.layers.0.self_attn.q_proj". Both throw as pattern_value.
  std::int64_t rank_of(std::string_view module) const;
  float scale_of(std::string_view module) const;
};

/// The module of a matrix: its name without ".weight".
std::string_view module_of(const TensorInfo& info);

class Adapters {
 public:
  /// A is Kaiming-uniform as peft does (a = sqrt 5: uniform in ±1/sqrt(in)), from `seed`; B is zero. Throws BadRecipe for an
  /// unknown module, a layer that the model does not have, or a rank larger than a matrix allows.
  Adapters(const TensorTable& table, LoraConfig config, std::uint64_t seed);

  /// One adapted projection; views into the flat arrays.
  struct Entry {
    std::size_t tensor;  ///< Index in the tensor table.
    int layer;
    Linear linear;
    float scale;                           ///< s of W + s·B·A: alpha / r, or alpha / sqrt(r).
    TensorView a, b;                       ///< F32 masters.
    TensorView grad_a, grad_b;             ///< F32, accumulated by the backward pass.
    TensorView operand_a, operand_b;       ///< Copies in the compute dtype, made by prepare().
    TensorView magnitude, grad_magnitude;  ///< F32 [out], with DoRA: m; otherwise null.
    TensorView norm, gain;                 ///< F32 [out, 1], with DoRA: ‖W + s·B·A‖ and m / norm, made by prepare().
  };

  const LoraConfig& config() const { return config_; }
  std::uint64_t seed() const { return seed_; }  ///< Of A, and of dropout.
  const std::vector<Entry>& entries() const { return entries_; }
  const Entry* find(int layer, Linear linear) const;  ///< Null where a projection has no adapter.
  const Entry* find(std::size_t tensor) const;        ///< By index in the tensor table.
  ops::LoraView lora(const Entry& entry) const { return {entry.a, entry.b, entry.scale, entry.gain}; }

  const ParameterArray& array() const { return array_; }  ///< "adapters": A, B and m of every entry, in order.
  TensorView parameters() const { return array_.parameters(); }
  TensorView gradients() const { return array_.gradients(); }
  /// Masters, gradients and operands (and DoRA's gains); these once prepare has been called.
  std::size_t bytes() const;
  /// Copies the masters into the operands of the context's compute dtype, and makes the gains of DoRA, for which `base` must
  /// outlive this; once per optimizer step, and before the first.
  void prepare(const ExecContext& ctx, const BaseWeights& base);

  // dora.cpp; nothing without DoRA.
  /// m = ‖W‖: with B of zero, W' is W.
  void init_magnitudes(const ExecContext& ctx, const BaseWeights& base);
  /// dm += (dyᵀ·x) · (W + s·B·A) / norm, row by row, of a linear that saw x [M, in] and got dy [M, out] (T).
  void add_magnitude_gradient(const ExecContext& ctx, const Entry& entry, const TensorView& x, const TensorView& dy) const;

 private:
  std::size_t parts() const { return config_.dora ? 3 : 2; }  ///< Segments of an entry.
  void fill(std::size_t entry);
  void prepare_gains(const ExecContext& ctx);
  /// Calls visit(first, rows) with W + s·B·A in tiles of rows, F32.
  template <typename Visit>
  void visit_merged(const ExecContext& ctx, const Entry& entry, Visit&& visit) const;

  LoraConfig config_;
  std::uint64_t seed_;
  ParameterArray array_;
  Tensor operands_, norms_, gains_;
  const BaseWeights* base_ = nullptr;  ///< Of DoRA.
  std::vector<Entry> entries_;
  std::vector<std::array<int, kLinears.size()>> index_;  // [layer][linear] → entry, or -1
};

}  // namespace temper::model
