#include "quant/activations.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>
#include <vector>

#include "base/error.h"
#include "base/nearest.h"
#include "quant/formats.h"
#include "quant/isa/activations.h"
#include "quant/scaled_codec.h"

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

namespace {

bool is_finite(const TensorView& row) {
  bool finite = true;
  const auto n = static_cast<std::size_t>(row.cols());
  if (row.dtype == DType::F32) {
    for (const float x : std::span(row.as<const float>(), n)) finite &= std::isfinite(x);
  } else {
    for (const bf16 x : std::span(row.as<const bf16>(), n)) finite &= (x.bits & 0x7f80u) != 0x7f80u;
  }
  return finite;
}

}  // namespace

void encode_activations(const Codec& codec, const StaticRange& range, const TensorView& x, std::span<std::byte> encoded) {
  if (has_static_range(codec))
    as_scaled(&codec)->encode_in_range(range, x, encoded);
  else
    codec.encode_rows(x, encoded);
}

void round_activations(const Codec& codec, const TensorView& x, const TensorView& out, const StaticRange& range) {
  if (x.dtype != out.dtype || (x.dtype != DType::F32 && x.dtype != DType::BF16) || out.rows() != x.rows() ||
      out.cols() != x.cols() || !codec.fits(x.cols()))
    throw LogicError("activations in {}: expected F32 or BF16 of one shape, rows of whole groups; found {} {} and {} {}",
                     codec.name(), dtype_name(x.dtype), x.shape.str(), dtype_name(out.dtype), out.shape.str());
  std::vector<std::byte> encoded(codec.row_bytes(x.cols()));
  for (std::int64_t r = 0; r < x.rows(); ++r) {
    const TensorView in = x.slice_rows(r, r + 1), rounded = out.slice_rows(r, r + 1);
    if (is_finite(in)) {
      encode_activations(codec, range, in, encoded);
      codec.decode_rows(encoded, rounded);
    } else if (in.data != rounded.data) {
      std::memcpy(rounded.data, in.data, static_cast<std::size_t>(in.cols()) * dtype_size(in.dtype));
    }
  }
}

const Codec& in_dtype(const Codec& codec, DType dtype) {
  std::string name(codec.name());
  constexpr std::string_view kSuffix = "-bf16";
  if (name.ends_with(kSuffix)) name.resize(name.size() - kSuffix.size());
  if (dtype == DType::BF16) name += kSuffix;
  const Codec* twin = find_codec(name);
  return twin ? *twin : codec;
}

std::span<const std::string> activation_formats() {
  static const std::vector<std::string> names = {
      "int8-asym",  "int8-sym",      "int8-symeps",     "int8-ctsym",       "int8-ctasym", "fp8-e4m3",
      "fp8-e5m2",   "mxfp8-e4m3",    "mxfp8-e5m2",      "mxfp6-e2m3",       "mxfp6-e3m2",  "mxfp4",
      "nvfp4",      "nvfp4-local",   "int8-sym-g32",    "int4-sym-g32",     "fp8-e4m3-ct", "fp8-e4m3-ct-g128",
      "mxfp4-even", "mxfp8-e4m3-ct", "int8-static-sym", "int8-static-asym", "fp8-static",  "nvfp4-static",
      "llm-int8"};
  return names;
}

const Codec& activation_codec(std::string_view name) {
  const auto formats = activation_formats();
  static const CodecPtr llm_int8 = make_llm_int8();  // holds no weights: not in the table of codecs
  if (std::ranges::find(formats, name) != formats.end()) return name == llm_int8->name() ? *llm_int8 : *find_codec(name);
  const auto nearest = std::ranges::min_element(formats, {}, [&](const auto& known) { return edit_distance(name, known); });
  throw BadRecipe("activations: unknown format \"{}\"; did you mean \"{}\"? Known: {}", name, *nearest,
                  fmt::join(formats, ", "));
}

}  // namespace temper::quant
