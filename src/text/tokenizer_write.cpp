// tokenizer.json and tokenizer_config.json for a tokenizer that came from GGUF.
#include <algorithm>

#include "base/error.h"
#include "files/json.h"
#include "text/tokenizer_spm.h"

namespace temper::text {
namespace {

using files::Json;
using Impl = Tokenizer::Impl;

Json added_token_json(const AddedToken& token, bool with_id) {
  Json object = {{"content", token.content}, {"single_word", token.single_word}, {"lstrip", token.lstrip},
                 {"rstrip", token.rstrip},   {"normalized", token.normalized},   {"special", token.special}};
  if (with_id) object["id"] = token.id;
  return object;
}

/// A TemplateProcessing that puts `prefix` and `suffix` around each text; without them, for bytes, ByteLevel, which adds
/// nothing.
Json post_processor_json(const Impl& impl) {
  if (impl.prefix.empty() && impl.suffix.empty()) {
    if (impl.kind_of_model != Impl::Model::kByteBpe) return nullptr;
    return {{"type", "ByteLevel"}, {"add_prefix_space", true}, {"trim_offsets", false}, {"use_regex", true}};
  }
  Json specials = Json::object();
  const auto append = [&](Json& list, const std::vector<std::int32_t>& ids, int type_id) {
    for (const std::int32_t id : ids) {
      const std::string& text = impl.texts[static_cast<std::size_t>(id)];
      list.push_back({{"SpecialToken", {{"id", text}, {"type_id", type_id}}}});
      specials[text] = {{"id", text}, {"ids", {id}}, {"tokens", {text}}};
    }
  };
  const auto text_between = [&](Json& list, std::string_view name, int type_id) {
    append(list, impl.prefix, type_id);
    list.push_back({{"Sequence", {{"id", name}, {"type_id", type_id}}}});
    append(list, impl.suffix, type_id);
  };
  Json single = Json::array();
  Json pair = Json::array();
  text_between(single, "A", 0);
  text_between(pair, "A", 0);
  text_between(pair, "B", 1);
  return {{"type", "TemplateProcessing"}, {"single", single}, {"pair", pair}, {"special_tokens", specials}};
}

Json bpe_json(const Impl& impl) {
  const bool bytes = impl.kind_of_model == Impl::Model::kByteBpe;
  Json vocab = Json::object();
  for (std::size_t i = 0; i < impl.texts.size(); ++i) {
    // Added tokens too: HF tokenizers gives an added token the id that the model's vocabulary has for it.
    if (impl.kinds[i] != Impl::Kind::kNone) vocab[impl.texts[i]] = i;
  }
  return {{"type", "BPE"},
          {"dropout", nullptr},
          {"unk_token", bytes || !impl.unk ? Json() : Json(impl.texts[static_cast<std::size_t>(*impl.unk)])},
          {"continuing_subword_prefix", nullptr},
          {"end_of_word_suffix", nullptr},
          {"fuse_unk", !bytes},
          {"byte_fallback", !bytes},
          {"ignore_merges", impl.ignore_merges},
          {"vocab", std::move(vocab)},
          {"merges", bytes ? impl.merges : merges_of_scores(impl)}};
}

/// HF tokenizers measures unknown characters by the lowest score of all: tokens that no text has must not be lower.
Json unigram_json(const Impl& impl) {
  double lowest = 0.0;
  bool byte_fallback = false;
  for (std::size_t i = 0; i < impl.texts.size(); ++i) {
    if (impl.kinds[i] == Impl::Kind::kNormal) lowest = std::min(lowest, impl.scores[i]);
    byte_fallback = byte_fallback || impl.kinds[i] == Impl::Kind::kByte;
  }
  Json vocab = Json::array();
  for (std::size_t i = 0; i < impl.texts.size(); ++i)
    vocab.push_back(Json::array({impl.texts[i], std::max(impl.scores[i], lowest)}));
  return {{"type", "Unigram"}, {"unk_id", *impl.unk}, {"byte_fallback", byte_fallback}, {"vocab", std::move(vocab)}};
}

Json decoder_json(const Impl& impl) {
  if (impl.kind_of_model == Impl::Model::kByteBpe)
    return {{"type", "ByteLevel"}, {"add_prefix_space", true}, {"trim_offsets", true}, {"use_regex", true}};
  Json parts = {{{"type", "Replace"}, {"pattern", {{"String", kMetaspace}}}, {"content", " "}},
                {{"type", "ByteFallback"}},
                {{"type", "Fuse"}}};
  if (impl.strip_left > 0) parts.push_back({{"type", "Strip"}, {"content", " "}, {"start", impl.strip_left}, {"stop", 0}});
  return {{"type", "Sequence"}, {"decoders", std::move(parts)}};
}

}  // namespace

std::string Tokenizer::to_hf_json() const {
  const Impl& impl = *impl_;
  if (!impl.hf_json.empty()) return impl.hf_json;
  Json added = Json::array();
  for (const AddedToken& token : impl.added) added.push_back(added_token_json(token, true));
  const bool bytes = impl.kind_of_model == Impl::Model::kByteBpe;
  const Json root = {{"version", "1.0"},
                     {"truncation", nullptr},
                     {"padding", nullptr},
                     {"added_tokens", std::move(added)},
                     {"normalizer", normalizer_to_json(impl.normalizer.steps())},
                     {"pre_tokenizer", bytes ? pre_tokenizer_to_json(impl.pre_tokenizer->steps()) : Json()},
                     {"post_processor", post_processor_json(impl)},
                     {"decoder", decoder_json(impl)},
                     {"model", impl.kind_of_model == Impl::Model::kUnigram ? unigram_json(impl) : bpe_json(impl)}};
  return root.dump(1) + "\n";
}

std::string Tokenizer::to_hf_config_json() const {
  const Impl& impl = *impl_;
  Json config = Json::object();
  if (!impl.hf_json.empty()) {
    if (!impl.hf_config_json.empty()) config = files::parse_json(impl.hf_config_json, impl.origin);
    // A template that lay in a file of its own.
    if (impl.chat_template && files::find_key(config, "chat_template") == nullptr)
      config["chat_template"] = *impl.chat_template;
    return config.dump(2) + "\n";
  }
  config = {{"tokenizer_class", "PreTrainedTokenizerFast"}, {"clean_up_tokenization_spaces", false}};
  const auto name = [&](std::string_view key, const std::optional<std::int32_t>& id) {
    if (id) config[std::string(key)] = impl.texts[static_cast<std::size_t>(*id)];
  };
  name("bos_token", impl.bos);
  name("eos_token", impl.eos);
  name("pad_token", impl.pad);
  name("unk_token", impl.unk);
  if (impl.chat_template) config["chat_template"] = *impl.chat_template;
  Json decoder = Json::object();
  for (const AddedToken& token : impl.added) decoder[std::to_string(token.id)] = added_token_json(token, false);
  config["added_tokens_decoder"] = std::move(decoder);
  return config.dump(2) + "\n";
}

}  // namespace temper::text
