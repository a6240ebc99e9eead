// Speed of the operations at SmolLM2-135M's shapes: GFLOP/s for products, attention and the loss, GB/s for what memory
// bounds. "oneDNN" rows are the library's own product on all threads: the roofline that ours are measured against.
#include <benchmark/benchmark.h>

#include <cstring>
#include <dnnl.hpp>

#include "base/rng.h"
#include "ops/cpu/cpu_backend.h"
#include "ops/ops.h"

namespace temper::ops {
namespace {

constexpr std::int64_t kTokens = 2048, kHidden = 576, kInner = 1536, kVocab = 49152, kRank = 16;

Tensor random_tensor(DType dtype, std::int64_t rows, std::int64_t cols) {
  Tensor x(dtype, Shape{rows, cols});
  Rng rng(static_cast<std::uint64_t>(rows * 31 + cols));
  for (std::int64_t i = 0; i < rows * cols; ++i) {
    const float value = static_cast<float>(rng.index() % 251) / 125.0f - 1.0f;
    static_cast<void>(rng.next());
    if (dtype == DType::BF16)
      x->as<bf16>()[i] = to_bf16(value);
    else
      x->as<float>()[i] = value;
  }
  return x;
}

/// A context on the backend in use, with 1 GiB reserved for scratch.
struct Bench {
  Arena arena{std::size_t{1} << 30};
  ExecContext ctx{&cpu_backend(), &arena, DType::BF16};
};

/// Scratch that the op took from the workspace.
void report_scratch(benchmark::State& state, const Bench& bench) {
  state.counters["scratch MiB"] = static_cast<double>(bench.arena.peak()) / (1 << 20);
}

void report(benchmark::State& state, double flops) {
  state.counters["GFLOP/s"] = benchmark::Counter(flops / 1e9, benchmark::Counter::kIsIterationInvariantRate);
}

void report_bytes(benchmark::State& state, double bytes) {
  state.counters["GB/s"] = benchmark::Counter(bytes / 1e9, benchmark::Counter::kIsIterationInvariantRate);
}

/// Arguments: M, N, K, transpose a, transpose b, f32 operands, f32 result.
void product(benchmark::State& state) {
  Bench bench;
  const std::int64_t m = state.range(0), n = state.range(1), k = state.range(2);
  const bool ta = state.range(3) != 0, tb = state.range(4) != 0;
  const DType in = state.range(5) ? DType::F32 : DType::BF16, out = state.range(6) ? DType::F32 : in;
  const Tensor a = random_tensor(in, ta ? k : m, ta ? m : k), b = random_tensor(in, tb ? n : k, tb ? k : n),
               c(out, Shape{m, n});
  for (auto _ : state) matmul(bench.ctx, a, b, c, {.transpose_a = ta, .transpose_b = tb});
  report_scratch(state, bench);
  report(state, 2.0 * static_cast<double>(m * n * k));
}

void onednn_product(benchmark::State& state) {
  using Memory = dnnl::memory;
  const std::int64_t m = state.range(0), n = state.range(1), k = state.range(2);
  const bool ta = state.range(3) != 0, tb = state.range(4) != 0;
  const dnnl::engine engine(dnnl::engine::kind::cpu, 0);
  dnnl::stream stream(engine);
  const auto type = state.range(5) ? Memory::data_type::f32 : Memory::data_type::bf16;
  const auto result = state.range(6) ? Memory::data_type::f32 : type;
  const DType in = state.range(5) ? DType::F32 : DType::BF16;
  const Memory::desc a({m, k}, type, ta ? Memory::dims{1, m} : Memory::dims{k, 1});
  const Memory::desc b({k, n}, type, tb ? Memory::dims{1, k} : Memory::dims{n, 1});
  const Memory::desc c({m, n}, result, {n, 1});
#if DNNL_VERSION_MAJOR >= 3
  const dnnl::matmul::primitive_desc description(engine, a, b, c);
#else
  const dnnl::matmul::primitive_desc description(dnnl::matmul::desc(a, b, c), engine);
#endif
  const dnnl::matmul primitive(description);
  const Tensor x = random_tensor(in, m, k), w = random_tensor(in, k, n), y(DType::F32, Shape{m, n});
  for (auto _ : state) {
    primitive.execute(stream, {{DNNL_ARG_SRC, Memory(a, engine, x->data)},
                               {DNNL_ARG_WEIGHTS, Memory(b, engine, w->data)},
                               {DNNL_ARG_DST, Memory(c, engine, y->data)}});
    stream.wait();
  }
  report(state, 2.0 * static_cast<double>(m * n * k));
}

void product_shapes(benchmark::internal::Benchmark* b) {
  b->ArgNames({"M", "N", "K", "ta", "tb", "f32in", "f32out"});
  for (const std::int64_t n : {kHidden, std::int64_t{192}, kInner}) {
    b->Args({kTokens, n, kHidden, 0, 1, 0, 0});
    b->Args({kTokens, kHidden, n, 0, 0, 0, 0});
  }
  b->Args({kTokens, kHidden, kInner, 0, 1, 0, 0});
  b->Args({kTokens, kInner, kHidden, 0, 0, 0, 1});
  b->Args({256, kVocab, kHidden, 0, 1, 0, 1});
  b->Args({256, kHidden, kVocab, 0, 0, 0, 1});
  b->Args({kTokens, kRank, kHidden, 0, 1, 0, 0});
  b->Args({kTokens, kHidden, kRank, 0, 0, 0, 1});
  b->Args({kRank, kHidden, kTokens, 1, 0, 0, 1});
  b->Args({kInner, kRank, kTokens, 1, 0, 0, 1});
  b->Args({1, kInner, kHidden, 0, 1, 0, 0});
  b->Args({1, kVocab, kHidden, 0, 1, 0, 1});
  b->Args({kTokens, kInner, kHidden, 0, 1, 1, 1});
}
BENCHMARK(product)->Apply(product_shapes)->UseRealTime();
BENCHMARK(onednn_product)->Apply(product_shapes)->UseRealTime();

/// Attention over 2048 tokens in documents of `length` tokens, with SmolLM2's 9 query and 3 key heads of 64.
struct AttentionBench : Bench {
  Tensor q = random_tensor(DType::BF16, kTokens, kHidden), k = random_tensor(DType::BF16, kTokens, 192);
  Tensor v = random_tensor(DType::BF16, kTokens, 192), out{DType::BF16, Shape{kTokens, kHidden}},
         lse{DType::F32, Shape{kTokens, 9}};
  Tensor dq{DType::BF16, Shape{kTokens, kHidden}}, dk{DType::BF16, Shape{kTokens, 192}},
      dv{DType::BF16, Shape{kTokens, 192}};
  AttentionShape shape{9, 3, 64, 0.125f};
  std::vector<AttentionSpan> spans;
  double flops = 0;  ///< Of one product over all visible pairs.

