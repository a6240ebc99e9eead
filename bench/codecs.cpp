// Encoding and decoding in every number format with all threads, in GB/s beside what memory gives in the same run.
//   codecs [FILTER] [--rows N] [--cols N] [--json]
// Traffic is what must move: bf16 values and the encoded bytes, each once. Encoding is fit and round; rounding again keeps
// the parameters of the encoding, as training does between two fits.
#include <fmt/format.h>

#include <algorithm>
#include <limits>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "base/cpu.h"
#include "base/parallel.h"
#include "base/rng.h"
#include "clock.h"
#include "ops/cpu/cpu_backend.h"
#include "ops/ops.h"
#include "ops/profile_table.h"

namespace {

using namespace temper;

/// The best of three.
template <typename Body>
double seconds(Body&& body) {
  double best = std::numeric_limits<double>::infinity();
  for (int i = 0; i < 3; ++i) {
    const double begin = bench::now();
    body();
    best = std::min(best, bench::now() - begin);
  }
  return best;
}

struct Row {
  std::string codec;
  double bits, encode = 0, reround = 0, decode = 0;  ///< GB/s; 0: the format is only read.
};

Row measure(const ExecContext& ctx, const quant::Codec& codec, const Tensor& values, const Tensor& out) {
  const std::int64_t rows = values.view().rows(), cols = values.view().cols();
  std::vector<std::byte> encoded(static_cast<std::size_t>(rows) * codec.row_bytes(cols));
  const double gigabytes = static_cast<double>(values.view().bytes() + encoded.size()) * 1e-9;
  Row row{std::string(codec.name()), codec.bits_per_weight(cols)};
  const auto encode = [&](ops::Parameters parameters) {
    return gigabytes /
           seconds([&] { ops::merge_and_encode(ctx, values, nullptr, DType::BF16, codec, encoded, nullptr, parameters); });
  };
  if (codec.encodes()) {
    row.encode = encode(ops::Parameters::Fit);
    row.reround = encode(ops::Parameters::Kept);
  }
  row.decode = gigabytes / seconds([&] { ops::decode(ctx, {&codec, rows, cols, encoded}, out); });
  return row;
}

}  // namespace

int main(int argc, char** argv) {
  std::string filter;
  std::int64_t rows = 4096, cols = 4096;
  bool json = false;
  for (int i = 1; i < argc; ++i) {
    const std::string arg = argv[i];
    if (arg == "--json")
      json = true;
    else if (arg == "--rows" && i + 1 < argc)
      rows = std::stoll(argv[++i]);
    else if (arg == "--cols" && i + 1 < argc)
      cols = std::stoll(argv[++i]);
    else
      filter = arg;
  }
  Arena arena(std::size_t{16} << 30);
  const ExecContext ctx{&ops::cpu_backend(), &arena, DType::BF16};
  const Tensor values(DType::BF16, {rows, cols}), out(DType::BF16, {rows, cols});
  Rng rng(1);
  for (bf16& x : values.view().span<bf16>())
    x = to_bf16((rng.uniform() + rng.uniform() - rng.uniform() - rng.uniform()) * 0.03f);
  const double memory = ops::measure_ceilings(ctx).bytes_per_second * 1e-9;
  nlohmann::ordered_json report = {{"isa", isa_name(active_isa())}, {"threads", num_threads()}, {"memory_gb_per_s", memory}};
  report["codecs"] = nlohmann::ordered_json::array();
  if (!json) {
    fmt::print("{} threads, {}; memory copies {:.1f} GB/s\n\n", num_threads(), isa_name(active_isa()), memory);
    fmt::print("{:<26} {:>6} {:>20} {:>20} {:>20}\n", "GB/s (share of memory's)", "bits", "encode", "round again", "decode");
  }
  const auto shown = [&](double speed) {
    return speed > 0 ? fmt::format("{:.2f} ({:.0f} %)", speed, 100 * speed / memory) : std::string("–");
  };
  for (const quant::Codec* codec : quant::codecs()) {
    if (!codec->fits(cols) || codec->name().find(filter) == std::string_view::npos) continue;
    const Row row = measure(ctx, *codec, values, out);
    report["codecs"].push_back({{"codec", row.codec},
                                {"bits_per_weight", row.bits},
                                {"encode_gb_per_s", row.encode},
                                {"reround_gb_per_s", row.reround},
                                {"decode_gb_per_s", row.decode}});
    if (!json)
      fmt::print("{:<26} {:>6.2f} {:>20} {:>20} {:>20}\n", row.codec, row.bits, shown(row.encode), shown(row.reround),
                 shown(row.decode));
  }
  if (json) fmt::print("{}\n", report.dump());
  return 0;
}
