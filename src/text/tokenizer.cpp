#include "text/tokenizer.h"

#include <algorithm>
#include <array>
#include <charconv>

#include "base/error.h"
#include "files/gguf.h"
#include "text/tokenizer_impl.h"

namespace temper::text {
namespace {

constexpr std::array<std::string_view, 11> kEndOfTurn = {
    "<|eot_id|>",         "<|eom_id|>", "<|im_end|>",      "<|end|>",       "<end_of_turn>",
    "<|end_of_turn|>",    "<EOT>",      "<|end_of_text|>", "<|endoftext|>", "<|END_OF_TURN_TOKEN|>",
    "<end_of_utterance>",
};

}  // namespace

std::optional<unsigned char> byte_of_token(std::string_view text) {
  if (text.size() != 6 || !text.starts_with("<0x") || text.back() != '>') return std::nullopt;
  unsigned value = 0;
  const auto [end, error] = std::from_chars(text.data() + 3, text.data() + 5, value, 16);
  const bool whole = error == std::errc() && end == text.data() + 5;
  return whole ? std::optional(static_cast<unsigned char>(value)) : std::nullopt;
}

bool ends_turn(std::string_view text) { return std::find(kEndOfTurn.begin(), kEndOfTurn.end(), text) != kEndOfTurn.end(); }

void Tokenizer::Impl::add_token(std::int32_t id, std::string_view text, Kind kind) {
  const auto index = static_cast<std::size_t>(id);
  if (index >= texts.size()) {
    texts.resize(index + 1);
    kinds.resize(index + 1, Kind::kNone);
  }
  if (kinds[index] != Kind::kNone) {
    throw BadFile("{}: token id {}: taken by both \"{}\" and \"{}\"", origin, id, texts[index], text);
  }
  if (!is_valid_utf8(text)) throw BadFile("{}: token id {}: its text is no UTF-8", origin, id);
  texts[index] = text;
  kinds[index] = kind;
}

void Tokenizer::Impl::index_tokens() {
  ids.clear();
  ids.reserve(texts.size());
  for (std::size_t i = 0; i < texts.size(); ++i) {
    if (kinds[i] == Kind::kNone) continue;
    const auto [other, is_new] = ids.emplace(texts[i], static_cast<std::int32_t>(i));
    if (!is_new) throw BadFile("{}: token \"{}\": has both id {} and id {}", origin, texts[i], other->second, i);
  }
}

ByteTokens Tokenizer::Impl::byte_tokens() const {
  ByteTokens tokens;
  for (std::size_t i = 0; i < texts.size(); ++i) {
    if (kinds[i] != Kind::kByte) continue;
    if (const auto byte = byte_of_token(texts[i])) tokens[*byte] = static_cast<std::int32_t>(i);
  }
  return tokens;
}

TokenIds Tokenizer::Impl::normal_ids() const {
  TokenIds normal;
  for (const auto& [text, id] : ids) {
    if (kinds[static_cast<std::size_t>(id)] == Kind::kNormal) normal.emplace(text, id);
  }
  return normal;
}

void Tokenizer::Impl::finish(std::vector<std::int32_t> more_eog) {
  for (const AddedToken& token : added) {
    const std::string content = token.normalized ? normalizer.apply(token.content, TextPart::kWhole) : token.content;
    if (!content.empty()) (token.normalized ? normalized_matcher : raw_matcher).add(token, content);
  }
  eog = std::move(more_eog);
  if (eos) eog.push_back(*eos);
  for (const AddedToken& token : added) {
    if (token.special && ends_turn(token.content)) eog.push_back(token.id);
  }
  std::sort(eog.begin(), eog.end());
  eog.erase(std::unique(eog.begin(), eog.end()), eog.end());
}

std::optional<std::int32_t> Tokenizer::Impl::id_of(std::string_view text) const {
  const auto found = ids.find(text);
  return found == ids.end() ? std::nullopt : std::optional(found->second);
}

std::size_t Tokenizer::Impl::checked(std::int32_t id) const {
  if (id < 0 || static_cast<std::size_t>(id) >= texts.size()) {
    throw LogicError("{}: token id {}: expected 0 to {}", origin, id, texts.size() - 1);
  }
  return static_cast<std::size_t>(id);
}

Tokenizer Tokenizer::load(const std::filesystem::path& path) {
  return std::filesystem::is_directory(path) ? from_hf_folder(path) : from_gguf(files::GgufFile(path));
}

Tokenizer Tokenizer::with_rows(std::int64_t rows) const {
  Tokenizer limited = *this;
  limited.rows_ = rows;
  return limited;
}

void Tokenizer::check_rows(std::span<const std::int32_t> ids) const {
  for (const std::int32_t id : ids)
    if (id >= rows_)
      throw BadData(
          "{}: token \"{}\" has id {}, and the model's embedding ends at {} rows: it has no vector. Leave the token out of "
          "the "
          "text, give the embedding rows for it (transformers: resize_token_embeddings), or take the model's own tokenizer",
          impl_->origin, token_text(id), id, rows_);
}

std::vector<std::int32_t> Tokenizer::encode(std::string_view text, bool parse_special, TextPart part) const {
  std::string repaired;
  if (!is_valid_utf8(text)) text = repaired = replace_invalid_utf8(text);
  std::vector<std::int32_t> out;
  out.reserve(text.size() / 3);
  for (const auto& piece : impl_->raw_matcher.split(text, parse_special)) {
    if (piece.id >= 0) {
      out.push_back(piece.id);
      continue;
    }
    const TextPart place = piece.text.data() == text.data() ? part : TextPart::kAfterToken;
    std::string normal;
    std::string_view section = piece.text;
    if (!impl_->normalizer.steps().empty()) section = normal = impl_->normalizer.apply(section, place);
    for (const auto& inner : impl_->normalized_matcher.split(section, parse_special)) {
      if (inner.id >= 0) {
        out.push_back(inner.id);
        continue;
      }
      impl_->pre_tokenizer->split(inner.text, inner.text.data() == section.data() ? place : TextPart::kAfterToken,
                                  [&](std::string_view word) { impl_->model->encode(word, out); });
    }
  }
  check_rows(out);
  return out;
}

std::vector<std::int32_t> Tokenizer::encode_with_special(std::string_view text) const {
  std::vector<std::int32_t> out = impl_->prefix;
  const std::vector<std::int32_t> ids = encode(text, true);
  out.insert(out.end(), ids.begin(), ids.end());
  out.insert(out.end(), impl_->suffix.begin(), impl_->suffix.end());
  check_rows(out);
  return out;
}

bool Tokenizer::adds_bos() const { return !impl_->prefix.empty(); }
bool Tokenizer::adds_eos() const { return !impl_->suffix.empty(); }

std::string Tokenizer::decode(std::span<const std::int32_t> ids, bool skip_special, TextPart part) const {
  TextStream stream(*this, skip_special, part);
  std::string text;
  for (const std::int32_t id : ids) text += stream.push(id);
  return text + stream.finish();
}

TextStream::TextStream(Tokenizer tokenizer, bool skip_special, TextPart part)
    : tokenizer_(std::move(tokenizer)),
      skip_special_(skip_special),
      first_(part == TextPart::kWhole),
      strip_(first_ ? tokenizer_.impl_->strip_left : 0) {}

std::string TextStream::push(std::int32_t id) {
  if (skip_special_ && tokenizer_.is_special(id)) return {};
  std::string bytes = tokenizer_.token_bytes(id);
  if (first_ && tokenizer_.impl_->strip_first_token) bytes.erase(0, bytes.find_first_not_of(' '));
  first_ = false;
  while (strip_ > 0 && bytes.starts_with(' ')) {
    bytes.erase(0, 1);
    --strip_;
  }
  if (!bytes.empty()) strip_ = 0;
  return characters_.push(bytes);
}

std::string Tokenizer::token_bytes(std::int32_t id) const {
  const std::size_t index = impl_->checked(id);
  const std::string& text = impl_->texts[index];
  if (impl_->kind_of_model != Impl::Model::kByteBpe) {
    if (impl_->kinds[index] == Impl::Kind::kByte) return {static_cast<char>(*byte_of_token(text))};
    return replace_all(text, kMetaspace, " ");
  }
  if (impl_->kinds[index] != Impl::Kind::kNormal) return text;
  return alphabet_to_bytes(text).value_or(text);
}

std::int32_t Tokenizer::vocab_size() const { return static_cast<std::int32_t>(impl_->texts.size()); }
const std::string& Tokenizer::token_text(std::int32_t id) const { return impl_->texts[impl_->checked(id)]; }
std::optional<std::int32_t> Tokenizer::token_id(std::string_view token_text) const { return impl_->id_of(token_text); }
bool Tokenizer::is_special(std::int32_t id) const { return impl_->kinds[impl_->checked(id)] == Impl::Kind::kSpecial; }
bool Tokenizer::is_added(std::int32_t id) const {
  const Impl::Kind kind = impl_->kinds[impl_->checked(id)];
  return kind == Impl::Kind::kSpecial || kind == Impl::Kind::kAdded;
}

std::optional<std::int32_t> Tokenizer::bos_id() const { return impl_->bos; }
std::optional<std::int32_t> Tokenizer::eos_id() const { return impl_->eos; }
std::optional<std::int32_t> Tokenizer::pad_id() const { return impl_->pad; }
std::optional<std::int32_t> Tokenizer::unk_id() const { return impl_->unk; }
const std::vector<std::int32_t>& Tokenizer::eog_ids() const { return impl_->eog; }
bool Tokenizer::is_eog(std::int32_t id) const { return std::binary_search(impl_->eog.begin(), impl_->eog.end(), id); }
const std::string& Tokenizer::sentencepiece_model() const { return impl_->tokenizer_model; }
const std::optional<std::string>& Tokenizer::chat_template() const { return impl_->chat_template; }

}  // namespace temper::text
