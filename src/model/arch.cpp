#include "model/arch.h"

#include <algorithm>
#include <cmath>

#include "base/error.h"

namespace temper::model {

float ArchSpec::embedding_scale() const {
  return architecture->scaled_embedding ? std::sqrt(static_cast<float>(hidden_size)) : 1.0f;
}

bool ArchSpec::any_layer(LayerRope kind) const {
  return std::ranges::any_of(layers, [&](const LayerSpec& layer) { return layer.rope == kind; });
}

void complete_arch(ArchSpec& a, const std::string& origin) {
  if (a.num_heads % a.num_kv_heads != 0)
    throw BadFile("{}: {} attention heads are no multiple of {} key/value heads", origin, a.num_heads, a.num_kv_heads);
  if (a.head_dim == 0) {
    if (a.hidden_size % a.num_heads != 0)
      throw BadFile("{}: hidden size {} is no multiple of {} heads, and no head_dim is given", origin, a.hidden_size,
                    a.num_heads);
    a.head_dim = a.hidden_size / a.num_heads;
  }
  if (a.rotated == 0) a.rotated = a.head_dim;
  if (a.rotated % 2 != 0 || a.rotated > a.head_dim)
    throw BadFile("{}: {} of {} values of a head are turned: rotary positions need pairs within a head", origin, a.rotated,
                  a.head_dim);
  if (a.attention_scale == 0) a.attention_scale = 1.0f / std::sqrt(static_cast<float>(a.head_dim));
  a.layers.resize(static_cast<std::size_t>(a.num_layers));
  if (a.sliding_window == 0)
    for (LayerSpec& layer : a.layers) layer.windowed = false;
  for (const RopeSpec* rope : {&a.rope, &a.local_rope})
    if (rope->kind == RopeKind::LongRope)
      for (const std::vector<float>* factors : {&rope->short_factors, &rope->long_factors})
        if (std::ssize(*factors) != a.rotated / 2)
          throw BadFile("{}: longrope: expected {} factors, found {}", origin, a.rotated / 2, factors->size());
}

}  // namespace temper::model
