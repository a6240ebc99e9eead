// The table of schemes.
#include <algorithm>
#include <map>
#include <mutex>

#include "base/nearest.h"
#include "quant/activations.h"
#include "quant/fallback.h"
#include "quant/llama_mixes.h"
#include "quant/scheme.h"

namespace temper::quant {
namespace {

/// The names that users of llm-compressor and vLLM know, and those of GPTQ's and AWQ's files.
void add_others(std::vector<Scheme>& table) {
  const auto add = [&](const std::string& name, const std::string& linear, const char* input = nullptr) {
    table.push_back({name, find_codec(linear), nullptr, {}, nullptr, input ? find_codec(input) : nullptr});
    return &table.back();
  };
  for (const char* group : {"", "-g64", "-g32"}) {  // 128 without a name
    const std::string g = *group ? group : "-g128", own = group;
    add("w4a16" + own, "int4-ctsym" + g + "-bf16");
    add("w4a16-asym" + own, "int4-ctasym" + g + "-bf16");
    add("w8a16" + own, "int8-ctsym" + g + "-bf16");
    add("w4a8" + own, "int4-ctsym" + g + "-bf16", "int8-ctsym");
    add("w4afp8" + own, "int4-ctsym" + g + "-bf16", "fp8-e4m3-ct");
    add("int4-gptq" + own, "int4-ctsym" + g + "-f16")->one_group = true;
    add("int4-awq" + own, "int4-ctasym" + g + "-f16")->one_group = true;
  }
  add("w8a8", "int8-ctsym-bf16", "int8-ctsym");
  add("fp8-dynamic", "fp8-e4m3-ct-bf16", "fp8-e4m3-ct");
  add("fp8-block", "fp8-e4m3-ct-b128-bf16", "fp8-e4m3-ct-g128");
  add("w8a8-static", "int8-ctsym-bf16", "int8-static-sym");
  add("w8a8-static-asym", "int8-ctsym-bf16", "int8-static-asym");
  add("fp8-static", "fp8-e4m3-ct-tensor-bf16", "fp8-static");
  add("nvfp4-w4a4", "nvfp4-ct", "nvfp4-static");
  add("nvfp4a16", "nvfp4-ct");
  add("mxfp4a16", "mxfp4-even");
  add("mxfp8a16", "mxfp8-e4m3-ct");
  add("mxfp4-ct", "mxfp4-even", "mxfp4-even");
  add("mxfp8-ct", "mxfp8-e4m3-ct", "mxfp8-e4m3-ct");
  add("fp4-dq", "fp4-dq");
}

std::string_view trimmed(std::string_view text) {
  const std::size_t first = text.find_first_not_of(' ');
  return first == std::string_view::npos ? std::string_view() : text.substr(first, text.find_last_not_of(' ') - first + 1);
}

std::vector<Scheme> make_table() {
  std::vector<Scheme> table;
  // Formats by their own names. What no wire carries yet has none.
  for (const char* name : {"int4-sym-g32", "int4-sym-g64", "int4-sym-g128", "int8-sym", "int8-sym-g32", "int8-sym-g64",
                           "int8-sym-g128", "int2-sym-g32", "int3-sym-g32", "int5-sym-g32", "int6-sym-g32", "int4-asym-g32",
                           "int4-asym-g128", "nf4", "nf4-dq", "fp4"})
    table.push_back({name, find_codec(name), nullptr, {}, nullptr});
  // Formats that GPUs multiply with themselves.
  for (const char* name : {"mxfp4", "nvfp4"})
    table.push_back({name, find_codec(name), nullptr, {}, nullptr, find_codec(name)});
  // The names that torchao's users know, of 16-bit checkpoints: what activations are rounded to is in the last column.
  const auto torchao = [&](const char* name, const char* linear, const char* input = nullptr, const char* tables = nullptr) {
    const auto codec = [](const char* format) { return format ? find_codec(format) : nullptr; };
    table.push_back({name, codec(linear), codec(tables), {}, nullptr, codec(input)});
  };
  torchao("int4", "int4-tinygemm-g128-bf16");
  torchao("int4-g64", "int4-tinygemm-g64-bf16");
  torchao("int4-g32", "int4-tinygemm-g32-bf16");
  torchao("int8", "int8-sym-bf16");
  torchao("int8-int4", "int4-sym-g32-bf16", "int8-asym", "int8-sym-bf16");
  torchao("int8-int8", "int8-symeps-bf16", "int8-symeps");
  torchao("fp8-int4", "int4-mslk-g128-bf16", "fp8-e4m3");
  torchao("fp8-int4-g64", "int4-mslk-g64-bf16", "fp8-e4m3");
  torchao("fp8-int4-g32", "int4-mslk-g32-bf16", "fp8-e4m3");
  torchao("fp8-fp8", "fp8-e4m3-bf16", "fp8-e4m3");
  torchao("mxfp8", "mxfp8-e4m3", "mxfp8-e4m3");
  torchao("cactus", "int8-sym-g32-bf16");
  add_others(table);
  for (const LlamaMix& mix : llama_mixes()) {
    table.push_back(
        {std::string(mix.name), find_codec(mix.base), find_codec("q8_0"), {fmt::format("gguf:{}", mix.name)}, &mix});
  }
  return table;
}

/// Projections in the format of that name, where there is one that encodes; made once and never moved.
const Scheme* codec_scheme(std::string_view name) {
  const Codec* codec = find_codec(name);
  if (!codec || !codec->encodes()) return nullptr;
  static std::mutex mutex;
  static std::map<std::string_view, Scheme> made;  // keys: the codecs' own names
  const std::lock_guard lock(mutex);
  return &made.try_emplace(codec->name(), Scheme{std::string(name), codec, nullptr, {}, nullptr}).first->second;
}

/// SCHEME[/ACTIVATIONS][; RULE]…; made once and never moved.
const Scheme& own_scheme(std::string_view text) {
  const std::size_t semicolon = text.find(';');
  const std::string_view head = text.substr(0, semicolon), base = trimmed(head.substr(0, head.find('/')));
  Scheme made = base == "none" ? Scheme{} : scheme(base);
  made.name = base == "none" ? "none" : made.name;
  made.wires.clear();
  if (const std::size_t slash = head.find('/'); slash != std::string_view::npos) {
    const ActivationNames names = split_activations(head.substr(slash + 1));
    made.input = names.input_codec();
    made.name += fmt::format("/{}", names.input);
    if (!names.output.empty()) {
      made.output = names.output_codec();
      made.name += fmt::format("/{}", names.output);
    }
  }
  for (std::size_t at = semicolon; at != std::string_view::npos;) {
    const std::size_t next = text.find(';', at + 1);
    const std::string_view rule = trimmed(text.substr(at + 1, next - at - 1));
    if (!rule.empty()) made.name += "; " + made.rules.emplace_back(TensorRule::parse(rule)).text();
    at = next;
  }
  if (!made.linear && made.rules.empty()) throw BadRecipe("scheme \"{}\": without a rule nothing is quantized", text);
  static std::mutex mutex;
  static std::map<std::string, Scheme, std::less<>> all;
  const std::lock_guard lock(mutex);
  std::string name = made.name;
  return all.try_emplace(std::move(name), std::move(made)).first->second;
}

}  // namespace

const TensorRule* Scheme::rule_for(const TensorPlace& place) const {
  const auto rule = std::find_if(rules.rbegin(), rules.rend(), [&](const TensorRule& r) { return r.selects(place); });
  return rule == rules.rend() ? nullptr : &*rule;
}

Held Scheme::held(const TensorPlace& place, bool importance) const {
  const TensorRule* rule = rule_for(place);
  const Codec* meant = rule ? rule->weights() : mix ? mix_codec(*mix, place, importance) : codec_for(place.role);
  if (!meant || (one_group && !rule)) return {meant, meant};
  const Codec* codec = fallback_for(*meant, place.cols);
  // Where even blocks of 32 do not divide the rows, llama.cpp stores f16.
  if (mix && !rule && !codec->fits(place.cols)) codec = nullptr;
  return {codec, meant};
}

const Codec* Scheme::input_codec_for(const TensorPlace& place) const {
  const bool multiplied = place.role != Role::Norm && (place.role != Role::Embedding || place.tied);
  if (!multiplied || !codec_for(place)) return nullptr;
  const TensorRule* rule = rule_for(place);
  return rule && rule->sets_input() ? rule->input() : input;
}

const Codec* Scheme::output_codec_for(const TensorPlace& place) const {
  if (place.role != Role::Linear || !codec_for(place)) return nullptr;
  const TensorRule* rule = rule_for(place);
  return rule && rule->sets_output() ? rule->output() : output;
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
  if (name.find_first_of("/;") != std::string_view::npos) return own_scheme(name);
  const std::vector<Scheme>& all = schemes();
  static constexpr std::pair<std::string_view, std::string_view> kAliases[] = {
      {"q3_k", "q3_k_m"}, {"q4_k", "q4_k_m"}, {"q5_k", "q5_k_m"}, {"phone-deployment", "int8-int4"}};
  for (const auto& [alias, known] : kAliases)
    if (name == alias) return scheme(known);
  for (const Scheme& candidate : all)
    if (candidate.name == name) return candidate;
  if (const Scheme* own = codec_scheme(name)) return *own;
  std::string known;
  for (const Scheme& candidate : all) known += (known.empty() ? "" : ", ") + candidate.name;
  const auto nearest = std::ranges::min_element(all, {}, [&](const Scheme& s) { return edit_distance(name, s.name); });
  throw BadRecipe("scheme: unknown name \"{}\"; did you mean \"{}\"? Known: {}", name, nearest->name, known);
}

}  // namespace temper::quant
