// Every operation over the shapes of SmolLM2-135M, each against its own roofline, measured in the same run.
//   kernels [FILTER] [--json]
#include <fmt/format.h>

#include <cstdio>
#include <nlohmann/json.hpp>

#include "base/cpu.h"
#include "base/parallel.h"
#include "suite.h"

namespace {

using namespace temper;
using namespace temper::bench;

nlohmann::ordered_json ceilings(Suite& suite) {
  Rooflines& roof = suite.rooflines();
  nlohmann::ordered_json json;
  if (suite.ctx().compute == DType::BF16) json["bf16_gflops"] = roof.products(DType::BF16) * 1e-9;
  json["f32_gflops"] = roof.products(DType::F32) * 1e-9;
  json["read_gbytes"] = roof.memory(Stream::Read, kBeyondCaches) * 1e-9;
  json["write_gbytes"] = roof.memory(Stream::Write, kBeyondCaches) * 1e-9;
  json["triad_gbytes"] = roof.memory(Stream::Triad, kBeyondCaches) * 1e-9;
  return json;
}

nlohmann::ordered_json to_json(const Row& row) {
  return {{"op", row.op},
          {"shape", row.shape},
          {"seconds", row.seconds},
          {"gflops", row.flops / row.seconds * 1e-9},
          {"gbytes", row.bytes / row.seconds * 1e-9},
          {"roofline", row.roof},
          {"roofline_share", row.roof_seconds / row.seconds}};
}

}  // namespace

int main(int argc, char** argv) {
  std::string filter;
  bool json = false;
  for (int i = 1; i < argc; ++i) {
    const std::string argument = argv[i];
    if (argument == "--json")
      json = true;
    else if (!argument.starts_with("-") && filter.empty())
      filter = argument;
    else
      return fmt::print(stderr, "usage: kernels [FILTER] [--json]\n"), 2;
  }
  Suite suite(filter);
  measure_products(suite);
  measure_attention(suite);
  measure_pointwise(suite);
  measure_weights(suite);
  if (suite.rows().empty()) return fmt::print(stderr, "kernels: nothing is called \"{}\"\n", filter), 2;

  nlohmann::ordered_json report = {{"isa", isa_name(active_isa())},
                                   {"threads", num_threads()},
                                   {"ceilings", ceilings(suite)},
                                   {"rows", nlohmann::ordered_json::array()}};
  for (const Row& row : suite.rows()) report["rows"].push_back(to_json(row));
  if (json) {
    fmt::print("{}\n", report.dump());
    return 0;
  }
  fmt::print("{:<24} {:<40} {:>10} {:>9} {:>8}  {:<13} {:>7}\n", "op", "shape", "us", "GFLOP/s", "GB/s", "roofline",
             "share");
  for (const Row& row : suite.rows())
    fmt::print("{:<24} {:<40} {:>10.1f} {:>9.1f} {:>8.1f}  {:<13} {:>5.0f} %\n", row.op, row.shape, row.seconds * 1e6,
               row.flops / row.seconds * 1e-9, row.bytes / row.seconds * 1e-9, row.roof,
               100 * row.roof_seconds / row.seconds);
  fmt::print("{}, {} threads; beyond the caches:", isa_name(active_isa()), num_threads());
  for (const auto& [name, value] : report["ceilings"].items()) fmt::print(" {} {:.1f}", name, value.get<double>());
  fmt::print("\n");
  return 0;
}
