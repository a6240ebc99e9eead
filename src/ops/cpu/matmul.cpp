#include "ops/cpu/matmul.h"

#include <dnnl.hpp>
#include <map>
#include <mutex>

#include "ops/cpu/rows.h"
#include "ops/cpu/tasks.h"

namespace temper::ops::cpu {
namespace {

using Memory = dnnl::memory;

/// Everything a compiled product depends on.
struct ProductKey {
  Index m, n, k;
  Index a_row, a_col, b_row, b_col, c_row;  ///< Strides of op(a), op(b) and c in elements.
  DType operand, result;
  bool accumulate;
  float alpha;
  auto operator<=>(const ProductKey&) const = default;
};

struct Product {
  dnnl::matmul primitive;
  Memory::desc a, b, c, scratch;
};

/// The CPU engine; made once, after oneDNN was told not to go beyond the instruction set in use.
const dnnl::engine& engine() {
  static const dnnl::engine instance = [] {
    if (active_isa() < detected_isa()) {
      constexpr dnnl::cpu_isa kLimit[] = {dnnl::cpu_isa::sse41, dnnl::cpu_isa::avx2, dnnl::cpu_isa::avx512_core,
                                          dnnl::cpu_isa::avx512_core_bf16};
      dnnl::set_max_cpu_isa(kLimit[static_cast<std::size_t>(active_isa())]);
    }
    return dnnl::engine(dnnl::engine::kind::cpu, 0);
  }();
  return instance;
}

Memory::data_type dnnl_type(DType dtype) { return dtype == DType::BF16 ? Memory::data_type::bf16 : Memory::data_type::f32; }

dnnl::primitive_attr attributes(const ProductKey& key) {
  dnnl::post_ops post;
  if (key.alpha != 1.0f) {
#if DNNL_VERSION_MAJOR >= 3
    post.append_eltwise(dnnl::algorithm::eltwise_linear, key.alpha, 0.0f);
#else
    post.append_eltwise(1.0f, dnnl::algorithm::eltwise_linear, key.alpha, 0.0f);
#endif
  }
  if (key.accumulate) post.append_sum(1.0f);
  dnnl::primitive_attr attr;
  attr.set_post_ops(post);
  attr.set_scratchpad_mode(dnnl::scratchpad_mode::user);
  return attr;
}

/// While it lives, oneDNN takes this thread alone, even outside of a parallel region: what it would do with more may change
/// sums.
class OneThread {
 public:
  OneThread() : before_(omp_get_max_threads()) { omp_set_num_threads(1); }
  ~OneThread() { omp_set_num_threads(before_); }
  OneThread(const OneThread&) = delete;
  OneThread& operator=(const OneThread&) = delete;

 private:
  int before_;
};

/// Compiled for one thread: the caller's tiles are what runs in parallel.
Product compile(const ProductKey& key) {
  const Memory::desc a({key.m, key.k}, dnnl_type(key.operand), {key.a_row, key.a_col});
  const Memory::desc b({key.k, key.n}, dnnl_type(key.operand), {key.b_row, key.b_col});
  const Memory::desc c({key.m, key.n}, dnnl_type(key.result), {key.c_row, 1});
  const OneThread alone;
#if DNNL_VERSION_MAJOR >= 3
  const dnnl::matmul::primitive_desc description(engine(), a, b, c, attributes(key));
#else
  const dnnl::matmul::primitive_desc description(dnnl::matmul::desc(a, b, c), attributes(key), engine());
#endif
  return {dnnl::matmul(description), a, b, c, description.scratchpad_desc()};
}

const Product& product_for(const ProductKey& key) {
  static std::mutex mutex;
  static std::map<ProductKey, Product> products;  // nodes stay where they are
  const std::lock_guard lock(mutex);
  auto found = products.find(key);
  if (found == products.end()) found = products.emplace(key, compile(key)).first;
  return found->second;
}

/// op(x) as pointer and strides.
struct Operand {
  const std::byte* data;
  Index row, col;
  std::size_t element;

