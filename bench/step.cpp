// One training step of LoRA and of QAT+LoRA on a real model, against the roofline of its matrix products, which oneDNN runs
// in the same minutes; and where the time of a step goes, op by op.
//   step MODEL [--scheme NAME] [--refit-every N] [--tokens N] [--document N] [--repeat N] [--json]
#include <fmt/format.h>
#include <sys/resource.h>

#include <algorithm>
#include <functional>
#include <limits>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "base/cpu.h"
#include "base/parallel.h"
#include "base/profile.h"
#include "base/rng.h"
#include "clock.h"
#include "library_product.h"
#include "model/transformer.h"
#include "model/weights.h"
#include "ops/cpu/cpu_backend.h"
#include "ops/profile_table.h"

namespace {

using namespace temper;

/// The shortest time of each of several bodies, run in turn: what else the machine does then hits all of them alike.
std::vector<double> best_seconds(const std::vector<std::function<void()>>& bodies, int repeat) {
  for (const auto& body : bodies) body();  // warm-up: primitives, pages
  std::vector<double> best(bodies.size(), std::numeric_limits<double>::infinity());
  for (int i = 0; i < repeat; ++i)
    for (std::size_t j = 0; j < bodies.size(); ++j) {
      const double begin = bench::now();
      bodies[j]();
      best[j] = std::min(best[j], bench::now() - begin);
    }
  return best;
}

/// Random tokens in documents of `document` tokens, every token but a document's last labelled.
struct RandomBatch {
  std::vector<std::int32_t> tokens, positions, targets;
  std::vector<ops::AttentionSpan> spans;
  RandomBatch(std::int64_t n, std::int64_t document, std::int64_t vocab) {
    Rng rng(1);
    for (std::int64_t t = 0; t < n; ++t) {
      tokens.push_back(static_cast<std::int32_t>(rng.below(static_cast<std::uint32_t>(vocab))));
      positions.push_back(static_cast<std::int32_t>(t % document));
      if (t % document == 0) spans.push_back({static_cast<std::int32_t>(t), 0, static_cast<std::int32_t>(t), 0});
      spans.back().query_end = spans.back().key_end = static_cast<std::int32_t>(t + 1);
    }
    for (std::size_t t = 0; t < tokens.size(); ++t)
      targets.push_back(t + 1 < tokens.size() && positions[t + 1] != 0 ? tokens[t + 1] : -1);
  }
  model::BatchView view() const { return {tokens, positions, targets, spans}; }
};

/// The products that a step cannot do without, at oneDNN's own speed: each projection and the head, forward and input
/// gradient.
class Roofline {
 public:
  Roofline(const ExecContext& ctx, const model::ArchSpec& arch, const model::TensorTable& table, std::int64_t tokens) {
    for (const model::Linear l : model::kLinears)
      add(ctx.compute, table[table.linear(0, l)].shape, tokens, static_cast<double>(arch.num_layers));
    // The head in pieces, as nobody holds all logits.
    const std::int64_t rows = std::min<std::int64_t>(tokens, 512);
    add(ctx.compute, table[table.head()].shape, rows, static_cast<double>(tokens) / static_cast<double>(rows));
  }

  void measure() {
    for (Entry& entry : entries_) {
      const double begin = bench::now();
      entry.product.run();
      entry.best = std::min(entry.best, bench::now() - begin);
    }
  }
  double seconds() const {
    double sum = 0;
    for (const Entry& entry : entries_) sum += entry.count * entry.best;
    return sum;
  }
  double flops() const {
    double sum = 0;
    for (const Entry& entry : entries_) sum += entry.count * entry.shape.flops();
    return sum;
  }

 private:
  struct Entry {
    bench::ProductShape shape;
    bench::LibraryProduct product;
    double count;
    double best = std::numeric_limits<double>::infinity();
  };
  void add(DType dtype, const Shape& weight, std::int64_t rows, double count) {
    for (const bool forward : {true, false}) {
      const bench::ProductShape shape{rows,      weight[forward ? 0 : 1], weight[forward ? 1 : 0], false, forward, dtype,
                                      DType::F32};
      entries_.push_back({shape, bench::LibraryProduct(shape), count});
    }
  }
  std::vector<Entry> entries_;
};

/// Codes of a step, as training makes them: scales of a layer are fit every so many steps, a part of the layers at each.
class Encoder {
 public:
  /// `every`: 0 for training's own choice, 8 where a fit is a search.
  Encoder(model::EncodedWeights& encoded, int every) : encoded_(encoded), every_(encoded.table().size(), every) {
    for (std::size_t i = 0; i < every_.size(); ++i) {
      const quant::Codec* codec = encoded.codec(i);
      if (every == 0) every_[i] = codec && codec->searches() ? 8 : 1;
      period_ = std::max(period_, every_[i]);
    }
  }
  void encode(const ExecContext& ctx, const model::Adapters& adapters) {
    std::vector<model::Encoding> how(every_.size(), model::Encoding::Fit);
    for (std::size_t i = 0; i < how.size(); ++i)
      if (step_ > 0 && (step_ + encoded_.table()[i].layer) % every_[i] != 0) how[i] = model::Encoding::KeepParameters;
    encoded_.encode(ctx, &adapters, nullptr, how);
    ++step_;
  }
  int period() const { return period_; }

