// Importance matrices as llama.cpp makes, writes and reads them: for each linear the sum of squares of every column of its
// input over the calibration tokens. Formats: GGUF (llama.cpp tools/imatrix, since b5962) and the older one without a magic
// number ("legacy", .dat), little endian:
//     i32 entries; each: i32 length, name, i32 calls, i32 values, f32[values] = mean square · calls; then, optional: i32
//     chunks, i32 length, name of the data.
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <span>
#include <string>
#include <vector>

namespace temper::ptq {

/// Of one linear, or, with several `counts`, of so many experts side by side.
struct ImportanceEntry {
  std::vector<float> sums;           ///< Σ x² of each column.
  std::vector<std::int64_t> counts;  ///< Tokens behind it; of each expert.
};

struct ImportanceMatrix {
  std::map<std::string, ImportanceEntry, std::less<>> entries;  ///< By the tensor's name in GGUF.
  std::vector<std::string> datasets;
  std::int64_t chunks = 0, chunk_size = 0;  ///< Windows, and their tokens; size 0 where the file does not say.

  /// Σ x² / count of a linear with one matrix and `cols` columns, 1 where the count is 0; empty if there is no such entry.
  /// Throws BadFile where the entry has another size.
  std::vector<float> importance(std::string_view gguf_name, std::int64_t cols) const;
};

/// Reads either format. Every length is checked against the file before it is believed; throws BadFile for broken or
/// truncated files, negative or non-finite sums, and GGUF files that are no importance matrix.
ImportanceMatrix read_imatrix(const std::filesystem::path& path);
/// The same over bytes at hand (for fuzzing): GGUF if they begin so, else the older format.
ImportanceMatrix parse_imatrix(std::span<const std::byte> bytes, const std::string& origin);

/// Writes GGUF, or the older format if the name ends in ".dat", byte for byte as llama-imatrix would: entries by name,
/// appearing whole or not at all.
void write_imatrix(const ImportanceMatrix& matrix, const std::filesystem::path& path);

}  // namespace temper::ptq
