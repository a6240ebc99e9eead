#pragma once

namespace temper::text {

/// Where a piece of text stands. Tokenizers that put a space before a text ("▁Hello") heed it.
enum class TextPart {
  kWhole,         ///< a text by itself: the space is put before it, and decoding takes it away again
  kAfterToken,    ///< follows an added token: some put a space there, too; decoding takes none away
  kContinuation,  ///< goes on another text: no space
};

}  // namespace temper::text
