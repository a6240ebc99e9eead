// SentencePiece's byte-pair encoding: neighbours are merged wherever what they spell is a token, the best score first, the
// leftmost among equals (sentencepiece, src/bpe_model.cc).
#pragma once

#include <string>
#include <unordered_map>

#include "text/word_model.h"

namespace temper::text {

class ScoredBpe final : public WordModel {
 public:
  /// `scores`: by id, for the tokens of `ids`, which must outlive the model with the texts it points to. Characters without
  /// a token are written as bytes, or, where a byte has no token, as `unknown`: one for a run of them, nothing if there is
  /// none.
  ScoredBpe(const TokenIds& ids, const std::vector<float>& scores, const ByteTokens& bytes,
            std::optional<std::int32_t> unknown);

  /// `word`: UTF-8.
  void encode(std::string_view word, std::vector<std::int32_t>& out) const override;

 private:
  struct Token {
    std::int32_t id, rank;
  };
  const Token* find(std::string_view text) const;

  std::unordered_map<std::string_view, Token> tokens_;
  std::size_t longest_ = 0;  // bytes of the longest token
  ByteTokens bytes_;
  std::optional<std::int32_t> unknown_;
};

}  // namespace temper::text