  Operand(const TensorView& x, bool transpose)
      : data(static_cast<const std::byte*>(x.data)),
        row(transpose ? 1 : x.row_stride),
        col(transpose ? x.row_stride : 1),
        element(dtype_size(x.dtype)) {}
  const std::byte* at(Index r, Index c) const { return data + static_cast<std::size_t>(r * row + c * col) * element; }
};

struct Tiling {
  Index m, n;        ///< Size of a tile.
  Index rows, cols;  ///< Tiles in each direction.
};

/// Extent cut into equal pieces of about `target`, in multiples of 64.
Index piece(Index extent, Index target) {
  const Index pieces = (extent + target - 1) / target;
  return std::min(extent, ((extent + pieces - 1) / pieces + 63) / 64 * 64);
}

/// Large tiles, as the right operand is packed once for each; smaller ones where that would leave too few for the threads of
/// an ordinary machine. A function of the shape alone.
Tiling tiling(Index m, Index n, Index k) {
  constexpr Index kEnough = 8, kSmall = 8 << 20;  // multiply-adds that outweigh starting a tile
  Index tile_m = piece(m, 512), tile_n = piece(n, 2048);
  const auto count = [&] { return ((m + tile_m - 1) / tile_m) * ((n + tile_n - 1) / tile_n); };
  const auto halve = [](Index& tile) { tile = piece(tile, (tile + 1) / 2); };
  while (count() < kEnough && tile_m * tile_n * k > kSmall) {
    if (tile_m > 256)
      halve(tile_m);
    else if (tile_n > 256)
      halve(tile_n);
    else if (tile_m > 128)
      halve(tile_m);
    else
      break;
  }
  return {tile_m, tile_n, (m + tile_m - 1) / tile_m, (n + tile_n - 1) / tile_n};
}

void tiled_product(const ExecContext& ctx, const TensorView& a, const TensorView& b, const TensorView& c,
                   const MatmulOptions& options) {
  const Operand left(a, options.transpose_a), right(b, options.transpose_b), result(c, false);
  const Index m = c.rows(), n = c.cols(), k = options.transpose_a ? a.rows() : a.cols();
  const Tiling tiles = tiling(m, n, k);
  // At most four kinds of tile: inner, last row, last column, corner.
  const Product* products[2][2];
  std::size_t scratch_bytes = 0;
  for (int i = 0; i < 2; ++i)
    for (int j = 0; j < 2; ++j) {
      const Index tile_m = i ? m - (tiles.rows - 1) * tiles.m : tiles.m,
                  tile_n = j ? n - (tiles.cols - 1) * tiles.n : tiles.n;
      products[i][j] = &product_for({tile_m, tile_n, k, left.row, left.col, right.row, right.col, c.row_stride, a.dtype,
                                     c.dtype, options.accumulate, options.alpha});
      scratch_bytes = std::max(scratch_bytes, products[i][j]->scratch.get_size());
    }
  const Index count = tiles.rows * tiles.cols, stride = static_cast<Index>((scratch_bytes + 63) / 64 * 64);
  const ArenaScope scope(workspace(ctx, "matmul"));
  const TensorView scratch = ctx.workspace->allocate(DType::U8, Shape{task_workers(count), stride});
  if (is_dry(ctx)) return;
  run_tasks(count, [&](Index task, int worker) {
    // Neighbours in a column share the packed right operand's source.
    const Index row = task % tiles.rows, col = task / tiles.rows, first_m = row * tiles.m, first_n = col * tiles.n;
    const Product& p = *products[row == tiles.rows - 1][col == tiles.cols - 1];
    const auto memory = [](const Memory::desc& desc, const std::byte* data) {
      return Memory(desc, engine(), const_cast<std::byte*>(data));
    };
    static thread_local dnnl::stream stream(engine());
    const OneThread alone;
    p.primitive.execute(
        stream, {{DNNL_ARG_SRC, memory(p.a, left.at(first_m, 0))},
                 {DNNL_ARG_WEIGHTS, memory(p.b, right.at(0, first_n))},
                 {DNNL_ARG_DST, memory(p.c, result.at(first_m, first_n))},
                 {DNNL_ARG_SCRATCHPAD, memory(p.scratch, static_cast<const std::byte*>(scratch.data) + worker * stride)}});
    stream.wait();
  });
}

TensorView slice(const TensorView& x, Index row, Index rows, Index col, Index cols) {
  return x.slice_rows(row, row + rows).slice_cols(col, col + cols);
}

/// BF16 operands on a CPU without such products: panels converted to f32, multiplied, added up in f32.
void widened_product(const ExecContext& ctx, const Kernels& kernels, const TensorView& a, const TensorView& b,
                     const TensorView& c, const MatmulOptions& options) {
  constexpr Index kM = 512, kN = 1024, kK = 4096;
  const Index m = c.rows(), n = c.cols(), k = options.transpose_a ? a.rows() : a.cols();
  const auto widen = [&](const TensorView& x, bool transpose, Index row, Index rows, Index col, Index cols) {
    const TensorView part = transpose ? slice(x, col, cols, row, rows) : slice(x, row, rows, col, cols);
    const TensorView wide = ctx.workspace->allocate(DType::F32, part.shape);
    if (is_dry(ctx)) return wide;
    for_rows(part.rows(), part.cols(), [&](Index begin, Index end) {
      kernels.convert(rows_of(part, begin), rows_of(wide, begin), end - begin, part.cols());
    });
    return wide;
  };
  const ArenaScope scope(workspace(ctx, "matmul"));
  for (Index i = 0; i < m; i += kM)
    for (Index j = 0; j < n; j += kN) {
      const ArenaScope tile_scope(*ctx.workspace);
      const Index rows = std::min(kM, m - i), cols = std::min(kN, n - j);
      const TensorView total = ctx.workspace->allocate(DType::F32, Shape{rows, cols});
      for (Index p = 0; p < k; p += kK) {
        const ArenaScope panel_scope(*ctx.workspace);
        const Index depth = std::min(kK, k - p);
        const TensorView left = widen(a, options.transpose_a, i, rows, p, depth);
        const TensorView right = widen(b, options.transpose_b, p, depth, j, cols);
        tiled_product(ctx, left, right, total, {options.transpose_a, options.transpose_b, p > 0, 1.0f});
      }
      if (is_dry(ctx)) continue;
      const TensorView out = slice(c, i, rows, j, cols);
      for_rows(rows, cols, [&](Index begin, Index end) {
        kernels.scaled_copy(total.as<float>() + begin * cols, cols, rows_of(out, begin), end - begin, cols, options.alpha,
                            options.accumulate);
      });
    }
}

/// aᵀ · b with few columns, as for a LoRA's dB: oneDNN is twice as fast at cᵀ = bᵀ · a, which needs no transposed copy of a.
void narrow_product(const ExecContext& ctx, const TensorView& a, const TensorView& b, const TensorView& c,
                    const MatmulOptions& options) {
  const ArenaScope scope(workspace(ctx, "matmul"));
  const Index m = c.rows(), n = c.cols();
  const TensorView turned = ctx.workspace->allocate(DType::F32, Shape{n, m});
  tiled_product(ctx, b, a, turned, {.transpose_a = true, .alpha = options.alpha});
  if (is_dry(ctx)) return;
  const float* from = turned.as<float>();
  float* to = c.as<float>();
  for (Index i = 0; i < m; ++i)
    for (Index j = 0; j < n; ++j) {
      float& out = to[i * c.row_stride + j];
      out = options.accumulate ? out + from[j * m + i] : from[j * m + i];
    }
}

}  // namespace

void matmul(const ExecContext& ctx, Isa isa, const Kernels& kernels, const TensorView& a, const TensorView& b,
            const TensorView& c, const MatmulOptions& options) {
  constexpr Index kFewRows = 8;
  if (c.rows() <= kFewRows && options.transpose_b && !options.transpose_a) {
    if (is_dry(ctx)) return;
    parallel_for(c.cols(), std::max<Index>(1, 65536 / a.cols()), [&](Index begin, Index end) {
      kernels.few_rows_product(rows_of(a), rows_of(b), rows_of(c), a.rows(), a.cols(), options.alpha, options.accumulate,
                               begin, end);
    });
    return;
  }
  // oneDNN knows one limit for the whole process, that of the instruction set in use.
  if (a.dtype == DType::BF16 && !has_bf16_products(std::min(isa, active_isa())))
    return widened_product(ctx, kernels, a, b, c, options);
  constexpr Index kNarrow = 64;
  const bool narrow = c.cols() <= kNarrow && c.rows() > kNarrow && options.transpose_a && !options.transpose_b;
  if (narrow && c.dtype == DType::F32) return narrow_product(ctx, a, b, c, options);
  tiled_product(ctx, a, b, c, options);
}

}  // namespace temper::ops::cpu
