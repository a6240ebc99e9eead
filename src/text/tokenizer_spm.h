// SentencePiece's models as GGUF describes them. Private to the tokenizer's sources.
#pragma once

#include "text/tokenizer_impl.h"

namespace temper::text {

/// The tokens, and which of them are added ones. Throws BadFile.
void add_gguf_tokens(const GgufTokenizer& metadata, Tokenizer::Impl& impl);
/// BOS, EOS and the like, and what is put around a text. Throws BadFile.
void take_gguf_ids(const GgufTokenizer& metadata, Tokenizer::Impl& impl);

/// Normalizer and model of a tokenizer whose tokens are there already. Throws BadFile.
void build_sentencepiece(const GgufTokenizer& metadata, Tokenizer::Impl& impl);

/// `model` and flags for a tokenizer that came from a folder. Throws Unsupported for what GGUF has no words for.
void describe_sentencepiece(const Tokenizer::Impl& impl, GgufTokenizer& out);
/// Scores by id; of merges, made so that they order the same way. Throws Unsupported where none do.
std::vector<float> gguf_scores(const Tokenizer::Impl& impl);

/// The merges that tokens with scores imply, best first: each token, cut in two tokens in every way.
std::vector<std::string> merges_of_scores(const Tokenizer::Impl& impl);

}  // namespace temper::text
