// A number format is a codec: `fit` (values → parameters), `round` (values and parameters → codes), `decode` (codes and
// parameters → values). Fake quantization is decode(round(w, fit(w))); export writes the encoded bytes at hand.
//
// A row of a matrix is encoded on its own. Its encoded bytes hold the parameters as the format stores them and the codes;
// for GGUF formats they are the file's blocks. The reference functions (scalar) define a format; the fast ones equal them
// bit for bit on every instruction set. All of this is compiled without fast-math and without contraction.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "quant/dot.h"
#include "tensor/tensor.h"

namespace temper::quant {

/// Counts over codes, for the watch-dogs of training.
struct CodeStats {
  std::int64_t total = 0;    ///< Codes looked at.
  std::int64_t changed = 0;  ///< Codes that differ from the earlier encoding.
  std::int64_t saturated =
      0;  ///< Codes at either end of the format's range. Not all were clipped: the largest magnitude of a
          ///< group sits there by construction, so a healthy tensor shows a few per cent; watch the trend.

  CodeStats& operator+=(const CodeStats& other) {
    total += other.total;
    changed += other.changed;
    saturated += other.saturated;
    return *this;
  }
};

/// What a group of an encoded row can decode to.
struct GroupValues {
  float shift;      ///< What decode adds to a code times the scale; 0 in most formats.
  float scale;      ///< As stored; of either sign.
  float low, high;  ///< The values of the two codes at the ends of the range; `low` is that of the lowest code.
};

/// One number format. Instances are the rows of a constant table (`codecs()`); compare by address.
class Codec {
 public:
  virtual ~Codec() = default;

  std::string_view name() const { return name_; }  ///< "q4_0", "int4-sym-g32", …
  /// True if fitting searches, and so takes much longer than rounding: training then fits every few steps only.
  bool searches() const { return searches_; }
  std::int64_t group() const { return group_; }  ///< Elements of a row that share parameters; 0: the whole row.
  bool encodes() const { return encodes_; }      ///< False for formats that are only read.

  /// True if a row of `cols` elements is a whole number of blocks (cols > 0).
  bool fits(std::int64_t cols) const { return cols > 0 && (group_ == 0 || cols % group_ == 0); }
  /// Bytes of one encoded row; throws LogicError if !fits(cols).
  virtual std::size_t row_bytes(std::int64_t cols) const = 0;
  /// Bytes of an encoded row that repeat what a file stores once for many rows (see joins_rows).
  virtual std::size_t repeated_bytes(std::int64_t) const { return 0; }
  double bits_per_weight(std::int64_t cols) const {
    return 8.0 * static_cast<double>(row_bytes(cols) - repeated_bytes(cols)) / static_cast<double>(cols);
  }

  // ---- The definition: scalar, slow, one row. ----
  // fit, round, reround, params_per_row, encode_rows and stats throw Unsupported where !encodes(). All throw LogicError
  // where a size does not match. Values must be finite (callers check): others give bytes without meaning, but no undefined
  // behaviour.
  /// Parameters of a row: `params_per_row(cols)` floats, in f32 before the format rounds them for storage (ggml rounds codes
  /// with the unrounded scale).
  virtual std::int64_t params_per_row(std::int64_t cols) const = 0;
  virtual void fit(std::span<const float> row, std::span<float> params) const = 0;
  /// fit with the importance of each column, non-negative (the mean square of what a linear's input has there): errors are
  /// weighted by it. Formats whose fit has no use for it ignore it, as ggml does; so does an empty span.
  virtual void fit_weighted(std::span<const float> row, [[maybe_unused]] std::span<const float> importance,
                            std::span<float> params) const {
    fit(row, params);
  }
  /// Writes the encoded row: stored parameters and codes.
  virtual void round(std::span<const float> row, std::span<const float> params, std::span<std::byte> encoded) const = 0;
  /// round with the parameters that `encoded` holds, as they are stored: replaces its codes alone. A row that is just what
  /// it decodes to keeps its codes, but where a format's own rounding is too coarse to give them back (8-bit integers scaled
  /// in bf16). Between two fits of training, and wherever parameters come from elsewhere (a file, learnt scales).
  virtual void reround(std::span<const float> row, std::span<std::byte> encoded) const = 0;
  virtual void decode(std::span<const std::byte> encoded, std::span<float> row) const = 0;

  // ---- Parameters that rows share: NVFP4's tensor scale, 128 × 128 blocks, the absmax of absmaxes. ----
  // Fitting such a matrix goes: fit each row, join all rows' parameters, round each row. An encoded row repeats the shared
  // parameters that it needs, so that rows are decoded, cut among threads and looked up one by one as in any other format.
  /// True if a row's parameters depend on other rows.
  virtual bool joins_rows() const { return false; }
  /// Makes the parameters of all rows of a matrix [rows, params_per_row(cols)], as fit gave them row by row, those of the
  /// matrix. Does nothing unless joins_rows(). Depends on no order of threads: callers fit rows in any, then join once.
  virtual void join(std::span<float> params, std::int64_t rows, std::int64_t cols) const;

  /// Parameters of group `g` of a row of `cols` elements, taken out of the row's: those of a row that is just this group,
  /// or, where the whole row is one group, of a row of any length. round and decode then treat its elements as in the whole
  /// row.
  virtual void group_params(std::span<const float> params, std::int64_t cols, std::int64_t g, std::span<float> out) const;

