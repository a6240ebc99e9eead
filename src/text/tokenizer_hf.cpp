// Reading a Hugging Face folder: tokenizer.json, as HF tokenizers defines it, or else tokenizer.model, and the small files
// around it, as transformers 4 and 5 write them.
#include "text/tokenizer_hf.h"

#include <algorithm>

#include "base/error.h"
#include "base/mapped_file.h"
#include "files/json.h"
#include "text/sentencepiece_file.h"
#include "text/tokenizer_spm.h"

namespace temper::text {
namespace {

using files::Json;
using Impl = Tokenizer::Impl;

std::string content_of(const Json& token) {
  if (token.is_string()) return token.get<std::string>();
  const Json* content = files::find_key(token, "content");
  return content != nullptr && content->is_string() ? content->get<std::string>() : std::string();
}

void add_added_token(const AddedToken& token, Impl& impl) {
  const auto kind = token.special ? Impl::Kind::kSpecial : Impl::Kind::kAdded;
  const auto index = static_cast<std::size_t>(token.id);
  if (index < impl.texts.size() && impl.kinds[index] != Impl::Kind::kNone) {
    if (impl.texts[index] != token.content) {
      throw BadFile("{}: added token \"{}\": its id {} is that of \"{}\"", impl.origin, token.content, token.id,
                    impl.texts[index]);
    }
    impl.kinds[index] = kind;
  } else {
    impl.add_token(token.id, token.content, kind);
  }
  impl.added.push_back(token);
}

AddedToken added_token_from_json(const Json& object, std::int64_t id, const Impl& impl) {
  const auto flag = [&](std::string_view key, bool otherwise) {
    return files::optional_bool(object, key, impl.origin).value_or(otherwise);
  };
  AddedToken token;
  token.id = static_cast<std::int32_t>(id);
  token.content = files::require_string(object, "content", impl.origin);
  token.special = flag("special", false);
  token.normalized = flag("normalized", !token.special);
  token.lstrip = flag("lstrip", false);
  token.rstrip = flag("rstrip", false);
  token.single_word = flag("single_word", false);
  return token;
}

/// `added_tokens` of tokenizer.json; then those of tokenizer_config.json's `added_tokens_decoder` that it lacks, which
/// transformers adds on loading.
void read_added_tokens(const Json& root, const Json& config, Impl& impl) {
  const Json* list = files::optional_array(root, "added_tokens", impl.origin);
  const Json* decoder = files::optional_object(config, "added_tokens_decoder", impl.origin);
  const std::int64_t limit =
      greatest_hf_id(impl.texts.size() + (list != nullptr ? list->size() : 0) + (decoder != nullptr ? decoder->size() : 0));
  if (list != nullptr) {
    for (const Json& object : *list) {
      const std::int64_t id = files::require_int(object, "id", impl.origin, 0, limit);
      add_added_token(added_token_from_json(object, id, impl), impl);
    }
  }
  if (decoder == nullptr) return;
  for (const auto& [key, object] : decoder->items()) {
    const bool number =
        !key.empty() && key.size() < 10 && std::all_of(key.begin(), key.end(), [](char c) { return c >= '0' && c <= '9'; });
    if (!number || std::stoll(key) > limit)
      throw BadFile("{}: added_tokens_decoder: expected ids of 0 to {}, found {}", impl.origin, limit, key);
    const AddedToken token = added_token_from_json(object, std::stoll(key), impl);
    const bool known = std::any_of(impl.added.begin(), impl.added.end(),
                                   [&](const AddedToken& other) { return other.content == token.content; });
    if (!known) add_added_token(token, impl);
  }
}

std::int32_t existing_id(const Json& pair, const Impl& impl) {
  if (!pair.is_array() || pair.size() != 2 || !pair[0].is_string()) {
    throw BadFile("{}: post_processor: expected [token, id], found {}", impl.origin, files::describe(pair));
  }
  const auto id = impl.id_of(pair[0].get_ref<const std::string&>());
  if (!id) throw BadFile("{}: post_processor: \"{}\" is not in the vocabulary", impl.origin, pair[0].get<std::string>());
  return *id;
}

/// The `single` template of a TemplateProcessing: special tokens before and after the text.
void read_template(const Json& processor, Impl& impl) {
  const Json& specials = files::require_object(processor, "special_tokens", impl.origin);
  bool after_text = false;
  for (const Json& item : files::require_array(processor, "single", impl.origin)) {
    if (files::find_key(item, "Sequence") != nullptr) {
      after_text = true;
      continue;
    }
    const Json& special = files::require_object(item, "SpecialToken", impl.origin);
    const Json& entry = files::require_object(specials, files::require_string(special, "id", impl.origin), impl.origin);
    for (const Json& id : files::require_array(entry, "ids", impl.origin)) {
      const auto size = static_cast<std::int64_t>(impl.texts.size());
      if (!id.is_number_integer() || id.get<std::int64_t>() < 0 || id.get<std::int64_t>() >= size) {
        throw BadFile("{}: post_processor: expected token ids below {}, found {}", impl.origin, size, files::describe(id));
      }
      (after_text ? impl.suffix : impl.prefix).push_back(static_cast<std::int32_t>(id.get<std::int64_t>()));
    }
  }
}

void read_post_processor(const Json& processor, Impl& impl) {
  const std::string& type = files::require_string(processor, "type", impl.origin);
  if (type == "Sequence") {
    for (const Json& part : files::require_array(processor, "processors", impl.origin)) read_post_processor(part, impl);
  } else if (type == "TemplateProcessing") {
    read_template(processor, impl);
  } else if (type == "RobertaProcessing" || type == "BertProcessing") {
    impl.prefix.push_back(existing_id(files::require_array(processor, "cls", impl.origin), impl));
    impl.suffix.push_back(existing_id(files::require_array(processor, "sep", impl.origin), impl));
  } else if (type != "ByteLevel") {  // ByteLevel concerns offsets only
    throw Unsupported(
        "{}: post_processor: expected TemplateProcessing, RobertaProcessing, BertProcessing, ByteLevel or a Sequence, found "
        "{}",
        impl.origin, type);
  }
}

/// bos_token and the like: tokenizer_config.json first, then special_tokens_map.json.
void read_special_ids(const Json& config, const Json& map, Impl& impl) {
  const auto id_for = [&](std::string_view key) -> std::optional<std::int32_t> {
    for (const Json* source : {&config, &map}) {
      if (const Json* token = files::find_key(*source, key)) return impl.id_of(content_of(*token));
    }
    return std::nullopt;
  };
  for (const auto& [key, id] : {std::pair("bos_token", &impl.bos), std::pair("eos_token", &impl.eos),
                                std::pair("pad_token", &impl.pad), std::pair("unk_token", &impl.unk)}) {
    if (const auto given = id_for(key)) *id = given;
  }
}

/// Some tokenizer classes of transformers rebuild the post-processor from these flags; for others tokenizer.json has the
/// say.
void apply_add_flags(const Json& config, Impl& impl) {
  const std::string name = files::optional_string(config, "tokenizer_class", impl.origin).value_or("");
  const bool heeds =
      name.starts_with("Llama") || name.starts_with("CodeLlama") || name.starts_with("Gemma") || name.starts_with("Cohere");
  if (!heeds) return;
  const auto apply = [&](std::string_view key, const std::optional<std::int32_t>& id, std::vector<std::int32_t>& where) {
    const auto flag = files::optional_bool(config, key, impl.origin);
    if (!flag) return;
    where.clear();
    if (*flag && id) where.push_back(*id);
  };
  apply("add_bos_token", impl.bos, impl.prefix);
  apply("add_eos_token", impl.eos, impl.suffix);
}

std::vector<std::int32_t> generation_eos(const Json& generation, const Impl& impl) {
  std::vector<std::int32_t> ids;
  const Json* eos = files::find_key(generation, "eos_token_id");
  if (eos == nullptr) return ids;
  const Json list = eos->is_array() ? *eos : Json::array({*eos});
  for (const Json& id : list) {
    const auto size = static_cast<std::int64_t>(impl.texts.size());
    if (!id.is_number_integer() || id.get<std::int64_t>() < 0) {
      throw BadFile("{}: generation_config.json: eos_token_id: expected token ids, found {}", impl.origin,
                    files::describe(id));
    }
    if (id.get<std::int64_t>() < size) ids.push_back(static_cast<std::int32_t>(id.get<std::int64_t>()));
  }
  return ids;
}

/// chat_template.jinja (transformers 5, late 4) before tokenizer_config.json's `chat_template`: a string, or a list of named
/// ones.
std::optional<std::string> chat_template_of(const Tokenizer::HfTexts& texts, const Json& config, const std::string& origin) {
  if (!texts.chat_template_jinja.empty()) {
    if (!is_valid_utf8(texts.chat_template_jinja))
      throw BadFile("{}: chat_template.jinja beside it: expected UTF-8", origin);
    return texts.chat_template_jinja;
  }
  const Json* value = files::find_key(config, "chat_template");
  if (value == nullptr) return std::nullopt;
  if (value->is_string()) return value->get<std::string>();
  if (!value->is_array()) {
    throw BadFile("{}: tokenizer_config.json: chat_template: expected a string or a list, found {}", origin,
                  files::describe(*value));
  }
  for (const Json& entry : *value) {
    if (files::require_string(entry, "name", origin) == "default") return files::require_string(entry, "template", origin);
  }
  return std::nullopt;
}

Json parse_optional(const std::string& text, std::string_view name) {
  if (text.empty()) return Json::object();
  Json parsed = files::parse_json(text, name);
  if (!parsed.is_object()) throw BadFile("{}: expected an object, found {}", name, files::describe(parsed));
  return parsed;
}

std::string read_text(const std::filesystem::path& path) {
  if (!std::filesystem::exists(path)) return {};
  const MappedFile file(path);
  return std::string(reinterpret_cast<const char*>(file.bytes().data()), file.bytes().size());
}

/// What the small files say, once the model is there.
void read_beside(const Tokenizer::HfTexts& texts, const Json& config, Impl& impl) {
  const Json map = parse_optional(texts.special_tokens_map_json, "special_tokens_map.json");
  const Json generation = parse_optional(texts.generation_config_json, "generation_config.json");
  read_special_ids(config, map, impl);
  apply_add_flags(config, impl);
  impl.chat_template = chat_template_of(texts, config, impl.origin);
  impl.finish(generation_eos(generation, impl));
}

void read_tokenizer_json(const Tokenizer::HfTexts& texts, const Json& config, Impl& impl) {
  const Json root = files::parse_json(texts.tokenizer_json, texts.name);
  if (!root.is_object()) throw BadFile("{}: expected an object, found {}", texts.name, files::describe(root));
  JsonPreTokenizer pre_tokenizer;
  if (const Json* object = files::optional_object(root, "pre_tokenizer", impl.origin))
    pre_tokenizer = pre_tokenizer_from_json(*object, impl.origin);
  read_hf_model(root, pre_tokenizer.byte_level, impl);
  impl.pre_tokenizer = std::make_unique<PreTokenizer>(std::move(pre_tokenizer.steps), impl.origin);
  read_added_tokens(root, config, impl);
  impl.index_tokens();
  if (const Json* normalizer = files::optional_object(root, "normalizer", impl.origin))
    impl.normalizer = Normalizer(normalizer_from_json(*normalizer, impl.origin), impl.origin);
  read_hf_decoder(root, impl);
  if (const Json* processor = files::optional_object(root, "post_processor", impl.origin))
    read_post_processor(*processor, impl);
  impl.hf_json = texts.tokenizer_json;
  impl.hf_config_json = texts.tokenizer_config_json;
}

/// Tokens that transformers adds to those of a tokenizer.model come from tokenizer_config.json.
void read_tokenizer_model(const Tokenizer::HfTexts& texts, const Json& config, Impl& impl) {
  GgufTokenizer model = read_sentencepiece(texts.tokenizer_model, texts.name);
  add_gguf_tokens(model, impl);
  read_added_tokens(Json::object(), config, impl);
  impl.index_tokens();
  model.tokens.resize(impl.texts.size());
  model.scores.resize(impl.texts.size());  // of added tokens, which no score picks
  build_sentencepiece(model, impl);
  take_gguf_ids(model, impl);
}

}  // namespace

Tokenizer Tokenizer::from_hf_texts(const HfTexts& texts) {
  auto impl = std::make_shared<Impl>();
  impl->origin = texts.name;
  const Json config = parse_optional(texts.tokenizer_config_json, "tokenizer_config.json");
  impl->tokenizer_model = texts.tokenizer_model;
  if (texts.tokenizer_json.empty() && !texts.tokenizer_model.empty()) {
    read_tokenizer_model(texts, config, *impl);
  } else {
    read_tokenizer_json(texts, config, *impl);
  }
  read_beside(texts, config, *impl);
  return Tokenizer(std::move(impl));
}

Tokenizer Tokenizer::from_hf_folder(const std::filesystem::path& folder) {
  const std::filesystem::path main = folder / "tokenizer.json", model = folder / "tokenizer.model";
  const bool has_main = std::filesystem::exists(main);
  if (!has_main && !std::filesystem::exists(model))
    throw BadFile("{}: not found, nor is tokenizer.model beside it", main.string());
  return from_hf_texts({.tokenizer_json = read_text(main),
                        .tokenizer_config_json = read_text(folder / "tokenizer_config.json"),
                        .special_tokens_map_json = read_text(folder / "special_tokens_map.json"),
                        .generation_config_json = read_text(folder / "generation_config.json"),
                        .chat_template_jinja = read_text(folder / "chat_template.jinja"),
                        .tokenizer_model = read_text(model),
                        .name = (has_main ? main : model).string()});
}

}  // namespace temper::text
