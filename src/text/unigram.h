// The unigram language model's most probable segmentation (Kudo 2018, https://arxiv.org/abs/1804.10959), found by Viterbi's
// algorithm over the tokens that begin at each character (sentencepiece, src/unigram_model.cc).
#pragma once

#include "text/word_model.h"

namespace temper::text {

class Unigram final : public WordModel {
 public:
  /// `scores`: natural logarithms of probabilities by id, for the tokens of `ids`. A character that is no token costs
  /// `lowest` - 10 and comes out as bytes if each of its bytes has a token, else as `unknown`, one for a run of them.
  Unigram(const TokenIds& ids, const std::vector<double>& scores, double lowest, const ByteTokens& bytes,
          std::int32_t unknown);

  /// `word`: UTF-8.
  void encode(std::string_view word, std::vector<std::int32_t>& out) const override;

 private:
  /// A trie; the children of a node lie side by side, ordered by label.
  struct Node {
    std::uint32_t first_child = 0;
    std::int32_t token = -1;
    std::uint16_t children = 0;
    unsigned char label = 0;
  };
  void build(std::vector<std::pair<std::string_view, std::int32_t>> tokens);
  const Node* child(const Node& node, unsigned char label) const;

  std::vector<Node> nodes_;  // the root first
  std::vector<double> scores_;
  double unknown_score_;
  ByteTokens bytes_;
  std::int32_t unknown_;
};

}  // namespace temper::text
