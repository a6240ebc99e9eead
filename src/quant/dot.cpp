#include "quant/dot.h"

#include <algorithm>
#include <array>
#include <atomic>
#include <utility>
#include <vector>

#include "quant/checks.h"
#include "quant/codec.h"

namespace temper::quant {

// One definition per compilation of isa/dot.cpp.
namespace generic {
extern const DotTable kDotTable;
}
#if defined(__x86_64__)
namespace avx2 {
extern const DotTable kDotTable;
}
namespace avx512 {
extern const DotTable kDotTable;
}
namespace avx512bf16 {
extern const DotTable kDotTable;
}
#endif

namespace {

const DotTable& table_for([[maybe_unused]] Isa isa) {
#if defined(__x86_64__)
  if (isa >= Isa::Avx512Bf16) return avx512bf16::kDotTable;
  if (isa >= Isa::Avx512) return avx512::kDotTable;
  if (isa >= Isa::Avx2) return avx2::kDotTable;
#endif
  return generic::kDotTable;
}

std::atomic<const DotTable*> table_in_use{nullptr};

constexpr std::int64_t kTileRows = 16;  // rows of weights whose sums are made before they are written
constexpr std::int64_t kTileX = 64;     // rows of x at a time

void write(const TensorView& y, std::int64_t m, std::int64_t n, float sum, bool accumulate) {
  const std::int64_t at = m * y.row_stride + n;
  if (y.dtype == DType::BF16)
    y.as<bf16>()[at] = to_bf16(sum);
  else
    y.as<float>()[at] = accumulate ? y.as<float>()[at] + sum : sum;
}

/// Weights of a tile, decoded; memory that a thread keeps.
TensorView decoded_tile(DType dtype, std::int64_t rows, std::int64_t cols) {
  static thread_local std::vector<std::byte> buffer;
  const std::size_t bytes = static_cast<std::size_t>(rows * cols) * dtype_size(dtype);
  if (buffer.size() < bytes) buffer.resize(bytes);
  return TensorView(buffer.data(), dtype, Shape{rows, cols});
}

}  // namespace

DotRule dot_rule(std::string_view codec) {
  static constexpr std::array<std::pair<std::string_view, DotRule>, 33> kRules = {
      {{"q4_0", DotRule::Q4_0},
       {"q4_1", DotRule::Q4_1},
       {"q5_0", DotRule::Q5_0},
       {"q5_1", DotRule::Q5_1},
       {"q8_0", DotRule::Q8_0},
       {"q4_k", DotRule::Q4_K},
       {"q5_k", DotRule::Q5_K},
       {"q6_k", DotRule::Q6_K},
       {"int4-sym-g32", DotRule::Int4G32},
       {"int4-sym-g64", DotRule::Int4G64},
       {"int4-sym-g128", DotRule::Int4G128},
       {"int4-sym-g32-bf16", DotRule::Int4G32Bf16},
       {"int4-sym-g128-bf16", DotRule::Int4G128Bf16},
       {"int4-ctsym-g128-bf16", DotRule::Int4G128Bf16},
       {"int4-tinygemm-g128-bf16", DotRule::Tinygemm128Bf16},
       {"int8-sym-g32", DotRule::Int8G32},
       {"int8-sym-g64", DotRule::Int8G64},
       {"int8-sym-g128", DotRule::Int8G128},
       {"int8-sym-g32-bf16", DotRule::Int8G32Bf16},
       {"int8-sym", DotRule::Int8Row},
       {"int8-symeps", DotRule::Int8Row},
       {"int8-sym-bf16", DotRule::Int8RowBf16},
       {"int8-symeps-bf16", DotRule::Int8RowBf16},
       {"int8-ctsym-bf16", DotRule::Int8RowBf16},
       {"fp8-e4m3", DotRule::E4M3Row},
       {"fp8-e4m3-ct", DotRule::E4M3Row},
       {"fp8-e4m3-bf16", DotRule::E4M3RowBf16},
       {"fp8-e4m3-ct-bf16", DotRule::E4M3RowBf16},
       {"nf4", DotRule::Nf4},
       {"fp4", DotRule::Fp4},
       {"mxfp4", DotRule::Mxfp4},
       {"mxfp4-floor", DotRule::Mxfp4},
       {"mxfp4-even", DotRule::Mxfp4}}};
  const auto found = std::ranges::find(kRules, codec, [](const auto& rule) { return rule.first; });
  return found == kRules.end() ? DotRule::Decode : found->second;
}

const DotTable& dot_table() {
  const DotTable* table = table_in_use.load(std::memory_order_relaxed);
  if (!table) {
    table = &table_for(active_isa());
    table_in_use.store(table, std::memory_order_relaxed);
  }
  return *table;
}

void set_dot_kernels(Isa isa) { table_in_use.store(&table_for(isa), std::memory_order_relaxed); }

void Codec::dot_rows(std::span<const std::byte> encoded, const TensorView& x, const TensorView& y, bool accumulate) const {
  const std::int64_t rows = y.cols(), cols = x.cols();
  const std::size_t bytes = row_bytes(cols);
  check_size(*this, "encoded bytes", static_cast<std::size_t>(rows) * bytes, encoded.size());
  const DotTable& table = dot_table();
  const bool wide = x.dtype == DType::F32;
  const DotKernel kernel = (wide ? table.f32 : table.bf16)[static_cast<int>(dot_rule_)];
  float sums[kTileX * kTileRows];
  for (std::int64_t first = 0; first < x.rows(); first += kTileX)
    for (std::int64_t n = 0; n < rows; n += kTileRows) {
      DotTask task;
      task.rows = std::min(kTileRows, rows - n);
      task.cols = cols;
      task.m = std::min(kTileX, x.rows() - first);
      task.x_stride = x.row_stride;
      task.x = static_cast<const std::byte*>(x.data) + static_cast<std::size_t>(first * x.row_stride) * dtype_size(x.dtype);
      task.sums = sums;
      task.sums_stride = kTileRows;
      const std::span<const std::byte> tile =
          encoded.subspan(static_cast<std::size_t>(n) * bytes, static_cast<std::size_t>(task.rows) * bytes);
      if (kernel) {
        task.weights = reinterpret_cast<const unsigned char*>(tile.data());
        task.row_bytes = static_cast<std::int64_t>(bytes);
        kernel(task);
      } else {
        const TensorView decoded = decoded_tile(x.dtype, task.rows, cols);
        decode_rows(tile, decoded);
        task.weights = static_cast<const unsigned char*>(decoded.data);
        task.row_bytes = cols * static_cast<std::int64_t>(dtype_size(x.dtype));
        (wide ? table.dense_f32 : table.dense_bf16)(task);
      }
      for (std::int64_t m = 0; m < task.m; ++m)
        for (std::int64_t r = 0; r < task.rows; ++r) write(y, first + m, n + r, sums[m * kTileRows + r], accumulate);
    }
}

}  // namespace temper::quant
