// Base64 (RFC 4648, section 4), as tokenizer.json stores a precompiled character map.
#pragma once

#include <optional>
#include <string>
#include <string_view>

namespace temper::text {

/// Padded.
std::string encode_base64(std::string_view bytes);
/// Nothing for a text that is not padded base64 with its unused bits zero.
std::optional<std::string> decode_base64(std::string_view text);

}  // namespace temper::text
