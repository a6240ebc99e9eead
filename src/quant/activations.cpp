#include "quant/activations.h"

#include <algorithm>
#include <array>

#include "base/error.h"
#include "quant/isa/activations.h"

namespace temper::quant {

ActivationGrid activation_grid(const Codec& codec) {
  static constexpr std::array<std::string_view, 7> kBlocks = {"q4_0", "q4_1", "q5_0", "q5_1", "q8_0", "iq4_nl", "mxfp4"};
  static constexpr std::array<std::string_view, 8> kSuper = {"q2_k", "q3_k",   "q4_k",  "q5_k",
                                                             "q6_k", "iq4_xs", "tq1_0", "tq2_0"};
  if (std::ranges::find(kBlocks, codec.name()) != kBlocks.end()) return ActivationGrid::Blocks32;
  if (std::ranges::find(kSuper, codec.name()) != kSuper.end()) return ActivationGrid::Super256;
  return ActivationGrid::None;
}

void round_activations(ActivationGrid grid, const TensorView& x, const TensorView& out) {
  if (grid == ActivationGrid::None || x.dtype != out.dtype || (x.dtype != DType::F32 && x.dtype != DType::BF16))
    throw LogicError("activations: expected a grid, and F32 or BF16 in and out; found {} and {}", dtype_name(x.dtype),
                     dtype_name(out.dtype));
  const std::int64_t block = grid == ActivationGrid::Blocks32 ? 32 : 256;
  if (x.cols() % block != 0 || out.rows() != x.rows() || out.cols() != x.cols())
    throw LogicError("activations: {} to {} in blocks of {}", x.shape.str(), out.shape.str(), block);
  const ActivationKernels& kernels = kActivationKernels.in_use();
  const int index = static_cast<int>(grid) - 1;
  for (std::int64_t r = 0; r < x.rows(); ++r) {
    if (x.dtype == DType::F32)
      kernels.f32[index](x.as<const float>() + r * x.row_stride, x.cols(), out.as<float>() + r * out.row_stride);
    else
      kernels.bf16[index](&x.as<const bf16>()[r * x.row_stride].bits, x.cols(), &out.as<bf16>()[r * out.row_stride].bits);
  }
}

}  // namespace temper::quant
