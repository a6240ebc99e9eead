#include "text/sentencepiece_file.h"

#include "base/error.h"
#include "files/protobuf.h"
#include "text/tokenizer_impl.h"

namespace temper::text {
namespace {

using files::ProtobufReader;

// Values of TrainerSpec.ModelType.
constexpr std::uint64_t kUnigram = 1, kBpe = 2;

// Values of SentencePiece.Type, which are GGUF's, too.
constexpr std::uint64_t kNormalPiece = 1, kUserDefined = 4, kLastType = 6;

void read_piece(std::span<const std::byte> bytes, const std::string& origin, GgufTokenizer& out) {
  std::string text;
  float score = 0.0F;
  std::uint64_t type = kNormalPiece;
  for (ProtobufReader piece(bytes, origin); piece.next();) {
    switch (piece.field()) {
      case 1: text = piece.text(); break;
      case 2: score = piece.f32(); break;
      case 3: type = piece.integer(); break;
      default: break;
    }
  }
  if (type < kNormalPiece || type > kLastType) {
    throw BadFile("{}: piece {}: type: expected 1 to 6, found {}", origin, out.tokens.size(), type);
  }
  // Sought before spaces are written as U+2581.
  if (type == kUserDefined) text = replace_all(text, kMetaspace, " ");
  out.tokens.push_back(std::move(text));
  out.scores.push_back(score);
  out.token_type.push_back(static_cast<std::int32_t>(type));
}

struct TrainerSpec {
  std::uint64_t model_type = kUnigram;
  bool whitespace_as_suffix = false;
  std::int64_t unk = 0, bos = 1, eos = 2, pad = -1;  // -1: none
};

TrainerSpec read_trainer(std::span<const std::byte> bytes, const std::string& origin) {
  TrainerSpec out;
  for (ProtobufReader spec(bytes, origin); spec.next();) {
    const auto id = [&] { return static_cast<std::int64_t>(spec.integer()); };
    switch (spec.field()) {
      case 3: out.model_type = spec.integer(); break;
      case 24: out.whitespace_as_suffix = spec.boolean(); break;
      case 40: out.unk = id(); break;
      case 41: out.bos = id(); break;
      case 42: out.eos = id(); break;
      case 43: out.pad = id(); break;
      default: break;
    }
  }
  return out;
}

void read_normalizer(std::span<const std::byte> bytes, const std::string& origin, GgufTokenizer& out) {
  for (ProtobufReader spec(bytes, origin); spec.next();) {
    switch (spec.field()) {
      case 2: out.precompiled_charsmap = spec.text(); break;
      case 3: out.add_space_prefix = spec.boolean(); break;
      case 4: out.remove_extra_whitespaces = spec.boolean(); break;
      case 5:
        if (!spec.boolean()) throw Unsupported("{}: escape_whitespaces: expected true, found false", origin);
        break;
      default: break;
    }
  }
}

std::optional<std::int32_t> checked_id(std::int64_t id, std::string_view name, const GgufTokenizer& model,
                                       const std::string& origin) {
  if (id < 0) return std::nullopt;
  if (id >= static_cast<std::int64_t>(model.tokens.size())) {
    throw BadFile("{}: {}: expected an id below {}, found {}", origin, name, model.tokens.size(), id);
  }
  return static_cast<std::int32_t>(id);
}

}  // namespace

GgufTokenizer read_sentencepiece(std::string_view bytes, const std::string& origin) {
  GgufTokenizer out;
  out.pre = "default";
  out.add_space_prefix = out.remove_extra_whitespaces = true;  // the specification's defaults
  TrainerSpec trainer;
  for (ProtobufReader model(std::as_bytes(std::span(bytes)), origin); model.next();) {
    switch (model.field()) {
      case 1: read_piece(model.bytes(), origin, out); break;
      case 2: trainer = read_trainer(model.bytes(), origin); break;
      case 3: read_normalizer(model.bytes(), origin, out); break;
      default: break;
    }
  }
  if (trainer.model_type != kUnigram && trainer.model_type != kBpe) {
    throw Unsupported("{}: model_type: expected 1 (unigram) or 2 (BPE), found {}", origin, trainer.model_type);
  }
  if (trainer.whitespace_as_suffix) throw Unsupported("{}: treat_whitespace_as_suffix is not supported", origin);
  out.model = trainer.model_type == kBpe ? "llama" : "t5";
  out.unk_id = checked_id(trainer.unk, "unk_id", out, origin);
  out.bos_id = checked_id(trainer.bos, "bos_id", out, origin);
  out.eos_id = checked_id(trainer.eos, "eos_id", out, origin);
  out.pad_id = checked_id(trainer.pad, "pad_id", out, origin);
  // What transformers adds around a text for the families that have such files: Llama, Gemma; T5.
  out.add_bos = trainer.model_type == kBpe;
  out.add_eos = trainer.model_type == kUnigram;
  return out;
}

}  // namespace temper::text
