#include "quant/int_product.h"

#include <algorithm>
#include <array>
#include <atomic>
#include <limits>

#include "base/error.h"
#include "quant/checks.h"
#include "quant/isa/activations.h"
#include "quant/isa/int_dot.h"
#include "quant/scaled_codec.h"

namespace temper::quant {

// One definition per compilation of isa/int_dot.cpp.
namespace generic {
extern const IntTable kIntTable;
}
#if defined(__x86_64__)
namespace avx2 {
extern const IntTable kIntTable;
}
namespace avx2vnni {
extern const IntTable kIntTable;
}
namespace avx512vnni {
extern const IntTable kIntTable;
}
#endif

namespace {

const IntTable& table_of([[maybe_unused]] IntKernels kernels) {
#if defined(__x86_64__)
  if (kernels == IntKernels::Avx512Vnni) return avx512vnni::kIntTable;
  if (kernels == IntKernels::Avx2Vnni) return avx2vnni::kIntTable;
  if (kernels == IntKernels::Avx2) return avx2::kIntTable;
#endif
  return generic::kIntTable;
}

std::atomic<const IntTable*> table_in_use{nullptr};

const IntTable& int_table() {
  const IntTable* table = table_in_use.load(std::memory_order_relaxed);
  if (!table) {
    table = &table_of(int_kernels_of(active_isa()));
    table_in_use.store(table, std::memory_order_relaxed);
  }
  return *table;
}

std::int64_t round_up(std::int64_t n, std::int64_t to) { return (n + to - 1) / to * to; }

// ---- Formats ----

/// Integers of 4 and 8 bits whose codes, less a zero point, fit a byte.
IntFormat scaled_format(const ScaledFormat& format) {
  const bool float_scale =
      format.scale == ScaleType::F32 || format.scale == ScaleType::BF16 || format.scale == ScaleType::F16;
  if (!format.integer() || !float_scale || format.sharing != Sharing::None) return {};
  IntFormat found{.scale = format.scale, .group = format.group};
  if (format.element == Element::Int4 && format.group % 32 == 0 && format.group > 0) {
    found.rule = IntRule::Nibbles;
    found.minima = format.mapping == Mapping::Tinygemm;
    found.zero_points = format.asymmetric() && !found.minima;
  } else if (format.element == Element::Int8 && !format.asymmetric()) {
    found.rule = IntRule::Bytes;
  }
  return found;
}

/// The rule of none where there is no kernel. A group that is the whole row is as long as `cols`.
IntFormat int_format(const Codec& codec, std::int64_t cols) {
  struct Gguf {
    std::string_view name;
    IntRule rule;
    std::int64_t group;
    bool minima;
  };
  static constexpr std::array<Gguf, 10> kGguf = {{{"q4_0", IntRule::Q4_0, 32, false},
                                                  {"q4_1", IntRule::Q4_1, 32, true},
                                                  {"q5_0", IntRule::Q5_0, 32, false},
                                                  {"q5_1", IntRule::Q5_1, 32, true},
                                                  {"q8_0", IntRule::Q8_0, 32, false},
                                                  {"q2_k", IntRule::Q2_K, 16, true},
                                                  {"q3_k", IntRule::Q3_K, 16, false},
                                                  {"q4_k", IntRule::Q4_K, 32, true},
                                                  {"q5_k", IntRule::Q5_K, 32, true},
                                                  {"q6_k", IntRule::Q6_K, 16, false}}};
  constexpr std::int64_t kLongest = 65536;  // 65536 · 255 · 128 fits 32 bits
  IntFormat format;
  if (const auto found = std::ranges::find(kGguf, codec.name(), &Gguf::name); found != kGguf.end())
    format = {.rule = found->rule, .minima = found->minima, .group = found->group};
  else if (const auto* scaled = dynamic_cast<const ScaledCodec*>(&codec))
    format = scaled_format(scaled->format());
  if (format.group == 0) format.group = cols;
  if (!codec.fits(cols) || format.group > kLongest) format.rule = IntRule::None;
  return format;
}

/// The format of activations in bytes with one scale a row, or null.
const ScaledFormat* token_format(const InputFormat& input) {
  const auto* scaled = dynamic_cast<const ScaledCodec*>(input.codec);
  if (!scaled) return nullptr;
  const ScaledFormat& format = scaled->format();
  const bool bytes = format.element == Element::Int8 && format.group == 0 && format.sharing == Sharing::None;
  return bytes && format.mapping != Mapping::Tinygemm ? &format : nullptr;
}

bool is_finite(const TensorView& x, std::int64_t row) {
  const ActivationKernels& kernels = kActivationKernels.in_use();
  const std::int64_t at = row * x.row_stride;
  const std::uint32_t largest = x.dtype == DType::F32 ? kernels.largest_f32(x.as<const float>() + at, x.cols())
                                                      : kernels.largest_bf16(&x.as<const bf16>()[at].bits, x.cols());
  return largest < 0x7f800000u;
}

/// Memory that a thread keeps: for unpacked weights, and for a few rows of activations as they are multiplied.
struct ProductMemory {
  std::vector<std::int8_t> codes, scratch, few_codes;
  std::vector<float> scales, minima, few_scales, few_minimum_sums;
  std::vector<std::int32_t> code_sums, few_sums;

