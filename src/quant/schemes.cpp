// The table of schemes.
#include <algorithm>

#include "base/nearest.h"
#include "quant/scheme.h"

namespace temper::quant {
namespace {

std::vector<Scheme> make_table() {
  std::vector<Scheme> table;
  for (const char* name :
       {"int4-sym-g32", "int4-sym-g64", "int4-sym-g128", "int8-sym", "int8-sym-g32", "int8-sym-g64", "int8-sym-g128"})
    table.push_back({name, find_codec(name), nullptr, {}});
  // llama.cpp keeps a tied table of a q4_0 file in 8 bits or more: it is the head, too.
  table.push_back({"q4_0", find_codec("q4_0"), find_codec("q8_0"), {"gguf:q4_0"}});
  table.push_back({"q8_0", find_codec("q8_0"), find_codec("q8_0"), {"gguf:q8_0"}});
  return table;
}

}  // namespace

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
  for (const Scheme& candidate : all)
    if (candidate.name == name) return candidate;
  std::string known;
  for (const Scheme& candidate : all) known += (known.empty() ? "" : ", ") + candidate.name;
  const auto nearest = std::ranges::min_element(all, {}, [&](const Scheme& s) { return edit_distance(name, s.name); });
  throw BadRecipe("scheme: unknown name \"{}\"; did you mean \"{}\"? Known: {}", name, nearest->name, known);
}

}  // namespace temper::quant
