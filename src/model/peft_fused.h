// Adapters of matrices that a checkpoint stores as one (Phi-3's qkv_proj and gate_up_proj). Here each has its own; peft has
// one for the stored matrix:
//   written   parts' ranks side by side: A holds their rows one after another, B is block-diagonal. The same product
//   exactly. read      what was written so, as it was; an adapter of peft's own gives each part the whole A and its rows of
//   B.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "model/adapters.h"

namespace temper::model {

/// A module of peft's with the adapters that it stands for: one, but for fused matrices.
struct PeftModule {
  std::string name;                           ///< "model.layers.0.self_attn.qkv_proj"
  std::vector<const Adapters::Entry*> parts;  ///< In the order of their rows.
  std::vector<std::int64_t> first_rows;       ///< Where those of each part begin in the stored matrix,
  std::int64_t rows = 0;                      ///< which has so many. 0: no fused matrix, the one part is all.
};

/// In the order of the adapters.
std::vector<PeftModule> peft_modules(const TensorTable& table, const Adapters& adapters);

/// What peft stores of a module: F32 A [r, in], B [rows, r] and, with DoRA, the magnitudes [rows]. Of a fused matrix, whose
/// parts' ranks lie side by side or, `shared`, are one.
struct PeftTensors {
  PeftTensors(const PeftModule& module, bool shared);
  Tensor a, b, magnitude;
};

PeftTensors join_parts(const PeftModule& module);
/// Copies into the adapters' masters. Throws BadFile, naming `origin`, where what lies outside of B's blocks is not zero.
void split_parts(const PeftModule& module, const PeftTensors& stored, bool shared, const std::string& origin);

/// The config in peft's words: the stored matrices in place of their parts, with their ranks and alphas. Throws Unsupported
/// where parts of one matrix differ in rank or alpha, or DoRA adapts only some of them.
LoraConfig to_peft_config(const TensorTable& table, LoraConfig config);

/// Which of the parts have adapters, for from_peft_config: "k_proj,q_proj"; empty without fused matrices.
std::string adapted_parts(const TensorTable& table, const LoraConfig& config);

/// The way back. `parts`: as adapted_parts said when it was written; nullopt: peft's own.
LoraConfig from_peft_config(const TensorTable& table, LoraConfig config, const std::optional<std::string>& parts);

}  // namespace temper::model