  explicit AttentionBench(std::int32_t length) {
    for (std::int32_t begin = 0; begin < kTokens; begin += length) {
      const std::int32_t end = std::min<std::int32_t>(begin + length, kTokens);
      spans.push_back({begin, end, begin, end});
      flops += static_cast<double>(end - begin) * (end - begin + 1) / 2 * 64 * 2 * 9;
    }
  }
};

void attention_forward(benchmark::State& state) {
  AttentionBench b(static_cast<std::int32_t>(state.range(0)));
  for (auto _ : state) attention(b.ctx, b.q, b.k, b.v, b.spans, b.shape, b.out, &b.lse.view());
  report_scratch(state, b);
  report(state, 2 * b.flops);
}
BENCHMARK(attention_forward)->Arg(180)->Arg(512)->Arg(2048)->UseRealTime();

void attention_gradient(benchmark::State& state) {
  AttentionBench b(static_cast<std::int32_t>(state.range(0)));
  attention(b.ctx, b.q, b.k, b.v, b.spans, b.shape, b.out, &b.lse.view());
  for (auto _ : state) attention_backward(b.ctx, b.q, b.k, b.v, b.spans, b.shape, b.out, b.lse, b.q, b.dq, b.dk, b.dv);
  report_scratch(state, b);
  report(state, 5 * b.flops);
}
BENCHMARK(attention_gradient)->Arg(180)->Arg(512)->Arg(2048)->UseRealTime();

/// One new token against a cache of `keys` tokens.
void attention_generation(benchmark::State& state) {
  AttentionBench b(2048);
  const std::int32_t keys = static_cast<std::int32_t>(state.range(0));
  const AttentionSpan span{0, 1, 0, keys};
  for (auto _ : state)
    attention(b.ctx, b.q->slice_rows(0, 1), b.k, b.v, {&span, 1}, b.shape, b.out->slice_rows(0, 1), nullptr);
  report_bytes(state, static_cast<double>(keys) * 192 * 2 * 2);
}
BENCHMARK(attention_generation)->Arg(256)->Arg(2048)->UseRealTime();

void head_loss(benchmark::State& state) {
  Bench bench;
  const Tensor hidden = random_tensor(DType::BF16, 512, kHidden), head = random_tensor(DType::BF16, kVocab, kHidden);
  const Tensor dhidden(DType::F32, Shape{512, kHidden});
  const std::vector<std::int32_t> targets(512, 7);
  std::vector<float> nll(512);
  const HeadGradients gradients{dhidden, nullptr};
  for (auto _ : state)
    linear_cross_entropy(bench.ctx, hidden, head, targets, 1.0f, nll, state.range(0) ? &gradients : nullptr);
  report_scratch(state, bench);
  report(state, (state.range(0) ? 4.0 : 2.0) * 512 * static_cast<double>(kVocab * kHidden));
}
BENCHMARK(head_loss)->ArgName("gradient")->Arg(0)->Arg(1)->UseRealTime();

void loss(benchmark::State& state) {
  Bench bench;
  const Tensor logits = random_tensor(DType::F32, 256, kVocab), grads(DType::BF16, Shape{256, kVocab});
  const std::vector<std::int32_t> targets(256, 7);
  std::vector<float> nll(256);
  for (auto _ : state) cross_entropy(bench.ctx, logits, targets, 1.0f, nll, &grads.view());
  report_bytes(state, 256.0 * kVocab * (3 * 4 + 2));
}
BENCHMARK(loss)->UseRealTime();

void merge(benchmark::State& state) {
  Bench bench;
  const Tensor base = random_tensor(DType::BF16, kInner, kHidden), out(DType::BF16, Shape{kInner, kHidden});
  const LoraView lora{random_tensor(DType::F32, kRank, kHidden), random_tensor(DType::F32, kInner, kRank), 2.0f};
  for (auto _ : state) merge_lora(bench.ctx, base, lora, out);
  report(state, 2.0 * kRank * static_cast<double>(kInner * kHidden));
}
BENCHMARK(merge)->UseRealTime();

void merge_encode(benchmark::State& state, const char* format) {
  Bench bench;
  const quant::Codec* codec = quant::find_codec(format);
  const Tensor base = random_tensor(DType::BF16, kInner, kHidden), a = random_tensor(DType::F32, kRank, kHidden);
  const Tensor b = random_tensor(DType::F32, kInner, kRank);
  const LoraView lora{a, b, 0.01f};
  std::vector<std::byte> encoded(static_cast<std::size_t>(kInner) * codec->row_bytes(kHidden));
  quant::CodeStats stats;
  for (auto _ : state) merge_and_encode(bench.ctx, base, &lora, DType::BF16, *codec, encoded, &stats);
  report_bytes(state, 2.0 * static_cast<double>(kInner * kHidden));
}
BENCHMARK_CAPTURE(merge_encode, int4_sym_g32, "int4-sym-g32")->UseRealTime();
BENCHMARK_CAPTURE(merge_encode, q4_0, "q4_0")->UseRealTime();

void decode_codes(benchmark::State& state, const char* format) {
  Bench bench;
  const quant::Codec* codec = quant::find_codec(format);
  std::vector<std::byte> encoded(static_cast<std::size_t>(kInner) * codec->row_bytes(kHidden));
  const Tensor out(DType::BF16, Shape{kInner, kHidden});
  for (auto _ : state) decode(bench.ctx, {codec, kInner, kHidden, encoded}, out);
  report_bytes(state, 2.0 * static_cast<double>(kInner * kHidden));
}
BENCHMARK_CAPTURE(decode_codes, int4_sym_g32, "int4-sym-g32")->UseRealTime();
BENCHMARK_CAPTURE(decode_codes, q4_0, "q4_0")->UseRealTime();

void norm(benchmark::State& state) {
  Bench bench;
  const Tensor x = random_tensor(DType::F32, kTokens, kHidden), w = random_tensor(DType::F32, 1, kHidden);
  const Tensor y(DType::BF16, Shape{kTokens, kHidden}), rstd(DType::F32, Shape{kTokens});
  for (auto _ : state) rmsnorm(bench.ctx, x, w->reshape(Shape{kHidden}), 1e-5f, y, rstd);
  report_bytes(state, 6.0 * static_cast<double>(kTokens * kHidden));
}
BENCHMARK(norm)->UseRealTime();

void norm_gradient(benchmark::State& state) {
  Bench bench;
  const Tensor x = random_tensor(DType::F32, kTokens, kHidden), w = random_tensor(DType::F32, 1, kHidden);
  const Tensor dx(DType::F32, Shape{kTokens, kHidden}, true), rstd = random_tensor(DType::F32, 1, kTokens);
  for (auto _ : state) rmsnorm_backward(bench.ctx, x, x, w, rstd, dx, nullptr);
  report_bytes(state, 16.0 * static_cast<double>(kTokens * kHidden));
}
BENCHMARK(norm_gradient)->UseRealTime();

void activation(benchmark::State& state) {
  Bench bench;
  const Tensor gate = random_tensor(DType::BF16, kTokens, kInner), up = random_tensor(DType::BF16, kTokens, kInner);
  const Tensor out(DType::BF16, Shape{kTokens, kInner}), out2(DType::BF16, Shape{kTokens, kInner});
  for (auto _ : state) {
    if (state.range(0))
      swiglu_backward(bench.ctx, gate, up, up, out, out2);
    else
      swiglu(bench.ctx, gate, up, out);
  }
  report_bytes(state, (state.range(0) ? 10.0 : 6.0) * static_cast<double>(kTokens * kInner));
}
BENCHMARK(activation)->ArgName("backward")->Arg(0)->Arg(1)->UseRealTime();

void rotary(benchmark::State& state) {
  Bench bench;
  const Tensor x = random_tensor(DType::BF16, kTokens, kHidden), table = random_tensor(DType::F32, kTokens, 32);
  std::vector<std::int32_t> positions(kTokens);
  for (std::size_t i = 0; i < positions.size(); ++i) positions[i] = static_cast<std::int32_t>(i);
  for (auto _ : state) rope(bench.ctx, x, 64, positions, table, table, false);
  report_bytes(state, 4.0 * static_cast<double>(kTokens * kHidden));
}
BENCHMARK(rotary)->UseRealTime();

void optimizer(benchmark::State& state) {
  Bench bench;
  const std::int64_t n = 4 << 20;
  const Tensor p(DType::F32, Shape{n}, true), g(DType::F32, Shape{n}, true), m(DType::F32, Shape{n}, true),
      v(DType::F32, Shape{n}, true);
  for (auto _ : state) adamw(bench.ctx, p, g, m, v, {.lr = 1e-3f});
  report_bytes(state, 28.0 * static_cast<double>(n));
}
BENCHMARK(optimizer)->UseRealTime();

void squares(benchmark::State& state) {
  Bench bench;
  const Tensor x = random_tensor(DType::F32, 1, 4 << 20);
  for (auto _ : state) benchmark::DoNotOptimize(sum_of_squares(bench.ctx, x));
  report_bytes(state, 4.0 * (4 << 20));
}
BENCHMARK(squares)->UseRealTime();

}  // namespace
}  // namespace temper::ops
