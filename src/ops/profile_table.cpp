#include "ops/profile_table.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>

#include "ops/ops.h"

namespace temper::ops {
namespace {

/// The shortest of a few runs, after one to warm up.
double best_seconds(const auto& body) {
  double best = 1e30;
  for (int i = 0; i < 4; ++i) {
    const auto begin = std::chrono::steady_clock::now();
    body();
    const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
    if (i > 0) best = std::min(best, seconds);
  }
  return best;
}

std::string share(double part, double whole) { return whole > 0 ? fmt::format("{:.1f} %", 100 * part / whole) : ""; }

}  // namespace

Ceilings measure_ceilings(const ExecContext& ctx) {
  Ceilings ceilings;
  {
    constexpr std::int64_t kM = 2048, kN = 2048, kK = 1536;
    const Tensor a(ctx.compute, {kM, kK}, true), b(ctx.compute, {kN, kK}, true), c(ctx.compute, {kM, kN}, true);
    ceilings.flops_per_second = 2.0 * kM * kN * kK / best_seconds([&] { matmul(ctx, a, b, c, {.transpose_b = true}); });
  }
  constexpr std::int64_t kRows = 1024, kCols = 32768;
  const Tensor from(DType::F32, {kRows, kCols}, true), to(DType::F32, {kRows, kCols}, true);
  ceilings.bytes_per_second = 2.0 * sizeof(float) * kRows * kCols / best_seconds([&] { convert(ctx, from, to); });
  return ceilings;
}

double ceiling_seconds(const ProfileRow& row, const Ceilings& ceilings) {
  return std::max(row.flops / ceilings.flops_per_second, row.bytes / ceilings.bytes_per_second);
}

std::string profile_table(const Profile& profile, const Ceilings& ceilings) {
  const double whole = profile.seconds();
  double inside = 0;
  std::string text = fmt::format("{:<12} {:<22} {:>7} {:>9} {:>8} {:>9} {:>8} {:>8}\n", "part", "op", "calls", "seconds",
                                 "share", "GFLOP/s", "GB/s", "ceiling");
  for (const ProfileRow& row : profile.rows()) {
    inside += row.seconds;
    text += fmt::format("{:<12} {:<22} {:>7} {:>9.3f} {:>8} {:>9.0f} {:>8.1f} {:>8}\n", row.section, row.name, row.calls,
                        row.seconds, share(row.seconds, whole), row.flops / row.seconds * 1e-9,
                        row.bytes / row.seconds * 1e-9, share(ceiling_seconds(row, ceilings), row.seconds));
  }
  text += fmt::format("{:<12} {:<22} {:>7} {:>9.3f} {:>8}\n", "", "outside of ops", "", whole - inside,
                      share(whole - inside, whole));
  text += fmt::format("ceilings measured here: products {:.0f} GFLOP/s, memory {:.1f} GB/s\n",
                      ceilings.flops_per_second * 1e-9, ceilings.bytes_per_second * 1e-9);
  return text;
}

}  // namespace temper::ops
