#include "model/architecture.h"

#include <algorithm>
#include <array>

#include "base/error.h"
#include "base/nearest.h"

namespace temper::model {
namespace {

using ops::Gate;

constexpr std::array kTable = {
    Architecture{.model_type = "llama", .class_name = "LlamaForCausalLM", .gguf = "llama", .interleaved_heads = true},
    Architecture{.model_type = "mistral", .class_name = "MistralForCausalLM", .gguf = "llama", .interleaved_heads = true},
    Architecture{
        .model_type = "ministral", .class_name = "MinistralForCausalLM", .gguf = "llama", .interleaved_heads = true},
    Architecture{.model_type = "smollm3",
                 .class_name = "SmolLM3ForCausalLM",
                 .gguf = "smollm3",
                 .tied_by_default = true,
                 .interleaved_heads = true},
    Architecture{.model_type = "qwen2", .class_name = "Qwen2ForCausalLM", .gguf = "qwen2", .qkv_bias = true},
    Architecture{.model_type = "qwen3", .class_name = "Qwen3ForCausalLM", .gguf = "qwen3", .qk_norm = true},
    Architecture{.model_type = "gemma2",
                 .class_name = "Gemma2ForCausalLM",
                 .gguf = "gemma2",
                 .gate = Gate::GeluTanh,
                 .post_norms = true,
                 .offset_norms = true,
                 .scaled_embedding = true,
                 .tied_by_default = true},
    Architecture{.model_type = "gemma3_text",
                 .class_name = "Gemma3ForCausalLM",
                 .gguf = "gemma3",
                 .gate = Gate::GeluTanh,
                 .qk_norm = true,
                 .post_norms = true,
                 .offset_norms = true,
                 .scaled_embedding = true,
                 .tied_by_default = true},
    Architecture{.model_type = "phi3", .class_name = "Phi3ForCausalLM", .gguf = "phi3", .fused = true},
};

/// The row whose `name` is `wanted`; Unsupported with the nearest otherwise.
const Architecture& find(std::string_view Architecture::*name, std::string_view wanted, std::string_view key,
                         const std::string& origin) {
  const auto row = std::ranges::find(kTable, wanted, name);
  if (row != kTable.end()) return *row;
  const auto near =
      std::ranges::min_element(kTable, {}, [&](const Architecture& a) { return edit_distance(wanted, a.*name); });
  std::string known;
  for (const Architecture& a : kTable)
    if (known.find(a.*name) == std::string::npos) known += (known.empty() ? "" : ", ") + std::string(a.*name);
  throw Unsupported("{}: {} \"{}\": an architecture that temper does not know; the nearest known is {}. Known: {}", origin,
                    key, wanted, (*near).*name, known);
}

}  // namespace

std::span<const Architecture> architectures() { return kTable; }

const Architecture& architecture_of_hf(std::string_view model_type, const std::string& origin) {
  return find(&Architecture::model_type, model_type, "model_type", origin);
}

const Architecture& architecture_of_gguf(std::string_view name, const std::string& origin) {
  return find(&Architecture::gguf, name, "general.architecture", origin);
}

}  // namespace temper::model
