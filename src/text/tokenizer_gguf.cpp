// Tokenizers in GGUF metadata: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md ("Tokenizer"), with llama.cpp's
// defaults.
#include <array>
#include <limits>

#include "base/error.h"
#include "files/gguf.h"
#include "text/bpe.h"
#include "text/tokenizer_spm.h"

namespace temper::text {
namespace {

using Impl = Tokenizer::Impl;

// Values of tokenizer.ggml.token_type.
constexpr std::int32_t kNormal = 1, kUnknown = 2, kControl = 3, kUserDefined = 4, kUnused = 5, kByte = 6;

constexpr std::uint32_t kNoId = std::numeric_limits<std::uint32_t>::max();  // some writers store -1 for "none"

Impl::Kind kind_of(std::int32_t type, std::string_view text, std::size_t id, const std::string& origin) {
  switch (type) {
    case kNormal: return Impl::Kind::kNormal;
    case kByte: return byte_of_token(text) ? Impl::Kind::kByte : Impl::Kind::kNormal;
    case kUnknown:
    case kControl: return Impl::Kind::kSpecial;
    case kUserDefined: return Impl::Kind::kAdded;
    case kUnused: return Impl::Kind::kUnused;
    default: throw BadFile("{}: tokenizer.ggml.token_type[{}]: expected 1 to 6, found {}", origin, id, type);
  }
}

std::optional<std::int32_t> checked_id(std::optional<std::int32_t> id, std::string_view key, const Impl& impl) {
  if (id && (*id < 0 || static_cast<std::size_t>(*id) >= impl.texts.size())) {
    throw BadFile("{}: tokenizer.ggml.{}: expected 0 to {}, found {}", impl.origin, key, impl.texts.size() - 1, *id);
  }
  return id;
}

/// Phi-3's special tokens take white space along, but for these.
bool keeps_space_after(std::string_view text) { return text == "<unk>" || text == "<s>" || text == "<|endoftext|>"; }

std::vector<std::int32_t> own_eog(const GgufTokenizer& metadata, const Impl& impl) {
  std::vector<std::int32_t> ids;
  for (const auto& [id, key] : {std::pair(metadata.eot_id, "eot_token_id"), std::pair(metadata.eom_id, "eom_token_id")}) {
    if (const auto known = checked_id(id, key, impl)) ids.push_back(*known);
  }
  return ids;
}

std::int32_t type_of(Impl::Kind kind) {
  switch (kind) {
    case Impl::Kind::kSpecial: return kControl;
    case Impl::Kind::kAdded: return kUserDefined;
    case Impl::Kind::kNormal: return kNormal;
    case Impl::Kind::kByte: return kByte;
    case Impl::Kind::kUnused:
    case Impl::Kind::kNone: return kUnused;
  }
  return kUnused;
}

std::vector<std::string> strings_of(std::span<const std::string_view> views) { return {views.begin(), views.end()}; }

/// What llama.cpp takes where a file says nothing.
struct Defaults {
  std::optional<std::int32_t> bos = {}, eos = {}, unk = {}, pad = {};
  bool add_bos = false, add_eos = false, add_space_prefix = false;
};

Defaults defaults_of(const GgufTokenizer& metadata) {
  if (metadata.model == "llama") return {.bos = 1, .eos = 2, .unk = 0, .add_bos = true, .add_space_prefix = true};
  if (metadata.model == "t5") return {.eos = 1, .unk = 2, .pad = 0, .add_eos = true};
  const auto named = named_pre_tokenizer(metadata.pre);
  return {.add_bos = named && named->add_bos};
}

void read_arrays(const files::GgufFile& file, GgufTokenizer& metadata) {
  const std::string& origin = file.origin();
  metadata.tokens = strings_of(file.get_string_array("tokenizer.ggml.tokens"));
  if (const auto types = file.optional_int_array("tokenizer.ggml.token_type")) {
    for (const std::int64_t type : *types) {
      if (type < kNormal || type > kByte) {
        throw BadFile("{}: tokenizer.ggml.token_type: expected values of 1 to 6, found {}", origin, type);
      }
      metadata.token_type.push_back(static_cast<std::int32_t>(type));
    }
  }
  if (const auto merges = file.optional_string_array("tokenizer.ggml.merges")) metadata.merges = strings_of(*merges);
  if (auto scores = file.optional_f32_array("tokenizer.ggml.scores")) metadata.scores = *std::move(scores);
  if (const auto map = file.optional_int_array("tokenizer.ggml.precompiled_charsmap")) {
    for (const std::int64_t byte : *map) metadata.precompiled_charsmap.push_back(static_cast<char>(byte));
  }
}

void read_ids(const files::GgufFile& file, const Defaults& defaults, GgufTokenizer& metadata) {
  const auto id = [&](std::string_view key, std::optional<std::int32_t> otherwise) -> std::optional<std::int32_t> {
    const auto value = file.optional_u32(key);
    const auto size = metadata.tokens.size();
    if (!value) return otherwise && static_cast<std::size_t>(*otherwise) < size ? otherwise : std::nullopt;
    if (*value == kNoId) return std::nullopt;
    if (*value >= size) {
      throw BadFile("{}: {}: expected a token id below {}, found {}", file.origin(), key, size, *value);
    }
    return static_cast<std::int32_t>(*value);
  };
  metadata.bos_id = id("tokenizer.ggml.bos_token_id", defaults.bos);
  metadata.eos_id = id("tokenizer.ggml.eos_token_id", defaults.eos);
  metadata.eot_id = id("tokenizer.ggml.eot_token_id", {});
  metadata.eom_id = id("tokenizer.ggml.eom_token_id", {});
  metadata.pad_id = id("tokenizer.ggml.padding_token_id", defaults.pad);
  metadata.unk_id = id("tokenizer.ggml.unknown_token_id", defaults.unk);
}

/// llama.cpp knows by the model's name that its special tokens take the white space after them along.
bool is_phi3(const files::GgufFile& file) { return file.optional_string("general.architecture").value_or("") == "phi3"; }

void build_byte_level(GgufTokenizer& metadata, Impl& impl) {
  auto named = named_pre_tokenizer(metadata.pre);
  if (!named) {
    throw Unsupported("{}: tokenizer.ggml.pre: {} is not known; known are {}", impl.origin, metadata.pre,
                      known_pre_tokenizers());
  }
  add_gguf_tokens(metadata, impl);
  impl.merges = std::move(metadata.merges);
  impl.ignore_merges = named->ignore_merges;
  impl.model = std::make_unique<Bpe>(impl.ids, impl.merges, BpeOptions{.ignore_merges = named->ignore_merges}, impl.origin);
  impl.pre_tokenizer = std::make_unique<PreTokenizer>(std::move(named->steps), impl.origin);
}

/// Model, pre-tokenizer and flags of a tokenizer that came from a folder.
void describe_for_gguf(const Impl& impl, GgufTokenizer& out) {
  if (impl.kind_of_model != Impl::Model::kByteBpe) return describe_sentencepiece(impl, out);
  const auto name = name_of_pre_tokenizer(impl.pre_tokenizer->steps(), impl.ignore_merges);
  if (!name) {
    throw Unsupported("{}: its pre-tokenizer has no name in GGUF that temper knows (known are {}); export to another format",
                      impl.origin, known_pre_tokenizers());
  }
  out.model = "gpt2";
  out.pre = *name;
}

}  // namespace

void add_gguf_tokens(const GgufTokenizer& metadata, Tokenizer::Impl& impl) {
  if (metadata.tokens.empty()) throw BadFile("{}: tokenizer.ggml.tokens: expected tokens, found none", impl.origin);
  if (!metadata.token_type.empty() && metadata.token_type.size() != metadata.tokens.size()) {
    throw BadFile("{}: tokenizer.ggml.token_type: expected {} entries, one per token, found {}", impl.origin,
                  metadata.tokens.size(), metadata.token_type.size());
  }
  for (std::size_t i = 0; i < metadata.tokens.size(); ++i) {
    const auto id = static_cast<std::int32_t>(i);
    Impl::Kind kind = Impl::Kind::kNormal;
    if (!metadata.token_type.empty()) kind = kind_of(metadata.token_type[i], metadata.tokens[i], i, impl.origin);
    if (ends_turn(metadata.tokens[i]))
      kind = Impl::Kind::kSpecial;  // old converters left them NORMAL; llama.cpp mends it too
    const std::string text = metadata.tokens[i].empty() ? "[EMPTY_" + std::to_string(i) + "]" : metadata.tokens[i];
    impl.add_token(id, text, kind);
    const bool special = kind == Impl::Kind::kSpecial;
    if (!special && kind != Impl::Kind::kAdded) continue;
    const bool strips = metadata.special_strip_right && !keeps_space_after(text);
    impl.added.push_back({.id = id, .content = text, .special = special, .rstrip = strips});
  }
  impl.index_tokens();
}

void take_gguf_ids(const GgufTokenizer& metadata, Tokenizer::Impl& impl) {
  impl.bos = checked_id(metadata.bos_id, "bos_token_id", impl);
  impl.eos = checked_id(metadata.eos_id, "eos_token_id", impl);
  impl.pad = checked_id(metadata.pad_id, "padding_token_id", impl);
  impl.unk = checked_id(metadata.unk_id, "unknown_token_id", impl);
  if (metadata.add_bos && impl.bos) impl.prefix.push_back(*impl.bos);
  if (metadata.add_eos && impl.eos) impl.suffix.push_back(*impl.eos);
}

Tokenizer Tokenizer::from_gguf(const files::GgufFile& file) {
  GgufTokenizer metadata;
  metadata.model = file.get_string("tokenizer.ggml.model");
  metadata.pre = file.optional_string("tokenizer.ggml.pre").value_or("default");  // as llama.cpp reads old files
  const Defaults defaults = defaults_of(metadata);
  read_arrays(file, metadata);
  read_ids(file, defaults, metadata);
  const auto flag = [&](std::string_view key, bool otherwise) { return file.optional_bool(key).value_or(otherwise); };
  metadata.add_bos = flag("tokenizer.ggml.add_bos_token", defaults.add_bos);
  metadata.add_eos = flag("tokenizer.ggml.add_eos_token", defaults.add_eos);
  metadata.add_space_prefix = flag("tokenizer.ggml.add_space_prefix", defaults.add_space_prefix);
  metadata.remove_extra_whitespaces = flag("tokenizer.ggml.remove_extra_whitespaces", false);
  if (metadata.model == "llama") {  // llama.cpp does neither of these there
    metadata.remove_extra_whitespaces = false;
    metadata.precompiled_charsmap.clear();
  }
  metadata.special_strip_right = metadata.model == "llama" && is_phi3(file);
  if (const auto text = file.optional_string("tokenizer.chat_template")) metadata.chat_template = std::string(*text);
  return from_gguf_metadata(std::move(metadata), file.origin());
}

Tokenizer Tokenizer::from_gguf_metadata(GgufTokenizer metadata, const std::string& name) {
  if (metadata.chat_template && !is_valid_utf8(*metadata.chat_template)) {
    throw BadFile("{}: tokenizer.chat_template: expected UTF-8, found other bytes", name);
  }
  auto impl = std::make_shared<Impl>();
  impl->origin = name;
  if (metadata.model == "llama" || metadata.model == "t5") {
    add_gguf_tokens(metadata, *impl);
    build_sentencepiece(metadata, *impl);
  } else if (metadata.model == "gpt2") {
    build_byte_level(metadata, *impl);
  } else {
    throw Unsupported(
        "{}: tokenizer.ggml.model: expected gpt2 (byte-level BPE), llama (SentencePiece's BPE) or t5 (unigram), found {}",
        name, metadata.model);
  }
  take_gguf_ids(metadata, *impl);
  impl->chat_template = metadata.chat_template;
  impl->finish(own_eog(metadata, *impl));
  metadata.tokens.clear();  // held in another form
  metadata.token_type.clear();
  metadata.scores.clear();
  impl->gguf = std::move(metadata);
  return Tokenizer(std::move(impl));
}

GgufTokenizer Tokenizer::to_gguf() const {
  const Impl& impl = *impl_;
  GgufTokenizer out;
  if (impl.gguf) {
    out = *impl.gguf;
  } else {
    describe_for_gguf(impl, out);
    out.bos_id = impl.bos;
    out.eos_id = impl.eos;
    out.pad_id = impl.pad;
    out.unk_id = impl.unk;
    out.add_bos = adds_bos();
    out.add_eos = adds_eos();
    out.chat_template = impl.chat_template;
  }
  for (std::size_t i = 0; i < impl.texts.size(); ++i) {
    const bool hole = impl.kinds[i] == Impl::Kind::kNone;
    out.tokens.push_back(hole ? "[PAD" + std::to_string(i) + "]" : impl.texts[i]);
    const bool unknown = impl.kind_of_model != Impl::Model::kByteBpe && impl.unk == static_cast<std::int32_t>(i);
    out.token_type.push_back(unknown ? kUnknown : type_of(impl.kinds[i]));
  }
  if (impl.kind_of_model == Impl::Model::kByteBpe) {
    out.merges = impl.merges;
  } else {
    out.scores = gguf_scores(impl);
  }
  return out;
}

}  // namespace temper::text
