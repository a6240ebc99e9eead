// A model on disk: a Hugging Face folder (config.json, safetensors; also quantized, in a layout of src/wires) or a GGUF
// file, as a table of tensors that can be read one by one. The file is mapped; nothing is copied until a tensor is asked
// for.
#pragma once

#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "files/gguf.h"
#include "model/arch.h"
#include "model/tensor_table.h"
#include "quant/codec.h"
#include "quant/static_range.h"

namespace temper::model {

/// A tensor as the file stores it. What a quantized Hugging Face folder stores apart (src/wires) is put together: its
/// encoded rows are memory of the reader's, not of the mapping.
struct StoredTensor {
  TensorView plain;                 ///< F32, BF16 or F16 elements, or null.
  quant::EncodedView encoded;       ///< Blocks of a number format, if `plain` is null.
  std::int64_t permuted_heads = 0;  ///< As in TensorInfo, but 0 where this file's rows are in HF order.
  float offset = 0.0f;              ///< Added to what is stored, of vectors.
  std::string format;               ///< "BF16", "q4_1", …
  /// What activations are rounded to before they are multiplied with it, if its checkpoint says so; in f32 arithmetic.
  const quant::Codec* input = nullptr;
  quant::StaticRange input_range = {};   ///< Of `input`, where its range is given.
  const quant::Codec* output = nullptr;  ///< What its products are rounded to, and the range.
  quant::StaticRange output_range = {};
  std::size_t file_bytes = 0;  ///< In the file: a quantized Hugging Face folder spreads it over several tensors.
  /// As stored.
  std::span<const std::byte> bytes() const {
    return plain ? std::span(static_cast<const std::byte*>(plain.data), plain.bytes()) : encoded.bytes;
  }
  /// True if `plain` is the tensor itself, in that dtype.
  bool as_is(DType dtype) const { return plain && plain.dtype == dtype && permuted_heads == 0 && offset == 0.0f; }
};

/// A matrix in a number format, and the memory that it is in.
struct HeldCodes {
  const quant::Codec* codec = nullptr;
  std::vector<std::byte> bytes;
};

class CheckpointReader {
 public:
  /// Opens a folder or a .gguf. Every tensor of the table must be there with the shape that the config implies: BadFile
  /// otherwise, naming the tensor, expected and found. Tensors not in the table: BadFile too, but for known leftovers
  /// (rotary inv_freq).
  static CheckpointReader open(const std::filesystem::path& path);
  /// A checkpoint in memory: `source`'s path (tokenizer and configuration are read there) with another ArchSpec and other
  /// weights, by index in the table of `arch`, each of the shape that the table says; matrices arch.dtype, norms F32. One
  /// that is null is as `source` has it, which must then outlive this.
  static CheckpointReader with_weights(const CheckpointReader& source, ArchSpec arch, std::vector<Tensor> tensors);
  /// `source` with matrices held in number formats, in memory, in place of its own: rows of codes in HF order, by index in
  /// the table; a null codec leaves the tensor as it is.
  static CheckpointReader with_codes(CheckpointReader source, std::vector<HeldCodes> codes);
  ~CheckpointReader();
  CheckpointReader(CheckpointReader&&) noexcept;

  const std::filesystem::path& path() const;
  const ArchSpec& arch() const;
  const TensorTable& table() const;
  StoredTensor stored(std::size_t index) const;
  /// Reads a tensor in HF order into `out` (shape of the table; F32, BF16 or F16), decoding and rounding to nearest even.
  void read(std::size_t index, const TensorView& out) const;

  /// Lets go of the memory in which a tensor of the mapped file lies: it is read again when it is next looked at.
  void release(std::size_t index) const;

  const files::GgufFile* gguf() const;  ///< Null for a folder, and in memory.
  /// "Q4_1 GGUF" or "BF16 safetensors": what the projections are stored in.
  std::string formats() const;
  std::size_t weight_bytes() const;   ///< Sum over the tensors as stored.
  std::int64_t weight_count() const;  ///< Elements of all tensors.

 private:
  struct State;
  explicit CheckpointReader(std::unique_ptr<State> state);
  std::unique_ptr<State> state_;
};

}  // namespace temper::model
