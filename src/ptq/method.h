// Methods of post-training quantization: each makes the encoded rows of one matrix at a time, from its values and from what
// was measured of its inputs. They differ in which parameters and codes they pick; a format's fit, round and decode stay
// what they are.
#pragma once

#include <memory>
#include <vector>

#include "model/taps.h"
#include "model/weights.h"
#include "ptq/calibration.h"
#include "ptq/imatrix.h"
#include "recipe/recipe.h"

namespace temper::ptq {

/// A matrix to be encoded, in HF row order.
struct Matrix {
  std::size_t index;              ///< In the tensor table.
  const model::TensorInfo& info;  ///< Name, role, layer, projection.
  TensorView values;              ///< [rows, cols] in the checkpoint's dtype: F32, BF16 or F16.
  const quant::Codec& codec;
};

/// The LinearInput of a projection, and of a head.
model::LinearInput input_of(const model::TensorInfo& info);

/// The values in F32.
Tensor to_f32(const ExecContext& ctx, const TensorView& values);

class Method {
 public:
  virtual ~Method() = default;
  /// Before anything is encoded: may measure the 16-bit model that `weights` are at first, and put transformed tensors into
  /// its base (BaseWeights::replace). `calibration` is null where the recipe names none.
  virtual void prepare(const ExecContext&, model::EncodedWeights&, const Calibration*) {}
  /// Who sees the inputs of each block before its matrices are encoded, blocks before it encoded already; null: nobody needs
  /// to. Called once per block, first: what was measured of the block before is no longer needed.
  virtual model::Taps* begin_layer(int) { return nullptr; }
  /// True if begin_layer gives taps: then calibration data is needed.
  virtual bool sequential() const { return false; }
  /// Encoded rows: rows · codec.row_bytes(cols) bytes.
  virtual std::vector<std::byte> encode(const ExecContext& ctx, const Matrix& matrix) = 0;
};

/// Method of recipe.quant.method. `importance` (may be null) must outlive it.
std::unique_ptr<Method> make_method(const recipe::Recipe& recipe, const ImportanceMatrix* importance);

/// fit and round of the codec itself, streaming over rows.
std::vector<std::byte> encode_rtn(const ExecContext& ctx, const Matrix& matrix);
/// Ranges clipped at a percentile (clip.h). Throws BadRecipe for codecs that have none.
std::vector<std::byte> encode_percentile(const ExecContext& ctx, const Matrix& matrix, double percentile);
/// The smallest squared error, weighted by `importance` of each column (or empty): GGUF formats whose fit is a search use
/// that, all others search the range (clip.h).
std::vector<std::byte> encode_mse(const ExecContext& ctx, const Matrix& matrix, std::span<const float> importance);
/// As llama-quantize with an importance matrix, byte for byte, in GGUF formats; in all others as encode_mse.
std::vector<std::byte> encode_importance(const ExecContext& ctx, const Matrix& matrix, std::span<const float> importance);

}  // namespace temper::ptq