  template <typename T>
  static T* grow(std::vector<T>& vector, std::int64_t n) {
    if (std::ssize(vector) < n) vector.resize(static_cast<std::size_t>(n));
    return vector.data();
  }
  IntPanel panel(const IntFormat& format, std::int64_t cols, std::int64_t rows) {
    const std::int64_t groups = (cols + format.group - 1) / format.group;
    const std::int64_t quads = format.group == cols ? round_up(cols, 32) / 4 : format.group / 4;
    grow(scratch, kPackRows * groups * quads * 4);
    return {grow(codes, groups * quads * 4 * rows),
            grow(scales, groups * rows),
            format.minima ? grow(minima, groups * rows) : nullptr,
            grow(code_sums, groups * rows),
            groups,
            quads};
  }
  FewMemory few(std::int64_t groups, std::int64_t stride) {
    const std::int64_t n = kFewRows * groups;
    return {grow(few_codes, kFewRows * stride), grow(few_sums, n), grow(few_scales, n), grow(few_minimum_sums, n)};
  }
};

ProductMemory& product_memory() {
  static thread_local ProductMemory memory;
  return memory;
}

}  // namespace

IntKernels int_kernels_of(Isa isa) {
  if (isa >= Isa::Avx512 && has_byte_products(isa)) return IntKernels::Avx512Vnni;
  if (isa >= Isa::Avx2) return has_byte_products(Isa::Avx2) ? IntKernels::Avx2Vnni : IntKernels::Avx2;
  return IntKernels::Generic;
}

std::vector<IntKernels> available_int_kernels() {
  std::vector<IntKernels> found = {IntKernels::Generic};
  if (detected_isa() >= Isa::Avx2) found.push_back(IntKernels::Avx2);
  for (const Isa isa : {Isa::Avx2, Isa::Avx512})
    if (detected_isa() >= isa && int_kernels_of(isa) > found.back()) found.push_back(int_kernels_of(isa));
  return found;
}

void set_int_kernels(IntKernels kernels) { table_in_use.store(&table_of(kernels), std::memory_order_relaxed); }

std::int64_t integer_panel_rows() { return int_table().panel_rows; }

bool has_integer_product(const Codec& weight, const InputFormat& input, std::int64_t cols) {
  const IntFormat format = int_format(weight, cols);
  if (format.rule == IntRule::None) return false;
  if (input.grid == ActivationGrid::None) {
    const ScaledFormat* token = token_format(input);
    return token && token->fixed == input.range.known();
  }
  return activation_grid(weight) == input.grid;
}

std::int64_t minimum_group(const Codec& weight, std::int64_t cols) {
  const IntFormat format = int_format(weight, cols);
  return format.minima ? format.group : 0;
}

// ---- Activations ----

IntegerInput::IntegerInput(Arena& arena, const InputFormat& format_, std::int64_t rows, std::int64_t cols_,
                           std::int64_t sum_group_)
    : format(format_), cols(cols_), sum_group(sum_group_) {
  const ScaledFormat* token = token_format(format);
  if (format.grid == ActivationGrid::None && !token) throw LogicError("integer products: activations in no 8-bit format");
  codes = arena.allocate(DType::U8, Shape{rows, round_up(cols, 64)});
  scales = arena.allocate(DType::F32, Shape{rows, token ? 1 : cols / 32});
  if (token && token->asymmetric()) zeros = arena.allocate(DType::I32, Shape{rows, 1});
  if (sum_group > 0) sums = arena.allocate(DType::F32, Shape{rows, cols / sum_group});
}

void IntegerInput::round(const TensorView& x, std::int64_t begin, std::int64_t end) const {
  const ScaledFormat* token = token_format(format);
  const IntTable& table = int_table();
  const int grid = static_cast<int>(format.grid) - 1;
  const std::size_t bytes = token ? format.codec->row_bytes(cols) : 0;
  std::vector<std::byte> encoded(static_cast<std::size_t>(end - begin) * bytes);
  if (token) encode_activations(*format.codec, format.range, x.slice_rows(begin, end), encoded);
  for (std::int64_t r = begin; r < end; ++r) {
    auto* row = codes.as<std::uint8_t>() + r * codes.row_stride;
    float* scale = scales.as<float>() + r * scales.row_stride;
    std::fill(row + cols, row + codes.cols(), std::uint8_t{0});
    std::int32_t zero = 128;
    if (token) {
      const std::byte* from = encoded.data() + static_cast<std::size_t>(r - begin) * bytes;
      Decoding decoding;
      load_groups(*token, from, 0, 1, cols, {&decoding, 1});
      *scale = is_finite(x, r) ? decoding.scale : std::numeric_limits<float>::quiet_NaN();
      zero += decoding.zero;
      table.to_unsigned(reinterpret_cast<const signed char*>(from + token->scale_bytes() + token->zero_bytes()), cols, row);
    } else if (x.dtype == DType::F32) {
      kActivationKernels.in_use().codes_f32[grid](x.as<const float>() + r * x.row_stride, cols, row, scale);
    } else {
      kActivationKernels.in_use().codes_bf16[grid](&x.as<const bf16>()[r * x.row_stride].bits, cols, row, scale);
    }
    if (zeros) zeros.as<std::int32_t>()[r] = zero;
    if (sum_group == 0) continue;
    float* sum = sums.as<float>() + r * sums.row_stride;
    table.sums(row, cols, sum_group, zero, sum);
    for (std::int64_t g = 0; !token && g < cols / sum_group; ++g) sum[g] *= scale[g * sum_group / 32];
  }
}

// ---- Products ----

void integer_product(const EncodedView& weights, const IntegerInput& x, std::int64_t first, std::int64_t last,
                     const TensorView& y, bool accumulate) {
  const IntFormat format = int_format(*weights.codec, weights.cols);
  if (!has_integer_product(*weights.codec, x.format, weights.cols) || (format.minima && x.sum_group != format.group))
    throw LogicError("integer products: {} has none with these activations", weights.codec->name());
  const IntTable& table = int_table();
  const std::int64_t rows = table.panel_rows;
  ProductMemory& memory = product_memory();
  const auto row_bytes = static_cast<std::int64_t>(weights.codec->row_bytes(weights.cols));
  IntTask task{};
  task.x = x.codes.as<const std::uint8_t>() + first * x.codes.row_stride;
  task.m = last - first;
  task.x_stride = x.codes.row_stride;
  task.x_scales = x.scales.as<const float>() + first * x.scales.row_stride;
  task.scale_stride = x.format.grid == ActivationGrid::None ? 0 : x.scales.row_stride;
  if (x.zeros) task.zeros = x.zeros.as<const std::int32_t>() + first;
  if (format.minima) {
    task.x_sums = x.sums.as<const float>() + first * x.sums.row_stride;
    task.sum_stride = x.sums.row_stride;
  }
  task.type = y.dtype == DType::BF16 ? IntOutput::BF16 : accumulate ? IntOutput::AddF32 : IntOutput::F32;
  task.out = y.data;
  task.out_stride = y.row_stride;
  task.count = weights.rows;
  PackTask pack{format, reinterpret_cast<const unsigned char*>(weights.bytes.data()), weights.rows, row_bytes, weights.cols,
                {}};
  const FewMemory few = memory.few(weights.cols / format.group, x.codes.row_stride);
  if (table.few_rows && table.few_rows(pack, task, few)) return;
  task.panel = memory.panel(format, weights.cols, rows);
  pack.scratch = memory.scratch.data();
  for (std::int64_t n = 0; n < weights.rows; n += rows) {
    task.count = pack.rows = std::min(rows, weights.rows - n);
    task.out = static_cast<std::byte*>(y.data) + static_cast<std::size_t>(n) * dtype_size(y.dtype);
    table.pack(pack, task.panel);
    table.product(task);
    pack.weights += rows * row_bytes;
  }
}

}  // namespace temper::quant
