// The table of number formats.
#include <map>
#include <mutex>

#include "quant/formats.h"
#include "quant/scaled_codec.h"
#include "quant/scaled_format.h"

namespace temper::quant {
namespace {

std::vector<CodecPtr> make_table() {
  std::vector<CodecPtr> table;
  for (const char* name :
       {"int4-sym-g32", "int4-sym-g64", "int4-sym-g128", "int8-sym", "int8-sym-g32", "int8-sym-g64", "int8-sym-g128"})
    table.push_back(make_scaled(name));
  for (auto* make : {make_q4_0, make_q8_0, make_q4_1, make_q5_0, make_q5_1, make_q2_k, make_q3_k, make_q4_k, make_q5_k,
                     make_q6_k, make_iq4_nl, make_iq4_xs, make_tq1_0, make_tq2_0, make_gguf_mxfp4, make_gguf_nvfp4})
    table.push_back(make());
  for (CodecPtr& codec : make_grid_formats()) table.push_back(std::move(codec));
  for (const char* name : {"int2-sym-g32", "int3-sym-g32", "int5-sym-g32", "int6-sym-g32", "int4-asym-g32", "int4-asym-g128",
                           "int4-sym-g32-bf16", "int4-sym-g128-bf16", "int8-sym-bf16", "int8-sym-g32-bf16", "int8-symeps",
                           "int8-symeps-bf16", "int4-tinygemm-g128-bf16", "int4-mslk-g128-bf16", "int4-ctsym-g128-bf16",
                           "int4-ctasym-g128-bf16", "int8-ctsym-bf16"})
    table.push_back(make_scaled(name));
  for (const ScaledFormat& format : float_formats())
    if (!format.fixed) table.push_back(make_scaled(format.name));  // of activations alone: made when asked for
  return table;
}

}  // namespace

const std::vector<const Codec*>& codecs() {
  static const std::vector<CodecPtr> owners = make_table();
  static const std::vector<const Codec*> table = [] {
    std::vector<const Codec*> pointers;
    for (const CodecPtr& codec : owners) pointers.push_back(codec.get());
    return pointers;
  }();
  return table;
}

const Codec* find_codec(std::string_view name) {
  for (const Codec* codec : codecs())
    if (codec->name() == name) return codec;
  // Made when asked for, once, and never moved: codecs are compared by address.
  static std::mutex mutex;
  static std::map<std::string, CodecPtr, std::less<>> made;
  const std::lock_guard lock(mutex);
  if (const auto found = made.find(name); found != made.end()) return found->second.get();
  CodecPtr codec = make_scaled(name);
  if (!codec) return nullptr;
  return made.emplace(std::string(name), std::move(codec)).first->second.get();
}

// Two types of GGUF have names that mean other formats elsewhere.
const Codec* gguf_codec(std::string_view type) {
  const Codec* own = find_codec(fmt::format("gguf-{}", type));
  return own ? own : find_codec(type);
}

std::string_view gguf_type(const Codec& codec) {
  if (as_scaled(&codec)) return {};  // mxfp4 and nvfp4 too: GGUF's have blocks of their own
  const std::string_view name = codec.name();
  return name.starts_with("gguf-") ? name.substr(5) : name;
}

std::vector<const Codec*> codecs_that_fit(std::int64_t cols) {
  std::vector<const Codec*> fitting;
  for (const Codec* codec : codecs())
    if (codec->encodes() && codec->fits(cols)) fitting.push_back(codec);
  return fitting;
}

}  // namespace temper::quant
