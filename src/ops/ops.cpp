#include "ops/ops.h"

#include <algorithm>

#include "ops/backend.h"
#include "ops/checker.h"

namespace temper::ops {
namespace {

void check_lora(const Checker& check, const TensorView& base, const LoraView& lora) {
  check.f32({&lora.a, &lora.b});
  check.require(lora.a.cols() == base.cols() && lora.b.rows() == base.rows() && lora.a.rows() == lora.b.cols(),
                "a [r, K] and b [N, r] for a base [N, K]");
  if (!lora.gain) return;
  check.f32({&lora.gain});
  check.require(lora.gain.rows() == base.rows() && lora.gain.cols() == 1 && lora.gain.contiguous(), "gain [N, 1]");
}

double lora_flops(const TensorView& base, const LoraView& lora) {
  return 2.0 * static_cast<double>(base.shape.numel()) * static_cast<double>(lora.a.rows());
}

/// Of one product over every pair of a query and a key that it sees.
double attention_product_flops(std::span<const AttentionSpan> spans, const AttentionShape& shape) {
  double pairs = 0;
  for (const AttentionSpan& s : spans)
    for (std::int64_t query = s.query_begin; query < s.query_end; ++query) {
      const std::int64_t seen = s.key_end - s.key_begin - (s.query_end - query) + 1;
      pairs += static_cast<double>(shape.window > 0 ? std::min(seen, shape.window) : seen);
    }
  return 2.0 * pairs * static_cast<double>(shape.heads * shape.head_dim);
}

void check_attention(const Checker& check, const TensorView& q, const TensorView& k, const TensorView& v,
                     std::span<const AttentionSpan> spans, const AttentionShape& shape) {
  check.activation(q);
  check.dtype(k.dtype == q.dtype && v.dtype == q.dtype, "the same for q, k and v");
  check.require(shape.heads > 0 && shape.kv_heads > 0 && shape.head_dim > 0 && shape.heads % shape.kv_heads == 0,
                "heads to be a multiple of kv_heads");
  check.require(q.cols() == shape.heads * shape.head_dim, "q [Tq, heads·head_dim]");
  check.require(k.cols() == shape.kv_heads * shape.head_dim, "k [Tk, kv_heads·head_dim]");
  check.same_shape(k, v);
  check.require(shape.window >= 0 && shape.softcap >= 0, "a window and a softcap of 0 or more");
  check.require(shape.scale > 0, "a scale above 0");  // what is hidden gets a score of -inf before it is scaled
  std::int64_t end = 0;
  for (const AttentionSpan& s : spans) {
    const bool inside = s.query_begin >= end && s.query_end >= s.query_begin && s.query_end <= q.rows() &&
                        s.key_begin >= 0 && s.key_end >= s.key_begin && s.key_end <= k.rows();
    if (!inside || s.key_end - s.key_begin < s.query_end - s.query_begin)
      throw LogicError(
          "attention: span with queries [{}, {}) and keys [{}, {}) does not fit {} queries and {} keys, or overlaps",
          s.query_begin, s.query_end, s.key_begin, s.key_end, q.rows(), k.rows());
    end = s.query_end;
  }
}

}  // namespace

void matmul(const ExecContext& ctx, const TensorView& a, const TensorView& b, const TensorView& c, MatmulOptions options) {
  const Checker check("matmul", ctx, {{"a", &a}, {"b", &b}, {"c", &c}});
  check.activation(a);
  check.dtype(b.dtype == a.dtype, "the same for a and b");
  check.dtype(c.dtype == DType::F32 || c.dtype == a.dtype, "F32 or that of the operands for c");
  check.dtype(!options.accumulate || c.dtype == DType::F32, "F32 for an accumulated c");
  const auto rows = [](const TensorView& x) { return x.shape.rank() == 2 ? x.shape[0] : 1; };  // also of [M, 0]
  const std::int64_t m = options.transpose_a ? a.cols() : rows(a), ka = options.transpose_a ? rows(a) : a.cols();
  const std::int64_t n = options.transpose_b ? rows(b) : b.cols(), kb = options.transpose_b ? b.cols() : rows(b);
  check.require(ka == kb && c.rows() == m && c.cols() == n, "op(a) [M, K], op(b) [K, N], c [M, N]");
  if (m == 0 || n == 0) return;
  if (ka == 0) {
    if (!options.accumulate) ctx.backend->zero(ctx, c);
    return;
  }
  check.work(2.0 * static_cast<double>(m * n) * static_cast<double>(ka));
  ctx.backend->matmul(ctx, a, b, c, options);
}

void linear(const ExecContext& ctx, const TensorView& x, std::span<const LinearPart> parts, bool accumulate) {
  const Checker check("linear", ctx, {{"x", &x}});
  check.activation(x);
  for (const LinearPart& part : parts) {
    const Weight& w = part.weight;
    const Named found[] = {{"x", &x}, {"dense weight", &w.dense}, {"y", &part.y}};
    const auto require = [&](bool ok, const char* expected) {
      if (!ok) throw LogicError("linear: expected {}; found {}", expected, describe(found));
    };
    const bool from_codes = w.encoded.codec && (x.rows() <= kFewRows || multiplies_integers(ctx, w));
    require(w.dense || from_codes, "a dense weight for more than a few rows");
    require(!w.dense || w.dense.dtype == x.dtype, "one dtype for x and a dense weight");
    require(part.y.dtype == DType::F32 || (part.y.dtype == x.dtype && !accumulate), "F32 or, not accumulated, T for y");
    require(w.cols() == x.cols() && part.y.rows() == x.rows() && part.y.cols() == w.rows(),
            "x [M, K], weight [N, K], y [M, N]");
    check_encoded("linear", w.encoded);
    const double held = from_codes ? static_cast<double>(w.encoded.bytes.size()) : tensor_bytes(w.dense);
    check.work(2.0 * static_cast<double>(part.y.shape.numel()) * static_cast<double>(x.cols()), held + tensor_bytes(part.y));
  }
  if (!is_empty(x) && !parts.empty()) ctx.backend->linear(ctx, x, parts, accumulate);
}

void linear(const ExecContext& ctx, const TensorView& x, const Weight& weight, const TensorView& y, bool accumulate) {
  const LinearPart part{weight, y};
  linear(ctx, x, {&part, 1}, accumulate);
}

quant::InputFormat input_rounding(const ExecContext& ctx, const Weight& weight) {
  if (weight.input) return {quant::ActivationGrid::None, weight.input, weight.input_range};
  if (ctx.activations != Activations::Bits8 || !weight.encoded.codec) return {};
  return {quant::activation_grid(*weight.encoded.codec), nullptr};
}

bool multiplies_integers(const ExecContext& ctx, const Weight& weight) {
  const quant::EncodedView& codes = weight.encoded;
  return ctx.integer_products && codes.codec &&
         quant::has_integer_product(*codes.codec, input_rounding(ctx, weight), codes.cols);
}

void round_activations(const ExecContext& ctx, const TensorView& x, const quant::InputFormat& rounding,
                       const TensorView& out) {
  const Checker check("round_activations", ctx, {{"x", &x}, {"out", &out}});
  check.activation(x);
  check.dtype(out.dtype == x.dtype, "the same for x and out");
  check.same_shape(x, out);
  if (is_empty(x)) return;
  if (rounding)
    ctx.backend->round_activations(ctx, x, rounding, out);
  else if (x.data != out.data)
    ctx.backend->convert(ctx, x, out);
}

quant::RangeGradient clip_backward(const ExecContext& ctx, const TensorView& x, const quant::InputFormat& rounding,
                                   const TensorView& grad) {
  const Checker check("clip_backward", ctx, {{"x", &x}, {"grad", &grad}});
  check.activation(x);
  check.dtype(grad.dtype == x.dtype || grad.dtype == DType::F32, "F32 or that of x for grad");
  check.same_shape(x, grad);
  check.require(quant::clips(rounding), "a format with a known static range");
  return is_empty(x) ? quant::RangeGradient{} : ctx.backend->clip_backward(ctx, x, rounding, grad);
}

void convert(const ExecContext& ctx, const TensorView& in, const TensorView& out) {
  const Checker check("convert", ctx, {{"in", &in}, {"out", &out}});
  check.storage(in);
  check.storage(out);
  check.same_shape(in, out);
  if (!is_empty(in)) ctx.backend->convert(ctx, in, out);
}

void add(const ExecContext& ctx, const TensorView& a, const TensorView& b, const TensorView& out) {
  const Checker check("add", ctx, {{"a", &a}, {"b", &b}, {"out", &out}});
  check.f32({&a, &out});
  check.activation(b);
  check.same_shape(a, b);
  check.same_shape(a, out);
  if (!is_empty(a)) ctx.backend->add(ctx, a, b, out);
}

void add_row(const ExecContext& ctx, const TensorView& x, const TensorView& row) {
  const Checker check("add_row", ctx, {{"x", &x}, {"row", &row}});
  check.f32({&x, &row});
  check.require(row.shape.numel() == x.cols() && row.contiguous(), "x [M, N] and a contiguous row [N]");
  if (!is_empty(x)) ctx.backend->add_row(ctx, x, row);
}

void add_column_sums(const ExecContext& ctx, const TensorView& x, const TensorView& sums) {
  const Checker check("add_column_sums", ctx, {{"x", &x}, {"sums", &sums}});
  check.activation(x);
  check.f32({&sums});
  check.require(sums.shape.numel() == x.cols() && sums.contiguous(), "x [M, N] and contiguous sums [N]");
  if (!is_empty(x)) ctx.backend->add_column_sums(ctx, x, sums);
}

void dropout(const ExecContext& ctx, const TensorView& x, const Dropout& draws, const TensorView& out) {
  const Checker check("dropout", ctx, {{"x", &x}, {"out", &out}});
  check.activation(x);
  check.dtype(x.dtype == out.dtype, "one for both");
  check.same_shape(x, out);
  check.require(draws.p >= 0 && draws.p < 1, "a probability below 1");
  if (!is_empty(x)) ctx.backend->dropout(ctx, x, draws, out);
}

void scale_columns(const ExecContext& ctx, const TensorView& x, const TensorView& row, const TensorView& out) {
  const Checker check("scale_columns", ctx, {{"x", &x}, {"row", &row}, {"out", &out}});
  for (const TensorView* t : {&x, &out}) check.activation(*t);
  check.f32({&row});
  check.same_shape(x, out);
  check.require(row.shape.numel() == x.cols() && row.contiguous(), "x [M, N] and a contiguous row [N]");
  if (!is_empty(x)) ctx.backend->scale_columns(ctx, x, row, out);
}

void scale(const ExecContext& ctx, const TensorView& x, float factor) {
  const Checker check("scale", ctx, {{"x", &x}});
  check.f32({&x});
  if (!is_empty(x)) ctx.backend->scale(ctx, x, factor);
}

void zero(const ExecContext& ctx, const TensorView& x) {
  const Checker check("zero", ctx, {{"x", &x}});
  if (!is_empty(x)) ctx.backend->zero(ctx, x);
}

void gather_rows(const ExecContext& ctx, const TensorView& in, std::span<const std::int32_t> rows, const TensorView& out) {
  const Checker check("gather_rows", ctx, {{"in", &in}, {"out", &out}});
  check.dtype(in.dtype == out.dtype, "the same for in and out");
  check.shape(out, is_empty(out) ? 0 : length(rows), in.cols(), "one row of out per index, and the columns of in");
  check.indices(rows, in.rows(), "row");
  if (!is_empty(out)) ctx.backend->gather_rows(ctx, in, rows, out);
}

void scatter_rows(const ExecContext& ctx, const TensorView& in, std::span<const std::int32_t> rows, const TensorView& out) {
  const Checker check("scatter_rows", ctx, {{"in", &in}, {"out", &out}});
  check.dtype(in.dtype == out.dtype, "the same for in and out");
  check.shape(in, is_empty(in) ? 0 : length(rows), out.cols(), "one row of in per index, and the columns of out");
  check.indices(rows, out.rows(), "row");
  if (!is_empty(in)) ctx.backend->scatter_rows(ctx, in, rows, out);
}

void embedding(const ExecContext& ctx, const Weight& table, std::span<const std::int32_t> tokens, const TensorView& out) {
  const Checker check("embedding", ctx, {{"out", &out}});
  check.require(table.dense || table.encoded.codec, "a table");
  if (table.dense) check.storage(table.dense);
  check_encoded("embedding", table.encoded);
  check.f32({&out});
  check.shape(out, is_empty(out) ? 0 : length(tokens), table.cols(), "out [tokens, H]");
  check.indices(tokens, table.rows(), "token");
  check.work(0, tensor_bytes(out));  // about as many bytes of the table
  if (!is_empty(out)) ctx.backend->embedding(ctx, table, tokens, out);
}

void embedding_backward(const ExecContext& ctx, const TensorView& dout, std::span<const std::int32_t> tokens,
                        const TensorView& dtable) {
  const Checker check("embedding_backward", ctx, {{"dout", &dout}, {"dtable", &dtable}});
  check.f32({&dout, &dtable});
  check.shape(dout, is_empty(dout) ? 0 : length(tokens), dtable.cols(), "dout [tokens, H]");
  check.indices(tokens, dtable.rows(), "token");
  if (!is_empty(dout)) ctx.backend->embedding_backward(ctx, dout, tokens, dtable);
}

void rmsnorm(const ExecContext& ctx, const TensorView& x, const TensorView& weight, float eps, const TensorView& y,
             const TensorView& rstd) {
  const Checker check("rmsnorm", ctx, {{"x", &x}, {"weight", &weight}, {"y", &y}, {"rstd", &rstd}});
  check.f32({&x, &weight, &rstd});
  check.activation(y);
  check.same_shape(x, y);
  check.require(weight.shape.numel() == x.cols() && rstd.shape.numel() == x.rows(), "weight [H] and rstd [rows]");
  check.require(weight.contiguous() && rstd.contiguous(), "contiguous weight and rstd");
  if (!is_empty(x)) ctx.backend->rmsnorm(ctx, x, weight, eps, y, rstd);
}

void rmsnorm_backward(const ExecContext& ctx, const TensorView& dy, const TensorView& x, const TensorView& weight,
                      const TensorView& rstd, const TensorView& dx, const TensorView* dweight) {
  const Checker check("rmsnorm_backward", ctx, {{"dy", &dy}, {"x", &x}, {"weight", &weight}, {"rstd", &rstd}, {"dx", &dx}});
  check.f32({&dy, &x, &weight, &rstd, &dx});
  check.same_shape(x, dy);
  check.same_shape(x, dx);
  check.require(weight.shape.numel() == x.cols() && rstd.shape.numel() == x.rows(), "weight [H] and rstd [rows]");
  check.require(weight.contiguous() && rstd.contiguous(), "contiguous weight and rstd");
  if (dweight) {
    check.f32({dweight});
    check.require(dweight->shape.numel() == x.cols() && dweight->contiguous(), "a contiguous dweight [H]");
  }
  if (!is_empty(x)) ctx.backend->rmsnorm_backward(ctx, dy, x, weight, rstd, dx, dweight);
}

void rope(const ExecContext& ctx, const TensorView& x, std::int64_t head_dim, std::span<const std::int32_t> positions,
          const TensorView& cos, const TensorView& sin, bool inverse) {
  const Checker check("rope", ctx, {{"x", &x}, {"cos", &cos}, {"sin", &sin}});
  check.activation(x);
  check.f32({&cos, &sin});
  check.require(head_dim > 0 && head_dim % 2 == 0 && x.cols() % head_dim == 0,
                "x [T, heads·head_dim] with an even head_dim");
  check.require(cos.cols() > 0 && cos.cols() <= head_dim / 2, "cos [positions, n], n at most head_dim/2");
  check.same_shape(cos, sin);
  check.require(is_empty(x) || x.rows() == length(positions), "one position per row of x");
  check.indices(positions, cos.rows(), "position");
  if (!is_empty(x)) ctx.backend->rope(ctx, x, head_dim, positions, cos, sin, inverse);
}

void glu(const ExecContext& ctx, Gate kind, const TensorView& gate, const TensorView& up, const TensorView& out) {
  const Checker check("glu", ctx, {{"gate", &gate}, {"up", &up}, {"out", &out}});
  check.activation(gate);
  check.dtype(up.dtype == gate.dtype && out.dtype == gate.dtype, "the same for all");
  check.same_shape(gate, up);
  check.same_shape(gate, out);
  if (!is_empty(gate)) ctx.backend->glu(ctx, kind, gate, up, out);
}

void glu_backward(const ExecContext& ctx, Gate kind, const TensorView& gate, const TensorView& up, const TensorView& dout,
                  const TensorView& dgate, const TensorView& dup) {
  const Checker check("glu_backward", ctx,
                      {{"gate", &gate}, {"up", &up}, {"dout", &dout}, {"dgate", &dgate}, {"dup", &dup}});
  check.activation(gate);
  for (const TensorView* t : {&up, &dout, &dgate, &dup}) {
    check.dtype(t->dtype == gate.dtype, "the same for all");
    check.same_shape(gate, *t);
  }
  if (!is_empty(gate)) ctx.backend->glu_backward(ctx, kind, gate, up, dout, dgate, dup);
}

void attention(const ExecContext& ctx, const TensorView& q, const TensorView& k, const TensorView& v,
               std::span<const AttentionSpan> spans, const AttentionShape& shape, const TensorView& out,
               const TensorView* lse) {
  const Checker check("attention", ctx, {{"q", &q}, {"k", &k}, {"v", &v}, {"out", &out}});
  check_attention(check, q, k, v, spans, shape);
  check.dtype(out.dtype == q.dtype, "that of q for out");
  check.same_shape(q, out);
  if (lse) {
    check.f32({lse});
    check.shape(*lse, q.rows(), shape.heads, "lse [Tq, heads]");
  }
  check.work(2 * attention_product_flops(spans, shape));  // q·k and p·v
  if (!is_empty(q)) ctx.backend->attention(ctx, q, k, v, spans, shape, out, lse);
}

void attention_backward(const ExecContext& ctx, const TensorView& q, const TensorView& k, const TensorView& v,
                        std::span<const AttentionSpan> spans, const AttentionShape& shape, const TensorView& out,
                        const TensorView& lse, const TensorView& dout, const TensorView& dq, const TensorView& dk,
                        const TensorView& dv) {
  const Checker check("attention_backward", ctx,
                      {{"q", &q},
                       {"k", &k},
                       {"v", &v},
                       {"out", &out},
                       {"lse", &lse},
                       {"dout", &dout},
                       {"dq", &dq},
                       {"dk", &dk},
                       {"dv", &dv}});
  check_attention(check, q, k, v, spans, shape);
  for (const TensorView* t : {&out, &dout, &dq, &dk, &dv}) check.dtype(t->dtype == q.dtype, "the same for all but lse");
  for (const TensorView* t : {&out, &dout, &dq}) check.same_shape(q, *t);
  for (const TensorView* t : {&dk, &dv}) check.same_shape(k, *t);
  for (std::size_t i = 1; i < spans.size(); ++i)
    if (spans[i].key_begin < spans[i - 1].key_end)
      throw LogicError("attention_backward: keys from {} on belong to two spans", spans[i].key_begin);
  check.f32({&lse});
  check.shape(lse, q.rows(), shape.heads, "lse [Tq, heads]");
  check.work(5 * attention_product_flops(spans, shape));  // q·k again, dp, dq, dk, dv
  if (!is_empty(q)) ctx.backend->attention_backward(ctx, q, k, v, spans, shape, out, lse, dout, dq, dk, dv);
}

void merge_lora(const ExecContext& ctx, const TensorView& base, const LoraView& lora, const TensorView& out) {
  const Checker check("merge_lora", ctx, {{"base", &base}, {"a", &lora.a}, {"b", &lora.b}, {"out", &out}});
  check.storage(base);
  check.storage(out);
  check.same_shape(base, out);
  check_lora(check, base, lora);
  check.work(lora_flops(base, lora));
  if (!is_empty(base)) ctx.backend->merge_lora(ctx, base, lora, out);
}

void merge_and_encode(const ExecContext& ctx, const TensorView& base, const LoraView* lora, DType storage,
                      const quant::Codec& codec, std::span<std::byte> encoded, quant::CodeStats* stats,
                      Parameters parameters, std::span<const float> factors) {
  const Checker check("merge_and_encode", ctx, {{"base", &base}});
  check.storage(base);
  if (storage != DType::F32 && storage != DType::BF16 && storage != DType::F16)
    throw Unsupported("merge_and_encode: expected storage F32, BF16 or F16, found {}", dtype_name(storage));
  if (lora) check_lora(check, base, *lora);
  if (!codec.encodes() || !codec.fits(base.cols()))
    throw LogicError("merge_and_encode: format {} cannot encode rows of {} values", codec.name(), base.cols());
  const std::size_t bytes = static_cast<std::size_t>(base.rows()) * codec.row_bytes(base.cols());
  if (encoded.size() != bytes)
    throw LogicError("merge_and_encode: expected {} encoded bytes, found {}", bytes, encoded.size());
  if (!factors.empty())
    check.require(parameters == Parameters::Fit && std::ssize(factors) == base.rows() * codec.groups(base.cols()),
                  "a factor for each group, of scales that are fit");
  check.work(lora ? lora_flops(base, *lora) : 0.0, static_cast<double>(bytes));
  if (!is_empty(base)) ctx.backend->merge_and_encode(ctx, base, lora, storage, codec, encoded, stats, parameters, factors);
}

void factor_gradients(const ExecContext& ctx, const LearntScales& scales, const TensorView& dw, std::span<float> grads) {
  const Checker check("factor_gradients", ctx, {{"base", &scales.base}, {"dw", &dw}});
  check.storage(scales.base);
  check.f32({&dw});
  check.same_shape(scales.base, dw);
  if (scales.lora) check_lora(check, scales.base, *scales.lora);
  check.require(scales.encoded.codec && scales.encoded.rows == dw.rows() && scales.encoded.cols == dw.cols(),
                "an encoding of the shape of dw");
  check.work(scales.lora ? lora_flops(scales.base, *scales.lora) : 0.0, static_cast<double>(scales.encoded.bytes.size()));
  if (!is_empty(dw)) ctx.backend->factor_gradients(ctx, scales, dw, grads);
}

void decode(const ExecContext& ctx, const quant::EncodedView& encoded, const TensorView& out) {
  const Checker check("decode", ctx, {{"out", &out}});
  check.activation(out);
  check.require(encoded.codec != nullptr, "a codec");
  check.shape(out, encoded.rows, encoded.cols, "the shape of the encoded matrix");
  if (is_empty(out)) return;
  const std::size_t bytes = static_cast<std::size_t>(encoded.rows) * encoded.codec->row_bytes(encoded.cols);
  if (encoded.bytes.size() != bytes)
    throw LogicError("decode: expected {} encoded bytes, found {}", bytes, encoded.bytes.size());
  check.work(0, static_cast<double>(bytes));
  ctx.backend->decode(ctx, encoded, out);
}

void lora_backward(const ExecContext& ctx, const TensorView& x, const TensorView& dy, const LoraGradients& lora,
                   const TensorView* dyb) {
  const Checker check(
      "lora_backward", ctx,
      {{"x", &x}, {"dy", &dy}, {"a", &lora.a}, {"b", &lora.b}, {"grad_a", &lora.grad_a}, {"grad_b", &lora.grad_b}});
  check.activation(x);
  for (const TensorView* t : {&dy, &lora.a, &lora.b}) check.dtype(t->dtype == x.dtype, "the same for x, dy, a and b");
  check.f32({&lora.grad_a, &lora.grad_b});
  check.require(dy.rows() == x.rows(), "as many rows of dy as of x");
  check.shape(lora.a, lora.b.cols(), x.cols(), "a [r, K]");
  check.shape(lora.b, dy.cols(), lora.a.rows(), "b [N, r]");
  check.same_shape(lora.a, lora.grad_a);
  check.same_shape(lora.b, lora.grad_b);
  if (dyb) {
    check.dtype(dyb->dtype == x.dtype, "that of dy for dyb");
    check.shape(*dyb, dy.rows(), lora.a.rows(), "dyb [M, r]");
  }
  check.work(4.0 * static_cast<double>(x.rows() * lora.a.rows()) * static_cast<double>(x.cols() + dy.cols()));
  if (!is_empty(x) && !is_empty(dy)) ctx.backend->lora_backward(ctx, x, dy, lora, dyb);
}

namespace {

void check_state(const Checker& check, const TensorView& param, const OptimizerState& state) {
  const std::int64_t n = param.shape.numel(), blocks = (n + kStateBlock - 1) / kStateBlock;
  const DType dtype = state.values.dtype;
  check.dtype(dtype == DType::F32 || dtype == DType::BF16 || dtype == DType::U8, "F32, BF16 or U8 states");
  check.require(state.values.shape.numel() == n, "states of one size with the parameters");
  if (dtype != DType::U8) return;
  check.f32({&state.absmax});
  check.require(state.absmax.shape.numel() == blocks, "an absmax for each 256 codes");
}

void check_step(const Checker& check, const TensorView& param, const TensorView& grad, std::int64_t step) {
  check.f32({&param, &grad});
  check.require(grad.shape.numel() == param.shape.numel(), "tensors of one size");
  check.require(param.contiguous() && grad.contiguous(), "contiguous tensors");
  check.require(step >= 1, "steps counted from 1");
}

}  // namespace

void adamw(const ExecContext& ctx, const TensorView& param, const TensorView& grad, const OptimizerState& m,
           const OptimizerState& v, const AdamW& options) {
  const Checker check("adamw", ctx, {{"param", &param}, {"grad", &grad}, {"m", &m.values}, {"v", &v.values}});
  check_step(check, param, grad, options.step);
  for (const OptimizerState* state : {&m, &v}) check_state(check, param, *state);
  if (!is_empty(param)) ctx.backend->adamw(ctx, param, grad, m, v, options);
}

void lion(const ExecContext& ctx, const TensorView& param, const TensorView& grad, const OptimizerState& m,
          const Lion& options) {
  const Checker check("lion", ctx, {{"param", &param}, {"grad", &grad}, {"m", &m.values}});
  check_step(check, param, grad, options.step);
  check_state(check, param, m);
  if (!is_empty(param)) ctx.backend->lion(ctx, param, grad, m, options);
}

void row_dots(const ExecContext& ctx, const TensorView& a, const TensorView& b, std::span<double> out) {
  const Checker check("row_dots", ctx, {{"a", &a}, {"b", &b}});
  check.f32({&a, &b});
  check.same_shape(a, b);
  check.require(std::ssize(out) == a.rows(), "as many sums as rows");
  if (!is_empty(a)) ctx.backend->row_dots(ctx, a, b, out);
}

double sum_of_squares(const ExecContext& ctx, const TensorView& x) {
  const Checker check("sum_of_squares", ctx, {{"x", &x}});
  check.f32({&x});
  return is_empty(x) ? 0.0 : ctx.backend->sum_of_squares(ctx, x);
}

}  // namespace temper::ops
