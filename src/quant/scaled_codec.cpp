#include "quant/scaled_codec.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>

#include "quant/checks.h"
#include "quant/formats.h"
#include "quant/isa/int_sym.h"

namespace temper::quant {
namespace {

constexpr std::int64_t kChunk = 32;
constexpr std::int64_t kRun = 64;  ///< Groups whose arithmetic is kept on the stack at a time.

// ---- The definition of elements ----

float rounded_to_bf16(float x) { return to_float(to_bf16(x)); }
float rounded_to_f16(float x) { return to_float(to_f16(x)); }

/// w as the nearest code is taken of it.
float scaled(Arithmetic arithmetic, float w, const Rounding& r) {
  switch (arithmetic) {
    case Arithmetic::Multiply: return w * r.factor;
    case Arithmetic::MultiplyBf16: return rounded_to_bf16(w * r.factor);
    case Arithmetic::MultiplyF16: return rounded_to_f16(w * r.factor);
    case Arithmetic::Divide: return w / r.factor;
    case Arithmetic::DivideBf16: return rounded_to_bf16(w / r.factor);
    case Arithmetic::DivideAdd: return w / r.factor + r.shift;
    case Arithmetic::DivideAddBf16: return rounded_to_bf16(rounded_to_bf16(w / r.factor) + r.shift);
    case Arithmetic::DivideAddF16: return rounded_to_f16(rounded_to_f16(w / r.factor) + r.shift);
    case Arithmetic::ShiftDivide: return (w - r.shift) / r.factor;
  }
  return 0.0f;
}

/// The index of the nearest of 16 values, the lower of two as near: codes in the order of their values, and the midpoints
/// between them. bitsandbytes' order of fp4 has two zeros; negative numbers and 0 take the first.
unsigned nearest_index(Element element, float t) {
  static constexpr std::array<unsigned, 16> kFp4Order = {11, 10, 13, 12, 15, 14, 9, 0, 8, 1, 6, 7, 4, 5, 2, 3};
  const std::span<const float, 16> values = code_values(element);
  const auto at = [&](unsigned i) { return element == Element::Nf4 ? i : kFp4Order[i]; };
  unsigned i = 0;
  while (i < 15 && (values[at(i)] + values[at(i + 1)]) / 2.0f < t) ++i;
  return at(i);
}

/// The raw code of w: as it lies among the codes.
unsigned raw_code(const ScaledFormat& format, float w, const Rounding& r) {
  const float t = scaled(arithmetic(format), w, r);
  if (const SmallFloat* small = small_float(format.element)) return to_small(*small, t);
  if (!format.integer()) return nearest_index(format.element, t);
  const float clipped = t > r.low ? (t < r.high ? t : r.high) : r.low;  // NaN: low
  const int q = static_cast<int>(std::nearbyint(clipped)) + r.zero;
  return format.bits() == 8 ? static_cast<std::uint8_t>(q) : static_cast<unsigned>(q + (1 << (format.bits() - 1)));
}

/// What decode multiplies by the scale, of an integer format before its zero point.
int integer_of(const ScaledFormat& format, unsigned raw) {
  return format.bits() == 8 ? static_cast<std::int8_t>(raw) : static_cast<int>(raw) - (1 << (format.bits() - 1));
}

/// What is added to an integer where it lies among the codes.
int code_offset(const ScaledFormat& format) { return format.integer() && format.bits() < 8 ? 1 << (format.bits() - 1) : 0; }

float decoded(const ScaledFormat& format, unsigned raw, const Decoding& d) {
  if (format.integer()) {
    const float product = static_cast<float>(integer_of(format, raw) - d.zero) * d.scale;
    return format.mapping == Mapping::Tinygemm ? product + d.shift : product;
  }
  const SmallFloat* small = small_float(format.element);
  return (small ? to_float(*small, raw) : code_values(format.element)[raw]) * d.scale;
}

// ---- Where bits lie ----

/// Calls visit(byte, shift in it, bits, shift in the code) for each part of code i of a group.
template <typename Visitor>
void for_each_part(const ScaledFormat& format, std::int64_t i, Visitor&& visit) {
  const int bits = format.bits();
  if (bits == 8) return visit(i, 0, 8, 0);
  const std::int64_t n = format.group == kChunk / 2 ? kChunk / 2 : kChunk, j = i % n;
  std::int64_t at = i / n * n / 8 * bits;
  int shift = 0;
  for (const int part : {4, 2, 1}) {
    if (!(bits & part)) continue;
    if (part == 1)
      visit(at + j / 8, static_cast<int>(j % 8), 1, shift);
    else
      visit(at + j % (n * part / 8), static_cast<int>(j / (n * part / 8)) * part, part, shift);
    at += n * part / 8;
    shift += part;
  }
}

void put_code(const ScaledFormat& format, std::byte* codes, std::int64_t i, unsigned raw) {
  for_each_part(format, i, [&](std::int64_t at, int shift, int bits, int from) {
    codes[at] |= static_cast<std::byte>((raw >> from & ((1u << bits) - 1)) << shift);
  });
}

unsigned get_code(const ScaledFormat& format, const std::byte* codes, std::int64_t i) {
  unsigned raw = 0;
  for_each_part(format, i, [&](std::int64_t at, int shift, int bits, int from) {
    raw |= (static_cast<unsigned>(codes[at]) >> shift & ((1u << bits) - 1)) << from;
  });
  return raw;
}

Extent extent_of(std::span<const float> group, bool asymmetric) {
  Extent extent{0.0f, 0.0f};
  if (asymmetric) extent = {std::numeric_limits<float>::infinity(), -std::numeric_limits<float>::infinity()};
  for (const float w : group) {
    if (asymmetric) extent.low = std::min(extent.low, w);
    extent.high = std::max(extent.high, asymmetric ? w : std::fabs(w));
  }
  return {extent.low + 0.0f, extent.high + 0.0f};  // no negative zero
}

/// Formats with kernels of their own, which torchao's symmetric integers in f32 have.
const PerIsa<RowKernels>* own_kernels_of(const ScaledFormat& format) {
  if (format.mapping != Mapping::Sym || format.scale != ScaleType::F32) return nullptr;
  if (format.element == Element::Int8) return &kInt8SymRows;
  return format.element == Element::Int4 && format.group > 0 ? &kInt4SymRows : nullptr;
}

}  // namespace

ScaledCodec::ScaledCodec(const ScaledFormat& format)
    : Codec(format.name, format.group, !format.fixed), format_(format), own_kernels_(own_kernels_of(format)) {}

// ---- Sizes ----

std::size_t ScaledCodec::row_bytes(std::int64_t cols) const {
  check_cols(*this, cols);
  return codes_at(groups_of(cols), cols) - format_.scale_bytes() - format_.zero_bytes();
}

std::int64_t ScaledCodec::first_overflow(std::span<const std::byte> encoded, std::int64_t rows, std::int64_t cols) const {
  const std::size_t bytes = row_bytes(cols), group = format_.group_bytes(group_of(cols));
  check_size(*this, "encoded bytes", static_cast<std::size_t>(rows) * bytes, encoded.size());
  const std::size_t header = format_.header_bytes(groups_of(cols));
  for (std::int64_t r = 0; r < rows; ++r) {
    const std::span<const std::byte> row = encoded.subspan(static_cast<std::size_t>(r) * bytes, bytes);
    for (std::size_t at = header; at < bytes; at += group)
      if (parameters_overflow(format_, row.data() + at)) return r;
  }
  return -1;
}

std::size_t ScaledCodec::codes_at(std::int64_t g, std::int64_t cols) const {
  return format_.header_bytes(groups_of(cols)) + static_cast<std::size_t>(g) * format_.group_bytes(group_of(cols)) +
         format_.scale_bytes() + format_.zero_bytes();
}

std::size_t ScaledCodec::repeated_bytes(std::int64_t cols) const {
  check_cols(*this, cols);
  const std::size_t header = format_.header_bytes(groups_of(cols));
  if (!joins_rows() || header > 0) return header;
  return static_cast<std::size_t>(groups_of(cols)) * format_.scale_bytes();
}

std::int64_t ScaledCodec::params_per_row(std::int64_t cols) const {
  check_cols(*this, cols);
  return format_.header_params(groups_of(cols)) + groups_of(cols) * format_.group_params();
}

void ScaledCodec::check_row(std::size_t cols, std::size_t params, std::size_t encoded) const {
  const auto signed_cols = static_cast<std::int64_t>(cols);
  check_size(*this, "parameters of a row", static_cast<std::size_t>(params_per_row(signed_cols)), params);
  check_size(*this, "bytes of a row", row_bytes(signed_cols), encoded);
}

// ---- The definition ----

void ScaledCodec::fit(std::span<const float> row, std::span<float> params) const {
  const auto cols = static_cast<std::int64_t>(row.size());
  check_row(row.size(), params.size(), row_bytes(cols));
  const auto n = static_cast<std::size_t>(group_of(cols));
  std::vector<Extent> extents;
  for (std::size_t i = 0; i < row.size(); i += n) extents.push_back(extent_of(row.subspan(i, n), format_.asymmetric()));
  fit_groups(format_, extents, params);
}

void ScaledCodec::round(std::span<const float> row, std::span<const float> params, std::span<std::byte> encoded) const {
  const auto cols = static_cast<std::int64_t>(row.size());
  check_row(row.size(), params.size(), encoded.size());
  const std::int64_t n = group_of(cols), groups = groups_of(cols);
  std::ranges::fill(encoded, std::byte{0});
  std::vector<Rounding> roundings(static_cast<std::size_t>(groups));
  store_groups(format_, params, 0, groups, n, encoded.data(), roundings);
  for (std::int64_t i = 0; i < cols; ++i)
    put_code(format_, encoded.data() + codes_at(i / n, cols), i % n, raw_code(format_, row[i], roundings[i / n]));
}

void ScaledCodec::reround(std::span<const float> row, std::span<std::byte> encoded) const {
  const auto cols = static_cast<std::int64_t>(row.size());
  check_row(row.size(), static_cast<std::size_t>(params_per_row(cols)), encoded.size());
  const std::int64_t n = group_of(cols), groups = groups_of(cols);
  std::vector<Rounding> roundings(static_cast<std::size_t>(groups));
  stored_roundings(format_, encoded.data(), 0, groups, n, roundings);
  for (std::int64_t g = 0; g < groups; ++g)
    std::ranges::fill(encoded.subspan(codes_at(g, cols), format_.code_bytes(n)), std::byte{0});
  for (std::int64_t i = 0; i < cols; ++i)
    put_code(format_, encoded.data() + codes_at(i / n, cols), i % n, raw_code(format_, row[i], roundings[i / n]));
}

void ScaledCodec::decode(std::span<const std::byte> encoded, std::span<float> row) const {
  const auto cols = static_cast<std::int64_t>(row.size());
  check_row(row.size(), static_cast<std::size_t>(params_per_row(cols)), encoded.size());
  const std::int64_t n = group_of(cols), groups = groups_of(cols);
  std::vector<Decoding> decodings(static_cast<std::size_t>(groups));
  load_groups(format_, encoded.data(), 0, groups, n, decodings);
  for (std::int64_t i = 0; i < cols; ++i)
    row[i] = decoded(format_, get_code(format_, encoded.data() + codes_at(i / n, cols), i % n), decodings[i / n]);
}

void ScaledCodec::codes(std::span<const std::byte> encoded, std::span<std::int32_t> out) const {
  const auto cols = static_cast<std::int64_t>(out.size());
  check_row(out.size(), static_cast<std::size_t>(params_per_row(cols)), encoded.size());
  const std::int64_t n = group_of(cols);
  for (std::int64_t i = 0; i < cols; ++i) {
    const unsigned raw = get_code(format_, encoded.data() + codes_at(i / n, cols), i % n);
    out[i] = format_.integer() ? integer_of(format_, raw) : static_cast<std::int32_t>(raw);
  }
}

ScaledCodec::Stored ScaledCodec::stored(std::span<const std::byte> encoded, std::int64_t cols) const {
  check_size(*this, "bytes of a row", row_bytes(cols), encoded.size());
  const std::int64_t groups = groups_of(cols);
  std::vector<Decoding> decodings(static_cast<std::size_t>(groups));
  load_groups(format_, encoded.data(), 0, groups, group_of(cols), decodings);
  Stored stored;
  for (std::int64_t g = 0; g < groups; ++g) {
    const Decoding& d = decodings[g];
    stored.scales.push_back(d.scale);
    stored.shifts.push_back(d.shift);
    stored.zeros.push_back(d.zero);
    const std::size_t at = codes_at(g, cols) - format_.zero_bytes() - format_.scale_bytes();
    for (const std::byte byte : encoded.subspan(at, format_.scale_bytes()))
      stored.scale_bytes.push_back(static_cast<std::uint8_t>(byte));
  }
  const auto header = encoded.first(format_.header_bytes(groups));
  stored.header.assign(header.begin(), header.end());
  return stored;
}

ScaledCodec::Parts ScaledCodec::take_apart(std::span<const std::byte> encoded, std::int64_t rows, std::int64_t cols) const {
  const std::int64_t n = group_of(cols), groups = groups_of(cols);
  const std::size_t bytes = row_bytes(cols), header = format_.header_bytes(groups), scale = format_.scale_bytes(),
                    zero = format_.zero_bytes();
  check_size(*this, "bytes of a matrix", static_cast<std::size_t>(rows) * bytes, encoded.size());
  const auto all_groups = static_cast<std::size_t>(rows * groups);
  Parts parts{std::vector<std::byte>(static_cast<std::size_t>(rows) * header), std::vector<std::byte>(all_groups * scale),
              std::vector<std::byte>(all_groups * zero), std::vector<std::uint8_t>(static_cast<std::size_t>(rows * cols))};
  const int offset = code_offset(format_);
  for (std::int64_t r = 0; r < rows; ++r) {
    const std::byte* row = encoded.data() + static_cast<std::size_t>(r) * bytes;
    std::copy_n(row, header, parts.headers.data() + static_cast<std::size_t>(r) * header);
    for (std::int64_t g = 0; g < groups; ++g) {
      const std::byte* codes = row + codes_at(g, cols);
      const auto at = static_cast<std::size_t>(r * groups + g);
      std::copy_n(codes - zero - scale, scale, parts.scales.data() + at * scale);
      std::copy_n(codes - zero, zero, parts.zeros.data() + at * zero);
      std::uint8_t* out = parts.codes.data() + r * cols + g * n;
      for (std::int64_t i = 0; i < n; ++i)
        out[i] = static_cast<std::uint8_t>(static_cast<int>(get_code(format_, codes, i)) - offset);
    }
  }
  return parts;
}

std::vector<std::byte> ScaledCodec::put_together(const Parts& parts, std::int64_t rows, std::int64_t cols) const {
  const std::int64_t n = group_of(cols), groups = groups_of(cols);
  const std::size_t bytes = row_bytes(cols), header = format_.header_bytes(groups), scale = format_.scale_bytes(),
                    zero = format_.zero_bytes();
  check_size(*this, "bytes of headers", static_cast<std::size_t>(rows) * header, parts.headers.size());
  check_size(*this, "bytes of scales", static_cast<std::size_t>(rows * groups) * scale, parts.scales.size());
  check_size(*this, "bytes of zero points", static_cast<std::size_t>(rows * groups) * zero, parts.zeros.size());
  check_size(*this, "codes", static_cast<std::size_t>(rows * cols), parts.codes.size());
  std::vector<std::byte> encoded(static_cast<std::size_t>(rows) * bytes);
  const unsigned mask = (1u << format_.bits()) - 1;
  const auto offset = static_cast<unsigned>(code_offset(format_));
  for (std::int64_t r = 0; r < rows; ++r) {
    std::byte* row = encoded.data() + static_cast<std::size_t>(r) * bytes;
    std::copy_n(parts.headers.data() + static_cast<std::size_t>(r) * header, header, row);
    for (std::int64_t g = 0; g < groups; ++g) {
      std::byte* codes = row + codes_at(g, cols);
      const auto at = static_cast<std::size_t>(r * groups + g);
      std::copy_n(parts.scales.data() + at * scale, scale, codes - zero - scale);
      std::copy_n(parts.zeros.data() + at * zero, zero, codes - zero);
      const std::uint8_t* in = parts.codes.data() + r * cols + g * n;
      for (std::int64_t i = 0; i < n; ++i) put_code(format_, codes, i, (in[i] + offset) & mask);
    }
  }
  return encoded;
}

std::pair<std::int32_t, std::int32_t> ScaledCodec::end_codes() const {
  if (format_.integer()) return {-(1 << (format_.bits() - 1)), (1 << (format_.bits() - 1)) - 1};
  if (const SmallFloat* small = small_float(format_.element))
    return {static_cast<std::int32_t>(to_small(*small, -small->largest)),
            static_cast<std::int32_t>(to_small(*small, small->largest))};
  return format_.element == Element::Nf4 ? std::pair{0, 15} : std::pair{11, 3};
}

// ---- Fast paths ----

void ScaledCodec::join(std::span<float> params, std::int64_t rows, std::int64_t cols) const {
  Codec::join(params, rows, cols);
  join_rows(format_, params, rows, groups_of(cols));
}

void ScaledCodec::group_params(std::span<const float> params, std::int64_t cols, std::int64_t g,
                               std::span<float> out) const {
  check_size(*this, "parameters of a row", static_cast<std::size_t>(params_per_row(cols)), params.size());
  extract_group(format_, params, groups_of(cols), g, out);
}

void ScaledCodec::fit_row(const TensorView& values, std::int64_t r, std::vector<Extent>& extents,
                          std::span<float> params) const {
  const GroupRun run{group_of(values.cols()), groups_of(values.cols()), 0};
  const ScaledKernels& kernels = kScaled.in_use();
  extents.resize(static_cast<std::size_t>(run.groups));
  const std::int64_t offset = r * values.row_stride;
  if (values.dtype == DType::F32)
    kernels.extents_f32(values.as<const float>() + offset, run, !format_.asymmetric(), extents.data());
  else
    kernels.extents_bf16(&values.as<const bf16>()[offset].bits, run, !format_.asymmetric(), extents.data());
  fit_groups(format_, extents, params);
}

/// `params` empty: with those that the row holds.
void ScaledCodec::round_row(const TensorView& values, std::int64_t r, std::span<const float> params,
                            std::byte* encoded) const {
  const std::int64_t cols = values.cols(), n = group_of(cols), groups = groups_of(cols);
  const ScaledKernels& kernels = kScaled.in_use();
  std::array<Rounding, kRun> roundings;
  for (std::int64_t first = 0; first < groups; first += kRun) {
    const GroupRun run{n, std::min(kRun, groups - first), static_cast<std::int64_t>(format_.group_bytes(n))};
    const auto used = std::span(roundings).first(static_cast<std::size_t>(run.groups));
    if (params.empty())
      stored_roundings(format_, encoded, first, groups, n, used);
    else
      store_groups(format_, params, first, groups, n, encoded, used);
    auto* out = reinterpret_cast<unsigned char*>(encoded + codes_at(first, cols));
    const std::int64_t offset = r * values.row_stride + first * n;
    if (values.dtype == DType::F32)
      kernels.round_f32(format_.element, arithmetic(format_), values.as<const float>() + offset, run, roundings.data(), out);
    else
      kernels.round_bf16(format_.element, arithmetic(format_), &values.as<const bf16>()[offset].bits, run, roundings.data(),
                         out);
  }
}

void ScaledCodec::fit_rows(const TensorView& values, std::span<float> params) const {
  check_matrix(*this, values, static_cast<std::size_t>(values.rows()) * row_bytes(values.cols()));
  const auto per_row = static_cast<std::size_t>(params_per_row(values.cols()));
  check_size(*this, "parameters", static_cast<std::size_t>(values.rows()) * per_row, params.size());
  std::vector<Extent> extents;
  for (std::int64_t r = 0; r < values.rows(); ++r)
    fit_row(values, r, extents, params.subspan(static_cast<std::size_t>(r) * per_row, per_row));
}

void ScaledCodec::round_rows(const TensorView& values, std::span<const float> params, std::span<std::byte> encoded) const {
  check_matrix(*this, values, encoded.size());
  const auto per_row = static_cast<std::size_t>(params_per_row(values.cols()));
  const std::size_t bytes = row_bytes(values.cols());
  check_size(*this, "parameters", static_cast<std::size_t>(values.rows()) * per_row, params.size());
  for (std::int64_t r = 0; r < values.rows(); ++r)
    round_row(values, r, params.subspan(static_cast<std::size_t>(r) * per_row, per_row),
              encoded.data() + static_cast<std::size_t>(r) * bytes);
}

void ScaledCodec::reround_rows(const TensorView& values, std::span<std::byte> encoded) const {
  check_matrix(*this, values, encoded.size());
  const std::size_t bytes = row_bytes(values.cols());
  for (std::int64_t r = 0; r < values.rows(); ++r)
    round_row(values, r, {}, encoded.data() + static_cast<std::size_t>(r) * bytes);
}

void ScaledCodec::encode_rows(const TensorView& values, std::span<std::byte> encoded) const {
  if (own_kernels()) return encode_matrix(*this, *own_kernels(), group_of(values.cols()), values, encoded);
  check_matrix(*this, values, encoded.size());
  const auto per_row = static_cast<std::size_t>(params_per_row(values.cols()));
  if (joins_rows()) {
    std::vector<float> params(static_cast<std::size_t>(values.rows()) * per_row);
    fit_rows(values, params);
    join(params, values.rows(), values.cols());
    return round_rows(values, params, encoded);
  }
  const std::size_t bytes = row_bytes(values.cols());
  std::vector<float> params(per_row);
  std::vector<Extent> extents;
  for (std::int64_t r = 0; r < values.rows(); ++r) {
    fit_row(values, r, extents, params);
    round_row(values, r, params, encoded.data() + static_cast<std::size_t>(r) * bytes);
  }
}

void ScaledCodec::encode_in_range(const StaticRange& range, const TensorView& values, std::span<std::byte> encoded) const {
  if (!format_.fixed || !range.known()) throw LogicError("{}: expected a format with a given range, and one", name());
  check_matrix(*this, values, encoded.size());
  const std::size_t bytes = row_bytes(values.cols());
  std::vector<float> params(static_cast<std::size_t>(params_per_row(values.cols())));
  std::vector<Extent> extents;
  for (std::int64_t r = 0; r < values.rows(); ++r) {
    if (format_.mapping == Mapping::NvCt) fit_row(values, r, extents, params);  // its groups' scales are the row's own
    params[0] = range.scale;
    if (format_.asymmetric()) params[1] = static_cast<float>(range.zero);
    round_row(values, r, params, encoded.data() + static_cast<std::size_t>(r) * bytes);
  }
}

bool ScaledCodec::has_learnable_scales() const {
  return format_.integer() && !joins_rows() && !format_.fixed && format_.scale <= ScaleType::F16;
}

void ScaledCodec::multiply_scales(std::span<std::byte> row, std::int64_t cols, std::span<const float> factors) const {
  check_size(*this, "bytes of a row", row_bytes(cols), row.size());
  check_size(*this, "factors", static_cast<std::size_t>(groups_of(cols)), factors.size());
  for (std::int64_t g = 0; g < groups_of(cols); ++g)
    multiply_scale(format_, row.data() + codes_at(g, cols) - format_.zero_bytes() - format_.scale_bytes(), factors[g]);
}

void ScaledCodec::group_values(std::span<const std::byte> row, std::int64_t cols, std::span<GroupValues> out) const {
  check_size(*this, "bytes of a row", row_bytes(cols), row.size());
  check_size(*this, "groups", static_cast<std::size_t>(groups_of(cols)), out.size());
  std::vector<Decoding> decodings(out.size());
  load_groups(format_, row.data(), 0, groups_of(cols), group_of(cols), decodings);
  const auto [low, high] = end_codes();
  for (std::size_t g = 0; g < out.size(); ++g) {
    const Decoding& d = decodings[g];
    const auto value = [&](std::int32_t code) { return static_cast<float>(code - d.zero) * d.scale + d.shift; };
    out[g] = {d.shift, d.scale, value(low), value(high)};
  }
}

void ScaledCodec::decode_rows(std::span<const std::byte> encoded, const TensorView& out) const {
  if (own_kernels()) return decode_matrix(*this, *own_kernels(), group_of(out.cols()), encoded, out);
  check_matrix(*this, out, encoded.size());
  const std::int64_t cols = out.cols(), n = group_of(cols), groups = groups_of(cols);
  const std::size_t bytes = row_bytes(cols);
  const bool shifted = format_.mapping == Mapping::Tinygemm;
  const ScaledKernels& kernels = kScaled.in_use();
  std::array<Decoding, kRun> decodings;
  for (std::int64_t r = 0; r < out.rows(); ++r) {
    const std::byte* row = encoded.data() + static_cast<std::size_t>(r) * bytes;
    for (std::int64_t first = 0; first < groups; first += kRun) {
      const GroupRun run{n, std::min(kRun, groups - first), static_cast<std::int64_t>(format_.group_bytes(n))};
      load_groups(format_, row, first, groups, n, std::span(decodings).first(static_cast<std::size_t>(run.groups)));
      const auto* in = reinterpret_cast<const unsigned char*>(row + codes_at(first, cols));
      const std::int64_t offset = r * out.row_stride + first * n;
      if (out.dtype == DType::F32)
        kernels.decode_f32(format_.element, shifted, in, run, decodings.data(), out.as<float>() + offset);
      else
        kernels.decode_bf16(format_.element, shifted, in, run, decodings.data(), &out.as<bf16>()[offset].bits);
    }
  }
}

CodeStats ScaledCodec::stats(std::span<const std::byte> encoded, std::span<const std::byte> earlier, std::int64_t rows,
                             std::int64_t cols) const {
  if (own_kernels()) return count_matrix(*this, *own_kernels(), group_of(cols), encoded, earlier, rows, cols);
  const std::size_t bytes = row_bytes(cols);
  check_size(*this, "encoded bytes", static_cast<std::size_t>(rows) * bytes, encoded.size());
  if (!earlier.empty()) check_size(*this, "earlier encoded bytes", encoded.size(), earlier.size());
  const std::int64_t n = group_of(cols);
  const GroupRun run{n, groups_of(cols), static_cast<std::int64_t>(format_.group_bytes(n))};
  const auto [low, high] = end_codes();
  const int offset = code_offset(format_);
  const unsigned char ends[2] = {static_cast<unsigned char>(low + offset), static_cast<unsigned char>(high + offset)};
  const ScaledKernels& kernels = kScaled.in_use();
  const auto* now = reinterpret_cast<const unsigned char*>(encoded.data());
  const auto* before = earlier.empty() ? now : reinterpret_cast<const unsigned char*>(earlier.data());
  CodeStats sum{rows * cols, 0, 0};
  for (std::int64_t r = 0; r < rows; ++r, now += bytes, before += bytes) {
    const std::size_t at = codes_at(0, cols);
    const CodeCounts counts = kernels.count(format_.bits(), now + at, before + at, run, ends);
    sum.changed += counts.changed;
    sum.saturated += counts.saturated;
  }
  return sum;
}

CodecPtr make_scaled(std::string_view name) {
  if (const std::optional<ScaledFormat> format = parse_int_format(name)) return std::make_unique<ScaledCodec>(*format);
  for (const ScaledFormat& format : float_formats())
    if (format.name == name) return std::make_unique<ScaledCodec>(format);
  return nullptr;
}

}  // namespace temper::quant
