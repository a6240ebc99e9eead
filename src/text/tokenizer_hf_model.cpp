// `model` and `decoder` of tokenizer.json, as HF tokenizers defines them.
#include <algorithm>
#include <cmath>

#include "base/error.h"
#include "text/bpe.h"
#include "text/tokenizer_hf.h"
#include "text/unigram.h"

namespace temper::text {
namespace {

using files::Json;
using Impl = Tokenizer::Impl;

void refuse(const Json& model, std::string_view key, const std::string& origin) {
  const Json* value = files::find_key(model, key);
  const bool unset = value == nullptr || (value->is_string() && value->get<std::string>().empty()) ||
                     (value->is_boolean() && !value->get<bool>()) || (value->is_number() && value->get<double>() == 0.0);
  if (!unset) throw Unsupported("{}: model.{}: expected none, found {}", origin, key, files::describe(*value));
}

Impl::Kind kind_of(std::string_view text, bool byte_fallback) {
  return byte_fallback && byte_of_token(text) ? Impl::Kind::kByte : Impl::Kind::kNormal;
}

void read_vocabulary(const Json& model, bool byte_fallback, Impl& impl) {
  const Json& vocab = files::require_object(model, "vocab", impl.origin);
  const std::int64_t limit = greatest_hf_id(vocab.size());
  for (const auto& [text, id] : vocab.items()) {
    if (!id.is_number_integer() || id.get<std::int64_t>() < 0 || id.get<std::int64_t>() > limit) {
      throw BadFile("{}: vocab: \"{}\": expected an id of 0 to {}, found {}", impl.origin, text, limit, files::describe(id));
    }
    impl.add_token(static_cast<std::int32_t>(id.get<std::int64_t>()), text, kind_of(text, byte_fallback));
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
        throw Unsupported("{}: merge [\"{}\", \"{}\"]: a space within a part of a merge is not supported", impl.origin, left,
                          right);
      }
      impl.merges.push_back(left + " " + right);
    } else {
      throw BadFile("{}: merges: expected \"left right\" or [\"left\", \"right\"], found {}", impl.origin,
                    files::describe(merge));
    }
  }
}

void read_bpe(const Json& model, bool byte_level, bool byte_fallback, Impl& impl) {
  refuse(model, "dropout", impl.origin);
  refuse(model, "continuing_subword_prefix", impl.origin);
  refuse(model, "end_of_word_suffix", impl.origin);
  impl.kind_of_model = byte_level ? Impl::Model::kByteBpe : Impl::Model::kBpe;
  read_vocabulary(model, byte_fallback, impl);
  read_merges(model, impl);
  impl.index_tokens();
  BpeOptions options;
  options.bytes = byte_level;
  options.ignore_merges = impl.ignore_merges = files::optional_bool(model, "ignore_merges", impl.origin).value_or(false);
  options.fuse_unknown = files::optional_bool(model, "fuse_unk", impl.origin).value_or(false);
  options.byte_tokens = impl.byte_tokens();
  if (const auto unknown = files::optional_string(model, "unk_token", impl.origin)) {
    options.unknown = impl.unk = impl.id_of(*unknown);
  }
  impl.model = std::make_unique<Bpe>(impl.ids, impl.merges, options, impl.origin);
}

/// `vocab` is a list of [text, score]; every token may be found in a text, the special ones too.
void read_unigram(const Json& model, bool byte_fallback, Impl& impl) {
  impl.kind_of_model = Impl::Model::kUnigram;
  for (const Json& entry : files::require_array(model, "vocab", impl.origin)) {
    if (!entry.is_array() || entry.size() != 2 || !entry[0].is_string() || !entry[1].is_number()) {
      throw BadFile("{}: vocab: expected [text, score], found {}", impl.origin, files::describe(entry));
    }
    const auto& text = entry[0].get_ref<const std::string&>();
    impl.add_token(static_cast<std::int32_t>(impl.texts.size()), text, kind_of(text, byte_fallback));
    impl.scores.push_back(entry[1].get<double>());
  }
  if (impl.scores.empty()) throw BadFile("{}: vocab: expected tokens, found none", impl.origin);
  impl.index_tokens();
  const auto last = static_cast<std::int64_t>(impl.scores.size()) - 1;
  impl.unk = static_cast<std::int32_t>(files::require_int(model, "unk_id", impl.origin, 0, last));
  const double lowest = *std::ranges::min_element(impl.scores);
  impl.model = std::make_unique<Unigram>(impl.ids, impl.scores, lowest, impl.byte_tokens(), *impl.unk);
}

