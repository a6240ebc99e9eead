// Reading a Hugging Face folder: tokenizer.json, as HF tokenizers defines it, and the small files around it, as transformers
// 4 and 5 write them.
#include <algorithm>
#include <array>

#include "base/error.h"
#include "base/mapped_file.h"
#include "files/json.h"
#include "text/tokenizer_impl.h"

namespace temper::text {
namespace {

using files::Json;
using Impl = Tokenizer::Impl;

/// Ids may have holes, but a file of a few bytes must not ask for a table of a billion entries.
std::int64_t greatest_id(std::size_t tokens) { return static_cast<std::int64_t>(2 * tokens + 65536); }

std::string content_of(const Json& token) {
  if (token.is_string()) return token.get<std::string>();
  const Json* content = files::find_key(token, "content");
  return content != nullptr && content->is_string() ? content->get<std::string>() : std::string();
}

void refuse(const Json& model, std::string_view key, const std::string& origin) {
  const Json* value = files::find_key(model, key);
  const bool unset = value == nullptr || (value->is_string() && value->get<std::string>().empty()) ||
                     (value->is_boolean() && !value->get<bool>()) || (value->is_number() && value->get<double>() == 0.0);
  if (!unset) throw Unsupported("{}: model.{}: expected none, found {}", origin, key, files::describe(*value));
}

void read_vocabulary(const Json& model, Impl& impl) {
  const Json& vocab = files::require_object(model, "vocab", impl.origin);
  const std::int64_t limit = greatest_id(vocab.size());
  for (const auto& [text, id] : vocab.items()) {
    if (!id.is_number_integer() || id.get<std::int64_t>() < 0 || id.get<std::int64_t>() > limit) {
      throw BadFile("{}: vocab: \"{}\": expected an id of 0 to {}, found {}", impl.origin, text, limit, files::describe(id));
    }
    impl.add_token(static_cast<std::int32_t>(id.get<std::int64_t>()), text, Impl::Kind::kNormal);
  }
}

void read_merges(const Json& model, Impl& impl) {
  for (const Json& merge : files::require_array(model, "merges", impl.origin)) {
    if (merge.is_string()) {
      impl.merges.push_back(merge.get<std::string>());
    } else if (merge.is_array() && merge.size() == 2 && merge[0].is_string() && merge[1].is_string()) {
      const auto& left = merge[0].get_ref<const std::string&>();
      const auto& right = merge[1].get_ref<const std::string&>();
      if (left.find(' ') != std::string::npos || right.find(' ') != std::string::npos) {
        throw Unsupported("{}: merge [\"{}\", \"{}\"]: a space within a part is outside the byte-level alphabet",
                          impl.origin, left, right);
      }
      impl.merges.push_back(left + " " + right);
    } else {
      throw BadFile("{}: merges: expected \"left right\" or [\"left\", \"right\"], found {}", impl.origin,
                    files::describe(merge));
    }
  }
}

void read_model(const Json& root, Impl& impl) {
  const Json& model = files::require_object(root, "model", impl.origin);
  const std::string type = files::optional_string(model, "type", impl.origin)
                               .value_or(files::find_key(model, "merges") != nullptr ? "BPE" : "unknown");
  if (type != "BPE") throw Unsupported("{}: model.type: expected BPE (byte-level), found {}", impl.origin, type);
  if (files::optional_bool(model, "byte_fallback", impl.origin).value_or(false)) {
    throw Unsupported("{}: model.byte_fallback: SentencePiece-style BPE is not supported yet, only byte-level BPE",
                      impl.origin);
  }
  refuse(model, "dropout", impl.origin);
  refuse(model, "continuing_subword_prefix", impl.origin);
  refuse(model, "end_of_word_suffix", impl.origin);
  read_vocabulary(model, impl);
  read_merges(model, impl);
  impl.index_tokens();
  BpeOptions options;
  options.ignore_merges = impl.ignore_merges = files::optional_bool(model, "ignore_merges", impl.origin).value_or(false);
  options.fuse_unknown = files::optional_bool(model, "fuse_unk", impl.origin).value_or(false);
  if (const auto unknown = files::optional_string(model, "unk_token", impl.origin)) {
    options.unknown = impl.unk = impl.id_of(*unknown);
  }
  impl.bpe = std::make_unique<Bpe>(impl.ids, impl.merges, options, impl.origin);
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
      greatest_id(impl.texts.size() + (list != nullptr ? list->size() : 0) + (decoder != nullptr ? decoder->size() : 0));
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

void read_normalizer(const Json& normalizer, Impl& impl) {
  constexpr std::array<std::pair<std::string_view, NormalForm>, 4> kForms = {
      {{"NFC", NormalForm::kNfc}, {"NFD", NormalForm::kNfd}, {"NFKC", NormalForm::kNfkc}, {"NFKD", NormalForm::kNfkd}}};
  const std::string& type = files::require_string(normalizer, "type", impl.origin);
  if (type == "Sequence") {
    for (const Json& part : files::require_array(normalizer, "normalizers", impl.origin)) read_normalizer(part, impl);
    return;
  }
  const auto* found = std::find_if(kForms.begin(), kForms.end(), [&](const auto& form) { return form.first == type; });
  if (found == kForms.end()) {
    throw Unsupported("{}: normalizer: expected NFC, NFD, NFKC, NFKD or a Sequence of these, found {}", impl.origin, type);
  }
  impl.normal_forms.push_back(found->second);
}

void check_decoder(const Json& root, const std::string& origin) {
  const Json* decoder = files::optional_object(root, "decoder", origin);
  if (decoder == nullptr) return;
  const std::string& type = files::require_string(*decoder, "type", origin);
  if (type != "ByteLevel") throw Unsupported("{}: decoder: expected ByteLevel, found {}", origin, type);
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
  impl.bos = id_for("bos_token");
  impl.eos = id_for("eos_token");
  impl.pad = id_for("pad_token");
  if (const auto unknown = id_for("unk_token")) impl.unk = unknown;
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

}  // namespace

Tokenizer Tokenizer::from_hf_texts(const HfTexts& texts) {
  auto impl = std::make_shared<Impl>();
  impl->origin = texts.name;
  const Json root = files::parse_json(texts.tokenizer_json, texts.name);
  if (!root.is_object()) throw BadFile("{}: expected an object, found {}", texts.name, files::describe(root));
  const Json config = parse_optional(texts.tokenizer_config_json, "tokenizer_config.json");
  const Json map = parse_optional(texts.special_tokens_map_json, "special_tokens_map.json");
  const Json generation = parse_optional(texts.generation_config_json, "generation_config.json");

  read_model(root, *impl);
  read_added_tokens(root, config, *impl);
  impl->index_tokens();
  if (const Json* normalizer = files::optional_object(root, "normalizer", impl->origin)) read_normalizer(*normalizer, *impl);
  const Json& pre_tokenizer = files::require_object(root, "pre_tokenizer", impl->origin);
  impl->pre_tokenizer = std::make_unique<PreTokenizer>(pre_tokenizer_from_json(pre_tokenizer, impl->origin), impl->origin);
  check_decoder(root, impl->origin);
  if (const Json* processor = files::optional_object(root, "post_processor", impl->origin))
    read_post_processor(*processor, *impl);
  read_special_ids(config, map, *impl);
  apply_add_flags(config, *impl);
  impl->chat_template = chat_template_of(texts, config, impl->origin);
  impl->hf_json = texts.tokenizer_json;
  impl->hf_config_json = texts.tokenizer_config_json;
  impl->finish(generation_eos(generation, *impl));
  return Tokenizer(std::move(impl));
}

Tokenizer Tokenizer::from_hf_folder(const std::filesystem::path& folder) {
  const std::filesystem::path main = folder / "tokenizer.json";
  if (!std::filesystem::exists(main)) {
    throw BadFile(
        "{}: not found; temper reads tokenizer.json (a folder with tokenizer.model alone has to be converted first)",
        main.string());
  }
  return from_hf_texts({.tokenizer_json = read_text(main),
                        .tokenizer_config_json = read_text(folder / "tokenizer_config.json"),
                        .special_tokens_map_json = read_text(folder / "special_tokens_map.json"),
                        .generation_config_json = read_text(folder / "generation_config.json"),
                        .chat_template_jinja = read_text(folder / "chat_template.jinja"),
                        .name = main.string()});
}

}  // namespace temper::text
