// Perplexity of a text: exp of the mean NLL of its tokens, each predicted within a window of limited context.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "eval/compare.h"
#include "eval/score.h"
#include "recipe/recipe.h"
#include "text/tokenizer.h"

namespace temper::eval {

struct WindowOptions {
  recipe::Windows windows = recipe::Windows::Stride;
  std::int64_t context = 512;    ///< Tokens that the model sees per window.
  std::int64_t stride = 0;       ///< Windows::Stride: tokens from one window's begin to the next; 0: half the context.
  std::int64_t max_windows = 0;  ///< Only so many from the start; 0: all.
};

/// A text cut into windows; each is a sample whose labelled tokens are those it scores (`row` counts windows from 1).
struct TextWindows {
  std::vector<text::Sample> samples;
  std::int64_t count = 0;        ///< Windows.
  std::int64_t text_tokens = 0;  ///< Of the whole text, BOS not counted.
  std::int64_t scored_tokens = 0;
  std::int64_t context = 0, stride = 0;
  bool bos = false;  ///< See cut_windows.
  recipe::Windows windows = recipe::Windows::Stride;
  std::string how() const;  ///< One line: windows, context, stride, tokens scored, BOS.
};

/// The text is tokenized as a whole, texts of special tokens taken as ordinary text.
///
/// Stride: BOS stands before the text if the tokenizer adds one (else the very first token is not scored). Window w gives
/// the model tokens [w·stride, w·stride + context) and scores those of the tokens that follow them which no earlier window
/// scored: each token once, all but the first window's with at least context − stride tokens before them.
///
/// LlamaPerplexity (llama.cpp, tools/perplexity/perplexity.cpp): the stream (with BOS if the tokenizer adds one, one
/// trailing newline removed) is cut into ⌊n / context⌋ chunks; a rest is dropped; BOS replaces each chunk's first token; the
/// tokens after position ⌊context / 2⌋ of each chunk are scored: context − 1 − ⌊context / 2⌋ per chunk. Figures compare with
/// llama-perplexity's.
///
/// Throws BadRecipe for a context below 2 (LlamaPerplexity: 3) or a stride not in [1, context], BadData for a text too
/// short.
TextWindows cut_windows(std::string_view text, const text::Tokenizer& tokenizer, const WindowOptions& options);
/// The same for token ids at hand; `bos` is the id to add, if one is to be added.
TextWindows cut_windows(std::span<const std::int32_t> ids, std::optional<std::int32_t> bos, const WindowOptions& options);

/// exp of an NLL and of its interval.
Estimate perplexity_of(const Estimate& nll);

}  // namespace temper::eval