 private:
  model::EncodedWeights& encoded_;
  std::vector<int> every_;
  int period_ = 1, step_ = 0;
};

nlohmann::ordered_json breakdown(const Profile& profile, const ops::Ceilings& ceilings) {
  nlohmann::ordered_json ops = nlohmann::ordered_json::array();
  for (const ProfileRow& row : profile.rows())
    ops.push_back({{"part", row.section},
                   {"op", row.name},
                   {"calls", row.calls},
                   {"seconds", row.seconds},
                   {"share", row.seconds / profile.seconds()},
                   {"gflops", row.flops / row.seconds * 1e-9},
                   {"gbytes", row.bytes / row.seconds * 1e-9},
                   {"ceiling_share", ops::ceiling_seconds(row, ceilings) / row.seconds}});
  return ops;
}

}  // namespace

int main(int argc, char** argv) {
  std::string path, scheme_name = "int4-sym-g32";
  std::int64_t tokens = 2048, document = 512;
  int repeat = 5, refit_every = 0;
  bool json = false;
  for (int i = 1; i < argc; ++i) {
    const std::string arg = argv[i];
    if (arg == "--json")
      json = true;
    else if (arg == "--scheme" && i + 1 < argc)
      scheme_name = argv[++i];
    else if (arg == "--refit-every" && i + 1 < argc)
      refit_every = std::stoi(argv[++i]);
    else if (arg == "--tokens" && i + 1 < argc)
      tokens = std::stoll(argv[++i]);
    else if (arg == "--document" && i + 1 < argc)
      document = std::stoll(argv[++i]);
    else if (arg == "--repeat" && i + 1 < argc)
      repeat = std::stoi(argv[++i]);
    else
      path = arg;
  }
  if (path.empty()) {
    fmt::print(stderr,
               "usage: step MODEL [--scheme NAME] [--refit-every N] [--tokens N] [--document N] [--repeat N] [--json]\n");
    return 2;
  }
  Arena arena(std::size_t{64} << 30);
  const ExecContext ctx{&ops::cpu_backend(), &arena, has_bf16_products(active_isa()) ? DType::BF16 : DType::F32};
  const auto reader = model::CheckpointReader::open(path);
  model::BaseWeights base(reader, ctx.compute);
  model::Adapters adapters(reader.table(), {}, 0);
  const Tensor m(DType::F32, adapters.parameters().shape, true), v(DType::F32, adapters.parameters().shape, true);
  const RandomBatch batch(tokens, document, reader.arch().vocab_size);
  const auto update = [&] {
    ops::adamw(ctx, adapters.parameters(), adapters.gradients(), m, v, {.lr = 1e-5f});
    adapters.prepare(ctx, base);
    ops::zero(ctx, adapters.gradients());
  };
  update();
  const float grad_scale = 1.0f / static_cast<float>(tokens);

  model::Transformer lora(reader.arch(), base, &adapters, false);
  model::EncodedWeights encoded(ctx, base, quant::scheme(scheme_name), base.storage());
  model::Transformer qat(reader.arch(), encoded, &adapters, true);
  const auto lora_step = [&] { lora.forward_backward(ctx, batch.view(), grad_scale), update(); };
  Encoder encoder(encoded, refit_every);
  const auto encode = [&] { encoder.encode(ctx, adapters); };
  const auto encode_in_turn = [&] {
    for (int i = 0; i < encoder.period(); ++i) encode();
  };
  const auto qat_step = [&] { encode(), qat.forward_backward(ctx, batch.view(), grad_scale), update(); };
  lora_step();  // before oneDNN is asked directly: the backend tells it the instruction set in use
  Roofline roofline(ctx, reader.arch(), reader.table(), tokens);
  const auto best = best_seconds({lora_step, encode_in_turn, qat_step, [&] { roofline.measure(); }}, repeat);
  const double lora_seconds = best[0], encode_seconds = best[1] / encoder.period(), qat_seconds = best[2];

  Profile profile;
  {
    const ProfileRecording recording(&profile);
    qat_step();
  }
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  const ops::Ceilings ceilings = ops::measure_ceilings(ctx);
  nlohmann::ordered_json report = {{"isa", isa_name(active_isa())},
                                   {"threads", num_threads()},
                                   {"scheme", scheme_name},
                                   {"refit_every", encoder.period()},
                                   {"tokens", tokens},
                                   {"tokens_per_s", static_cast<double>(tokens) / qat_seconds},
                                   {"lora_tokens_per_s", static_cast<double>(tokens) / lora_seconds},
                                   {"qat_over_lora", qat_seconds / lora_seconds},
                                   {"encode_seconds", encode_seconds},
                                   {"roofline_share", roofline.seconds() / qat_seconds},
                                   {"roofline_gflops", roofline.flops() / roofline.seconds() / 1e9},
                                   {"peak_rss_bytes", usage.ru_maxrss * 1024}};
  if (json) {
    report["ops"] = breakdown(profile, ceilings);
    fmt::print("{}\n", report.dump());
  } else {
    for (const auto& [key, value] : report.items()) fmt::print("{:<20} {}\n", key, value.dump());
    fmt::print("\none step of QAT, {:.3f} s\n{}", profile.seconds(), ops::profile_table(profile, ceilings));
  }
  return 0;
}
