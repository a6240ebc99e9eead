// Parameters of groups, by the rules of scaled_format.h: found, joined across rows, stored and read.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <vector>

#include "quant/double_quant.h"
#include "quant/overflow.h"
#include "quant/scaled_format.h"

namespace temper::quant {
namespace {

constexpr float kLargest = std::numeric_limits<float>::max();
constexpr float kMslkFloor = 1e-6f, kBnbFloor = 1e-38f;
constexpr float kNvLargest = 448.0f * 6.0f, kNvSmallestScale = 0x1p-6f;

/// To bf16, saturating, so that what is finite stays so.
inline bf16 saturated_bf16(float x) {
  const bf16 rounded = to_bf16(x);
  return (rounded.bits & 0x7fffu) == 0x7f80u ? bf16{static_cast<std::uint16_t>(rounded.bits - 1)} : rounded;
}
inline f16 saturated_f16(float x) { return to_f16(std::clamp(x, -65504.0f, 65504.0f)); }

/// Rounded to the type, saturating.
inline float rounded(ScaleType type, float x) {
  if (type == ScaleType::BF16) return to_float(saturated_bf16(x));
  if (type == ScaleType::F16) return to_float(saturated_f16(x));
  return x;
}
float largest(ScaleType type) {
  return type == ScaleType::F16 ? 65504.0f : type == ScaleType::BF16 ? 0x1.fep127f : kLargest;
}
float smallest_normal(ScaleType type) { return type == ScaleType::F16 ? 0x1p-14f : 0x1p-126f; }
float epsilon(ScaleType type) { return type == ScaleType::F16 ? 0x1p-10f : type == ScaleType::BF16 ? 0x1p-7f : 0x1p-23f; }
float or_epsilon(ScaleType type, float scale) { return scale == 0.0f ? epsilon(type) : scale; }

/// To an integer in [low, high]; NaN gives low.
std::int32_t integer_in(float x, std::int32_t low, std::int32_t high) {
  if (!(x > static_cast<float>(low))) return low;
  return x < static_cast<float>(high) ? static_cast<std::int32_t>(x) : high;
}

// ---- Fitting ----

struct Affine {
  float scale, zero;
};

Affine fit_asymmetric(const ScaledFormat& f, const Extent& extent) {
  const float steps = static_cast<float>((1 << f.bits()) - 1), low = -static_cast<float>(1 << (f.bits() - 1)),
              high = -low - 1;
  // A range that the arithmetic cannot hold gives the largest scale: parameters_overflow finds it.
  if (f.mapping == Mapping::Tinygemm) {
    const float range = extent.high - extent.low;
    return {range <= kLargest ? std::max(range, kMslkFloor) / steps : largest(f.scale), extent.low};
  }
  const float bottom = std::min(extent.low, 0.0f), top = std::max(extent.high, 0.0f), range = top - bottom;
  const float scale = range <= largest(f.scale) ? rounded(f.scale, rounded(f.scale, range) / steps) : largest(f.scale);
  if (f.mapping == Mapping::Asym) {
    const float s = std::max(scale, smallest_normal(f.scale));
    return {s, std::clamp(rounded(f.scale, low - std::nearbyint(rounded(f.scale, bottom / s))), low, high)};
  }
  if (scale == 0.0f) return {epsilon(f.scale), bottom < 0.0f ? high : 0.0f};  // z = clip(low + lo/0)
  const float zero = rounded(f.scale, low - rounded(f.scale, bottom / scale));
  return {scale, std::nearbyint(std::clamp(zero, low, high))};
}

/// 2^e of an MX group whose largest magnitude is a; e from -127. The ceiling is exact, as the GPU's conversion to E8M0 is;
/// torchao on a CPU takes it of an f32 log2, which misses quotients a few ulp above a power of two (no bf16 has such).
float fit_mx(const ScaledFormat& f, float a) {
  const SmallFloat& element = *small_float(f.element);
  int exponent;  // biased
  if (f.mapping == Mapping::MxCeil) {
    const auto bits = std::bit_cast<std::uint32_t>(a / element.largest);
    // Subnormal quotients: 2^-127 holds those up to it.
    exponent = bits < 0x00800000u ? bits > 0x00400000u : static_cast<int>(bits >> 23) + ((bits & 0x7fffffu) != 0);
  } else {
    const int mantissa = f.mapping == Mapping::MxCt && element.bits() == 8 ? 1 : element.mantissa;
    const std::uint32_t half = f.mapping == Mapping::MxFloor ? 0 : 1u << (22 - mantissa);
    exponent = static_cast<int>((std::bit_cast<std::uint32_t>(a) + half) >> 23) - exponent_of(element.largest);
  }
  return power_of_two(std::clamp(exponent, 0, 254) - 127);
}

float fit_magnitude(const ScaledFormat& f, float a) {
  const float half = static_cast<float>((1 << f.bits()) - 1) / 2.0f, full = static_cast<float>(1 << (f.bits() - 1));
  switch (f.mapping) {
    case Mapping::Sym: return std::max(rounded(f.scale, a / half), smallest_normal(f.scale));
    case Mapping::SymEps: return std::max(rounded(f.scale, a / half), 0x1p-23f);
    case Mapping::SymFull: return std::max(rounded(f.scale, a / full), rounded(f.scale, kMslkFloor));
    case Mapping::MslkSym: return std::max(a, kMslkFloor) / full;
    case Mapping::CtSym: return or_epsilon(f.scale, rounded(f.scale, a / half));
    case Mapping::Fp8:
    case Mapping::CtFp8: return rounded(f.scale, a / small_float(f.element)->largest);
    case Mapping::Nv:
    case Mapping::NvLocal: return a / 6.0f;
    case Mapping::NvCt: return rounded(ScaleType::BF16, a / 6.0f);
    case Mapping::MxCeil:
    case Mapping::MxFloor:
    case Mapping::MxEven:
    case Mapping::MxCt: return fit_mx(f, a);
    default: return a;
  }
}

// ---- Joining ----

void join_tensor(std::span<float> params, std::size_t per_row) {
  float largest = 0.0f;
  for (std::size_t i = 0; i < params.size(); i += per_row) largest = std::max(largest, params[i]);
  for (std::size_t i = 0; i < params.size(); i += per_row) params[i] = largest;
}

void join_bands(std::span<float> params, std::int64_t rows, std::int64_t groups) {
  for (std::int64_t band = 0; band < rows; band += kBandRows) {
    const std::int64_t end = std::min(rows, band + kBandRows);
    for (std::int64_t g = 0; g < groups; ++g) {
      float largest = 0.0f;
      for (std::int64_t r = band; r < end; ++r) largest = std::max(largest, params[r * groups + g]);
      for (std::int64_t r = band; r < end; ++r) params[r * groups + g] = largest;
    }
  }
}

/// The mean is summed in double, in order: torch's f32 sum depends on the machine it runs on.
void join_double(std::span<float> params, std::int64_t rows, std::int64_t groups) {
  const std::int64_t nested = nested_blocks(groups), per_row = 2 + nested + groups, total = rows * groups;
  const auto absmax = [&](std::int64_t i) { return params[i / groups * per_row + 2 + nested + i % groups]; };
  double sum = 0.0;
  for (std::int64_t i = 0; i < total; ++i) sum += absmax(i);
  const auto offset = static_cast<float>(sum / static_cast<double>(total));
  std::vector<float> largest(static_cast<std::size_t>((total + kNestedBlock - 1) / kNestedBlock), 0.0f);
  for (std::int64_t i = 0; i < total; ++i) {
    float& m = largest[i / kNestedBlock];
    m = std::max(m, std::fabs(absmax(i) - offset));
  }
  for (std::int64_t r = 0; r < rows; ++r) {
    const std::span<float> row = params.subspan(r * per_row, per_row);
    const auto block = static_cast<std::size_t>(r * groups / kNestedBlock);
    row[0] = offset;
    row[1] = static_cast<float>(std::min(groups, kNestedBlock - r * groups % kNestedBlock));
    for (std::size_t j = 0; j < static_cast<std::size_t>(nested); ++j)
      row[2 + j] = block + j < largest.size() ? largest[block + j] : 0.0f;
  }
}

// ---- Storing ----

template <typename T>
void put(std::byte* out, T value) {
  std::memcpy(out, &value, sizeof(T));
}

template <typename T>
T get(const std::byte* in) {
  T value;
  std::memcpy(&value, in, sizeof(T));
  return value;
}

/// Stores a scale in the types that hold it as a number.
inline void put_scale(ScaleType type, float scale, std::byte* out) {
  switch (type) {
    case ScaleType::BF16: return put(out, saturated_bf16(scale).bits);
    case ScaleType::F16: return put(out, saturated_f16(scale).bits);
    case ScaleType::E8M0: return put(out, static_cast<std::uint8_t>(std::bit_cast<std::uint32_t>(scale) >> 23));
    case ScaleType::E4M3: return put(out, static_cast<std::uint8_t>(to_small(kE4M3, scale)));
    default: return put(out, scale);
  }
}

/// True for infinities, NaN and the largest magnitude of the type.
bool overflows(const ScaledFormat& format, const std::byte* in) {
  switch (format.scale) {
    case ScaleType::BF16: return (get<std::uint16_t>(in) & 0x7fffu) >= 0x7f7fu;
    case ScaleType::F16: return overflows_f16(get<std::uint16_t>(in));
    case ScaleType::F32: return (get<std::uint32_t>(in) & 0x7fffffffu) >= 0x7f7fffffu;
    // Below a tensor's scale the largest is 448 by construction.
    case ScaleType::E4M3: return format.mapping == Mapping::NvLocal && (get<std::uint8_t>(in) & 0x7fu) >= 0x7eu;
    default: return false;
  }
}

float get_scale(ScaleType type, const std::byte* in) {
  switch (type) {
    case ScaleType::BF16: return to_float(bf16{get<std::uint16_t>(in)});
    case ScaleType::F16: return to_float(f16{get<std::uint16_t>(in)});
    case ScaleType::E8M0: return power_of_two(static_cast<int>(get<std::uint8_t>(in)) - 127);
    case ScaleType::E4M3: return to_float(kE4M3, get<std::uint8_t>(in));
    default: return get<float>(in);
  }
}

/// Which of a row's absmaxes of absmaxes stands for group g, `first` groups belonging to the first. Safe for any `first`.
std::size_t nested_of(std::int64_t g, std::int64_t first) {
  const std::int64_t in_first = std::clamp<std::int64_t>(first, 1, kNestedBlock);
  return static_cast<std::size_t>(g < in_first ? 0 : 1 + (g - in_first) / kNestedBlock);
}

Rounding store_integer(const ScaledFormat& f, const float* params, std::byte* out) {
  const float low = -static_cast<float>(1 << (f.bits() - 1)), high = -low - 1, scale = params[0];
  put_scale(f.scale, scale, out);
  std::byte* zero_out = out + f.scale_bytes();
  switch (f.mapping) {
    case Mapping::Sym:
    case Mapping::SymFull: return {rounded(f.scale, 1.0f / scale), 0.0f, low, high, 0};
    case Mapping::SymEps: return {1.0f / scale, 0.0f, low, high, 0};
    case Mapping::Asym: {
      const float zero = params[1];
      put(zero_out, static_cast<std::int8_t>(integer_in(zero, -128, 127)));
      return {rounded(f.scale, 1.0f / scale), 0.0f, low - zero, high - zero, integer_in(zero, -128, 127)};
    }
    case Mapping::CtAsym:
      put(zero_out, static_cast<std::int8_t>(integer_in(params[1], -128, 127)));
      return {scale, params[1], low, high, 0};
    case Mapping::Tinygemm: {
      // No peer stores f16; there, z goes by the stored s, whose subnormals would leave a group of zeros off zero.
      const float step = f.scale == ScaleType::F16 ? rounded(f.scale, scale) : scale;
      put_scale(f.scale, std::min(params[1] + step * -low, kLargest), zero_out);  // beyond: see fit_asymmetric
      return {scale, params[1], 0.0f, high - low, static_cast<std::int32_t>(low)};
    }
    default: return {scale, 0.0f, low, high, 0};
  }
}

Rounding multiply_by(float factor) { return {factor, 0.0f, 0.0f, 0.0f, 0}; }

Rounding store_nv(const ScaledFormat& f, const float* params, float amax, std::byte* out) {
  if (f.mapping == Mapping::NvCt) {
    const float global = amax;  // store_groups made it the stored one
    const float scale = to_float(kE4M3, to_small(kE4M3, global * params[0]));
    const float stored = scale == 0.0f ? 0.125f : scale;
    put_scale(f.scale, stored, out);
    return multiply_by(stored / global);
  }
  const float tensor = f.mapping == Mapping::Nv ? amax : 1.0f;
  if (tensor == 0.0f) {
    put_scale(f.scale, kNvSmallestScale, out);
    return multiply_by(0.0f);
  }
  const unsigned code = to_small(kE4M3, std::clamp(params[0] / tensor, kNvSmallestScale, 448.0f));
  put(out, static_cast<std::uint8_t>(code));
  return multiply_by((1.0f / tensor) / to_float(kE4M3, code));
}

/// The tensor-wide number of an NVFP4 row as stored: t, 0 where its inverse would overflow (then all codes are zeros); g.
float nv_tensor(Mapping mapping, float amax) {
  if (mapping == Mapping::NvCt) {
    const float global = to_float(to_bf16(kNvLargest / std::max(amax, 0x1p-126f)));
    return std::isfinite(global) ? global : 1.0f;
  }
  const float tensor = amax / kNvLargest;
  return std::isfinite(1.0f / tensor) ? tensor : 0.0f;
}

Rounding store_float(const ScaledFormat& f, const float* params, std::byte* out) {
  // Not in the fit: a row of zeros must not raise the scale that it shares with others.
  const float scale = f.mapping == Mapping::CtFp8 ? or_epsilon(f.scale, params[0]) : params[0];
  put_scale(f.scale, scale, out);
  switch (f.mapping) {
    case Mapping::Fp8:  // a scale of 0: all codes zeros
      return multiply_by(scale == 0.0f ? std::numeric_limits<float>::infinity() : scale);
    case Mapping::CtFp8: return multiply_by(scale);
    case Mapping::Absmax: return multiply_by(1.0f / std::max(scale, kBnbFloor));
    default: break;
  }
  if (exponent_of(scale) > -127 || f.mapping == Mapping::MxCt) return multiply_by(power_of_two(-exponent_of(scale)));
  return multiply_by(f.mapping == Mapping::MxCeil ? 1.0f : 0x1p126f);  // as torchao does at the smallest scale
}

}  // namespace

Arithmetic arithmetic(const ScaledFormat& f) {
  const auto typed = [&](Arithmetic f32, Arithmetic b16, Arithmetic h16) {
    return f.scale == ScaleType::BF16 ? b16 : f.scale == ScaleType::F16 ? h16 : f32;
  };
  switch (f.mapping) {
    case Mapping::Sym:
    case Mapping::SymFull:
    case Mapping::Asym: return typed(Arithmetic::Multiply, Arithmetic::MultiplyBf16, Arithmetic::MultiplyF16);
    case Mapping::CtSym:
    case Mapping::CtAsym: return typed(Arithmetic::DivideAdd, Arithmetic::DivideAddBf16, Arithmetic::DivideAddF16);
    case Mapping::Tinygemm: return Arithmetic::ShiftDivide;
    case Mapping::CtFp8: return typed(Arithmetic::Divide, Arithmetic::DivideBf16, Arithmetic::Divide);
    case Mapping::MslkSym:
    case Mapping::Fp8:
    case Mapping::NvCt: return Arithmetic::Divide;
    default: return Arithmetic::Multiply;
  }
}

void fit_groups(const ScaledFormat& f, std::span<const Extent> extents, std::span<float> params) {
  const auto groups = static_cast<std::int64_t>(extents.size());
  float* out = params.data() + f.header_params(groups);
  for (const Extent& extent : extents) {
    if (f.asymmetric()) {
      const Affine affine = fit_asymmetric(f, extent);
      *out++ = affine.scale;
      *out++ = affine.zero;
    } else {
      *out++ = fit_magnitude(f, extent.high);
    }
  }
  if (f.mapping == Mapping::Nv || f.mapping == Mapping::NvCt) {
    params[0] = 0.0f;
    for (const Extent& extent : extents) params[0] = std::max(params[0], extent.high);
    if (f.fixed) params[0] = nv_tensor(f.mapping, params[0]);
  }
  if (f.mapping == Mapping::AbsmaxDouble) join_double(params, 1, groups);
}

void join_rows(const ScaledFormat& f, std::span<float> params, std::int64_t rows, std::int64_t groups) {
  if (rows == 0 || f.sharing == Sharing::None) return;
  if (f.mapping == Mapping::AbsmaxDouble) return join_double(params, rows, groups);
  if (f.sharing == Sharing::Band) return join_bands(params, rows, groups);
  join_tensor(params, params.size() / static_cast<std::size_t>(rows));
}

void extract_group(const ScaledFormat& f, std::span<const float> params, std::int64_t groups, std::int64_t g,
                   std::span<float> out) {
  const auto header = static_cast<std::size_t>(f.header_params(1)), per_group = static_cast<std::size_t>(f.group_params());
  if (f.mapping == Mapping::AbsmaxDouble) {
    out[0] = params[0];
    out[1] = 1.0f;
    std::ranges::fill(out.subspan(2, header - 2), params[2 + nested_of(g, integer_in(params[1], 1, kNestedBlock))]);
  } else if (header == 1) {
    out[0] = params[0];
  }
  const std::span<const float> group =
      params.subspan(static_cast<std::size_t>(f.header_params(groups)) + static_cast<std::size_t>(g) * per_group, per_group);
  std::ranges::copy(group, out.begin() + static_cast<std::ptrdiff_t>(header));
}

void store_groups(const ScaledFormat& f, std::span<const float> params, std::int64_t first, std::int64_t groups,
                  std::int64_t elements, std::byte* row, std::span<Rounding> roundings) {
  const bool nv = f.mapping == Mapping::Nv || f.mapping == Mapping::NvCt, twice = f.mapping == Mapping::AbsmaxDouble;
  const float tensor = !nv ? 0.0f : f.fixed ? params[0] : nv_tensor(f.mapping, params[0]);
  const std::int64_t nested = twice ? nested_blocks(groups) : 0;
  if (nv) put(row, tensor);
  if (twice) {
    put(row, params[0]);
    std::memcpy(row + sizeof(float), params.data() + 2, static_cast<std::size_t>(nested) * sizeof(float));
    put(row + static_cast<std::size_t>(1 + nested) * sizeof(float),
        static_cast<std::uint16_t>(integer_in(params[1], 1, kNestedBlock)));
  }
  const std::size_t stride = f.group_bytes(elements);
  std::byte* out = row + f.header_bytes(groups) + static_cast<std::size_t>(first) * stride;
  const float* p = params.data() + f.header_params(groups) + first * f.group_params();
  for (std::size_t i = 0; i < roundings.size(); ++i, out += stride, p += f.group_params()) {
    if (f.integer()) {
      roundings[i] = store_integer(f, p, out);
    } else if (f.element == Element::E2M1 && f.scale == ScaleType::E4M3) {
      roundings[i] = store_nv(f, p, tensor, out);
    } else if (twice) {
      const auto g = first + static_cast<std::int64_t>(i);
      const float largest = params[2 + nested_of(g, integer_in(params[1], 1, kNestedBlock))];
      put(out, signed_dynamic_map().code((*p - params[0]) * (1.0f / std::max(largest, kBnbFloor))));
      roundings[i] = multiply_by(1.0f / std::max(*p, kBnbFloor));
    } else {
      roundings[i] = store_float(f, p, out);
    }
  }
}

void multiply_scale(const ScaledFormat& f, std::byte* scale, float factor) {
  put_scale(f.scale, get_scale(f.scale, scale) * factor, scale);
}

bool parameters_overflow(const ScaledFormat& format, const std::byte* group) {
  return overflows(format, group) ||
         (format.mapping == Mapping::Tinygemm && overflows(format, group + format.scale_bytes()));
}

void load_groups(const ScaledFormat& f, const std::byte* row, std::int64_t first, std::int64_t groups, std::int64_t elements,
                 std::span<Decoding> decodings) {
  const std::size_t stride = f.group_bytes(elements);
  const std::byte* in = row + f.header_bytes(groups) + static_cast<std::size_t>(first) * stride;
  const bool twice = f.mapping == Mapping::AbsmaxDouble;
  const std::byte* nested = row + sizeof(float);
  const std::int64_t in_first =
      twice ? get<std::uint16_t>(nested + static_cast<std::size_t>(nested_blocks(groups)) * sizeof(float)) : 0;
  for (std::size_t i = 0; i < decodings.size(); ++i, in += stride) {
    Decoding& d = decodings[i];
    d = {0.0f, 0.0f, 0};
    if (twice) {
      const std::size_t j = nested_of(first + static_cast<std::int64_t>(i), in_first);
      d.scale =
          signed_dynamic_map().values()[get<std::uint8_t>(in)] * get<float>(nested + j * sizeof(float)) + get<float>(row);
      continue;
    }
    d.scale = get_scale(f.scale, in);
    const std::byte* zero = in + f.scale_bytes();
    if (f.mapping == Mapping::Nv) d.scale = get<float>(row) * d.scale;
    if (f.mapping == Mapping::NvCt) d.scale = d.scale / get<float>(row);
    if (f.mapping == Mapping::Tinygemm) d.shift = get_scale(f.scale, zero);
    if (f.mapping == Mapping::Asym || f.mapping == Mapping::CtAsym) d.zero = get<std::int8_t>(zero);
  }
}

void stored_roundings(const ScaledFormat& f, const std::byte* row, std::int64_t first, std::int64_t groups,
                      std::int64_t elements, std::span<Rounding> roundings) {
  std::vector<Decoding> decodings(roundings.size());
  load_groups(f, row, first, groups, elements, decodings);
  const bool nv = f.mapping == Mapping::Nv || f.mapping == Mapping::NvLocal;
  const float tensor = f.mapping == Mapping::Nv ? get<float>(row) : 1.0f;
  const std::size_t stride = f.group_bytes(elements);
  const std::byte* scales = row + f.header_bytes(groups) + static_cast<std::size_t>(first) * stride;
  std::byte ignored[2 * sizeof(float)];
  for (std::size_t i = 0; i < roundings.size(); ++i, scales += stride) {
    const Decoding& d = decodings[i];
    float params[2] = {d.scale, static_cast<float>(d.zero)};
    if (f.mapping == Mapping::Tinygemm) params[1] = d.shift - d.scale * static_cast<float>(1 << (f.bits() - 1));
    if (f.integer())
      roundings[i] = store_integer(f, params, ignored);
    else if (nv)
      roundings[i] = multiply_by((1.0f / tensor) / get_scale(f.scale, scales));
    else if (f.mapping == Mapping::NvCt)
      roundings[i] = multiply_by(d.scale);
    else if (f.mapping == Mapping::AbsmaxDouble)
      roundings[i] = multiply_by(1.0f / std::max(d.scale, kBnbFloor));
    else
      roundings[i] = store_float(f, params, ignored);
    // Codes times 0 are zeros whatever they are: the code of 0.
    if (d.scale == 0.0f)
      roundings[i].factor = arithmetic(f) >= Arithmetic::Divide ? std::numeric_limits<float>::infinity() : 0.0f;
  }
}

}  // namespace temper::quant
