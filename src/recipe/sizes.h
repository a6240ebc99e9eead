// Sizes in bytes as people write them: "90MB", "2GB", "1.5GiB".
#pragma once

#include <cstdint>
#include <string_view>

namespace temper::recipe {

/// Bytes of a positive number followed by B, KB, MB, GB (powers of 1000, as llama.cpp's gguf-split counts) or KiB, MiB, GiB,
/// in any case; "M" and "G" stand for MB and GB. Throws BadRecipe naming `key` for anything else.
std::uint64_t parse_size(std::string_view text, std::string_view key);

}  // namespace temper::recipe
