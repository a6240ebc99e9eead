// The parts of tokenizer.json that make up its model. Private to the tokenizer's sources.
#pragma once

#include "files/json.h"
#include "text/tokenizer_impl.h"

namespace temper::text {

/// Ids may have holes, but a file of a few bytes must not ask for a table of a billion entries.
std::int64_t greatest_hf_id(std::size_t tokens);

/// Vocabulary, merges or scores, and the model made of them. `byte_level`: the pre-tokenizer has a ByteLevel. Throws
/// BadFile, Unsupported.
void read_hf_model(const files::Json& root, bool byte_level, Tokenizer::Impl& impl);

/// What decoding does with the space before a text. Throws Unsupported for decoders of other models.
void read_hf_decoder(const files::Json& root, Tokenizer::Impl& impl);

}  // namespace temper::text
