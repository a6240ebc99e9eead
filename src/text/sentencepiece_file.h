// tokenizer.model, the file of the sentencepiece package (sentencepiece_model.proto).
#pragma once

#include <string>
#include <string_view>

#include "text/tokenizer.h"

namespace temper::text {

/// The model as GGUF's keys describe it: a BPE as `llama`, a unigram as `t5`. Throws BadFile; Unsupported for words and
/// characters as tokens, and for spaces at the ends of words.
GgufTokenizer read_sentencepiece(std::string_view bytes, const std::string& origin);

}  // namespace temper::text