/// One decoder of a sequence. Replace and ByteFallback say what temper does with U+2581 and byte tokens anyway.
void read_decoder_part(const Json& decoder, Impl& impl) {
  const std::string& type = files::require_string(decoder, "type", impl.origin);
  if (type == "Sequence") {
    for (const Json& part : files::require_array(decoder, "decoders", impl.origin)) read_decoder_part(part, impl);
  } else if (type == "Strip") {
    const bool spaces = files::require_string(decoder, "content", impl.origin) == " " &&
                        files::optional_int(decoder, "stop", impl.origin, 0, 1000).value_or(0) == 0;
    if (!spaces) throw Unsupported("{}: decoder: Strip: expected spaces at the beginning only", impl.origin);
    impl.strip_left = static_cast<std::size_t>(files::require_int(decoder, "start", impl.origin, 0, 1000));
  } else if (type == "Metaspace") {
    const bool prefix = files::optional_bool(decoder, "add_prefix_space", impl.origin).value_or(true);
    impl.strip_first_token =
        files::optional_string(decoder, "prepend_scheme", impl.origin).value_or(prefix ? "always" : "never") != "never";
  } else if (type == "Replace") {
    const Json& pattern = files::require_object(decoder, "pattern", impl.origin);
    if (files::optional_string(pattern, "String", impl.origin) != kMetaspace ||
        files::require_string(decoder, "content", impl.origin) != " ") {
      throw Unsupported("{}: decoder: Replace: expected a space for each U+2581, found another rule", impl.origin);
    }
  } else if (type != "ByteFallback" && type != "Fuse") {
    throw Unsupported("{}: decoder: expected Replace, ByteFallback, Fuse, Strip, Metaspace or a Sequence of these, found {}",
                      impl.origin, type);
  }
}

}  // namespace

std::int64_t greatest_hf_id(std::size_t tokens) { return static_cast<std::int64_t>(2 * tokens + 65536); }

void read_hf_model(const Json& root, bool byte_level, Impl& impl) {
  const Json& model = files::require_object(root, "model", impl.origin);
  const std::string type = files::optional_string(model, "type", impl.origin)
                               .value_or(files::find_key(model, "merges") != nullptr ? "BPE" : "unknown");
  const bool byte_fallback = files::optional_bool(model, "byte_fallback", impl.origin).value_or(false);
  if (byte_level && (type != "BPE" || byte_fallback)) {
    throw Unsupported("{}: pre_tokenizer: ByteLevel goes with byte-level BPE only, found model {}{}", impl.origin, type,
                      byte_fallback ? " with byte_fallback" : "");
  }
  if (type == "BPE") {
    read_bpe(model, byte_level, byte_fallback, impl);
  } else if (type == "Unigram") {
    read_unigram(model, byte_fallback, impl);
  } else {
    throw Unsupported("{}: model.type: expected BPE or Unigram, found {}", impl.origin, type);
  }
}

void read_hf_decoder(const Json& root, Impl& impl) {
  const Json* decoder = files::optional_object(root, "decoder", impl.origin);
  if (decoder == nullptr) return;
  if (impl.kind_of_model != Impl::Model::kByteBpe) return read_decoder_part(*decoder, impl);
  const std::string& type = files::require_string(*decoder, "type", impl.origin);
  if (type != "ByteLevel") throw Unsupported("{}: decoder: expected ByteLevel, found {}", impl.origin, type);
}

}  // namespace temper::text
