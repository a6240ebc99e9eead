// The table of number formats.
#include "quant/formats.h"

namespace temper::quant {
namespace {

std::vector<CodecPtr> make_table() {
  std::vector<CodecPtr> table;
  for (const std::int64_t group : {32, 64, 128}) table.push_back(make_int_sym(4, group));
  for (const std::int64_t group : {0, 32, 64, 128}) table.push_back(make_int_sym(8, group));
  for (auto* make :
       {make_q4_0, make_q8_0, make_q4_1, make_q5_0, make_q5_1, make_q2_k, make_q3_k, make_q4_k, make_q5_k, make_q6_k})
    table.push_back(make());
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
  return nullptr;
}

std::vector<const Codec*> codecs_that_fit(std::int64_t cols) {
  std::vector<const Codec*> fitting;
  for (const Codec* codec : codecs())
    if (codec->encodes() && codec->fits(cols)) fitting.push_back(codec);
  return fitting;
}

}  // namespace temper::quant