  // ---- Learnt scales (learnt_scales.h). ----
  /// True if every group has a scale of its own, a floating-point number that multiplies its codes. The others throw
  /// LogicError from the two functions below.
  virtual bool has_learnable_scales() const { return false; }
  /// Groups of a row that have a scale each.
  std::int64_t groups(std::int64_t cols) const { return group_ == 0 ? 1 : cols / group_; }
  /// Multiplies the stored scale of each group of an encoded row by its factor, rounded to the type that stores it. Codes
  /// stay; reround makes those that go with the new scale.
  virtual void multiply_scales(std::span<std::byte> row, std::int64_t cols, std::span<const float> factors) const;
  virtual void group_values(std::span<const std::byte> row, std::int64_t cols, std::span<GroupValues> out) const;

  // ---- Fast paths: rows of a matrix, serial (callers cut the rows among threads). ----
  /// fit and round of every row, apart. `params` has rows * params_per_row(cols) floats. The scalar functions, row by row,
  /// where a format has nothing faster.
  virtual void fit_rows(const TensorView& values, std::span<float> params) const;
  virtual void round_rows(const TensorView& values, std::span<const float> params, std::span<std::byte> encoded) const;
  /// reround of every row. Rows share no step here, even where joins_rows(): what they share is stored.
  virtual void reround_rows(const TensorView& values, std::span<std::byte> encoded) const;
  /// fit + (if joins_rows(), the matrix being all of `values`) join + round of every row. `values` is [rows, cols], F32 or
  /// BF16; `encoded` has rows * row_bytes(cols) bytes.
  virtual void encode_rows(const TensorView& values, std::span<std::byte> encoded) const = 0;
  /// fit_weighted + round of every row.
  virtual void encode_weighted(const TensorView& values, [[maybe_unused]] std::span<const float> importance,
                               std::span<std::byte> encoded) const {
    encode_rows(values, encoded);
  }
  /// decode of every row into `out` [rows, cols], F32, or BF16 (then rounded to nearest even from the f32 value).
  virtual void decode_rows(std::span<const std::byte> encoded, const TensorView& out) const = 0;
  /// y [M, N] (= or, with `accumulate`, +=) Σ_k operand(decode(row n))[k] · x[m, k] over the N rows of `encoded`, for a few
  /// rows M of x: weights are multiplied as they are stored, decoded in registers where the instruction set has a kernel for
  /// this format. The operand is bf16(decode) where x is BF16, decode itself where it is F32; y is F32, or has x's dtype.
  /// The order of each sum depends on K alone. Serial (callers cut the rows among threads).
  void dot_rows(std::span<const std::byte> encoded, const TensorView& x, const TensorView& y, bool accumulate) const;
  /// The first of `rows` encoded rows with a parameter that its type could not hold: an infinity or a NaN, or the type's
  /// end, where larger ones are clamped to. -1: every parameter is what was fit.
  virtual std::int64_t first_overflow(std::span<const std::byte> encoded, std::int64_t rows, std::int64_t cols) const;
  /// Codes of one row as integers, for tests and statistics: what decode multiplies by the scale (signed where the format
  /// centres them: -8…7 for q4_0, 0…15 for q4_1).
  virtual void codes(std::span<const std::byte> encoded, std::span<std::int32_t> out) const = 0;
  /// Codes that changed and that are saturated, over `rows` encoded rows; `earlier` may be empty (changed = 0). Scales are
  /// not compared.
  virtual CodeStats stats(std::span<const std::byte> encoded, std::span<const std::byte> earlier, std::int64_t rows,
                          std::int64_t cols) const = 0;

 protected:
  Codec(std::string name, std::int64_t group, bool encodes, bool searches = false)
      : name_(std::move(name)), group_(group), encodes_(encodes), searches_(searches), dot_rule_(dot_rule(name_)) {}

 private:
  std::string name_;
  std::int64_t group_;
  bool encodes_, searches_;
  DotRule dot_rule_;
};

/// The table of formats: symmetric integers (int4-sym-g32 …, int8-sym, per row, …) and the GGUF types, by their names in
/// lower case (q4_0 … q6_k).
const std::vector<const Codec*>& codecs();
/// Finds a codec by name, or nullptr.
const Codec* find_codec(std::string_view name);
/// The codec of a GGUF type, by the type's name in lower case ("q4_k", "mxfp4"), or nullptr.
const Codec* gguf_codec(std::string_view type);
/// The name of the GGUF type whose blocks a codec writes, in lower case; empty for formats that GGUF does not have.
std::string_view gguf_type(const Codec& codec);
/// Codecs that encode and whose blocks divide a row of `cols` elements: what a refusal offers instead.
std::vector<const Codec*> codecs_that_fit(std::int64_t cols);

/// A matrix in a number format: what a step's weights are kept as, and what a file stores.
struct EncodedView {
  const Codec* codec = nullptr;
  std::int64_t rows = 0, cols = 0;
  std::span<const std::byte> bytes;  ///< rows * codec->row_bytes(cols)

  std::span<const std::byte> row_range(std::int64_t begin, std::int64_t end) const {
    const std::size_t n = codec->row_bytes(cols);
    return bytes.subspan(static_cast<std::size_t>(begin) * n, static_cast<std::size_t>(end - begin) * n);
  }
};

}  // namespace temper::quant
