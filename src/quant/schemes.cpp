// The table of schemes.
#include <algorithm>

#include "base/nearest.h"
#include "quant/llama_mixes.h"
#include "quant/scheme.h"

namespace temper::quant {
namespace {

std::vector<Scheme> make_table() {
  std::vector<Scheme> table;
  for (const char* name :
       {"int4-sym-g32", "int4-sym-g64", "int4-sym-g128", "int8-sym", "int8-sym-g32", "int8-sym-g64", "int8-sym-g128"})
    table.push_back({name, find_codec(name), nullptr, {}, nullptr});
  for (const LlamaMix& mix : llama_mixes()) {
    table.push_back(
        {std::string(mix.name), find_codec(mix.base), find_codec("q8_0"), {fmt::format("gguf:{}", mix.name)}, &mix});
  }
  return table;
}

}  // namespace

const Codec* Scheme::codec_for(const TensorPlace& place, bool importance) const {
  return mix ? mix_codec(*mix, place, importance) : codec_for(place.role);
}

const Codec* Scheme::codec_for(Role role) const {
  switch (role) {
    case Role::Linear: return linear;
    case Role::Embedding:
    case Role::Head: return table;
    case Role::Norm: break;
  }
  return nullptr;
}

const std::vector<Scheme>& schemes() {
  static const std::vector<Scheme> table = make_table();
  return table;
}

const Scheme& scheme(std::string_view name) {
  const std::vector<Scheme>& all = schemes();
  for (const std::string_view medium : {"q3_k", "q4_k", "q5_k"})
    if (name == medium) return scheme(fmt::format("{}_m", medium));
  for (const Scheme& candidate : all)
    if (candidate.name == name) return candidate;
  std::string known;
  for (const Scheme& candidate : all) known += (known.empty() ? "" : ", ") + candidate.name;
  const auto nearest = std::ranges::min_element(all, {}, [&](const Scheme& s) { return edit_distance(name, s.name); });
  throw BadRecipe("scheme: unknown name \"{}\"; did you mean \"{}\"? Known: {}", name, nearest->name, known);
}

}  // namespace temper::quant
