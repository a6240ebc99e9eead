// Codecs on one core: a matrix of 768 columns that does not fit the inner caches. Bytes are those of the 16-bit side.
#include <benchmark/benchmark.h>

#include "base/rng.h"
#include "quant/codec.h"
#include "quant/row_kernels.h"

namespace temper::quant {
namespace {

constexpr std::int64_t kRows = 2048, kCols = 768;

struct Data {
  Tensor values{DType::BF16, {kRows, kCols}};
  std::vector<std::byte> encoded, earlier;

  explicit Data(const Codec& codec) : encoded(kRows * codec.row_bytes(kCols)) {
    Rng rng(1);
    for (bf16& x : values.span<bf16>()) x = to_bf16((rng.uniform() + rng.uniform() - rng.uniform() - rng.uniform()) * 0.03f);
    if (codec.encodes()) codec.encode_rows(values, encoded);
    earlier = encoded;
  }
};

template <typename Work>
void measure(benchmark::State& state, const Codec& codec, Isa isa, Work&& work) {
  set_row_kernels(isa);
  Data data(codec);
  for (auto _ : state) {
    work(data);
    benchmark::ClobberMemory();
  }
  state.SetItemsProcessed(state.iterations() * kRows * kCols);
  state.SetBytesProcessed(state.iterations() * kRows * kCols * 2);
  set_row_kernels(active_isa());
}

void register_all() {
  for (const Codec* codec : codecs()) {
    for (const Isa isa : {Isa::Generic, Isa::Avx2, Isa::Avx512}) {
      if (isa > detected_isa()) continue;
      const std::string suffix = fmt::format("/{}/{}", codec->name(), isa_name(isa));
      benchmark::RegisterBenchmark(("decode" + suffix).c_str(), [=](benchmark::State& state) {
        measure(state, *codec, isa, [&](Data& data) { codec->decode_rows(data.encoded, data.values); });
      });
      if (!codec->encodes()) continue;
      benchmark::RegisterBenchmark(("encode" + suffix).c_str(), [=](benchmark::State& state) {
        measure(state, *codec, isa, [&](Data& data) { codec->encode_rows(data.values, data.encoded); });
      });
      benchmark::RegisterBenchmark(("stats" + suffix).c_str(), [=](benchmark::State& state) {
        measure(state, *codec, isa,
                [&](Data& data) { benchmark::DoNotOptimize(codec->stats(data.encoded, data.earlier, kRows, kCols)); });
      });
    }
  }
}

const bool registered = (register_all(), true);

}  // namespace
}  // namespace temper::quant
