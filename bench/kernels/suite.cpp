#include "suite.h"

#include <fmt/format.h>

#include <algorithm>

#include "base/cpu.h"
#include "base/profile.h"
#include "base/rng.h"
#include "ops/cpu/cpu_backend.h"
#include "quant/codec.h"

namespace temper::bench {

Suite::Suite(std::string filter)
    : filter_(std::move(filter)),
      arena_(std::size_t{4} << 30),
      ctx_{&ops::cpu_backend(), &arena_, has_bf16_products(active_isa()) ? DType::BF16 : DType::F32} {}

bool Suite::wants_format(std::string_view name) const {
  constexpr std::string_view kUsual[] = {"int4-sym-g32", "int8-sym", "q4_0", "q4_1",  "q5_0",  "q8_0",
                                         "q4_k",         "q6_k",     "nf4",  "mxfp4", "nvfp4", "fp8-e4m3"};
  const auto named = [&](const quant::Codec* codec) { return filter_.find(codec->name()) != std::string::npos; };
  return std::ranges::any_of(quant::codecs(), named) || std::ranges::find(kUsual, name) != std::end(kUsual);
}

Row Suite::measure(const std::string& op, const std::string& shape, const std::function<void()>& body) {
  fmt::print(stderr, "{} {}\n", op, shape);
  Row row{op, shape, seconds_of(body), 0, 0, "", 0};
  Profile profile;
  {
    const ProfileRecording recording(&profile);
    body();
  }
  for (const ProfileRow& counted : profile.rows()) row.flops += counted.flops, row.bytes += counted.bytes;
  return row;
}

void Suite::product(const std::string& op, const std::string& shape, const ProductShape& roof,
                    const std::function<void()>& body) {
  if (!wants(op, shape)) return;
  Row row = measure(op, shape, body);
  row.roof = "oneDNN";
  row.roof_seconds = onednn_seconds(roof);
  rows_.push_back(row);
}

void Suite::op(const std::string& op, const std::string& shape, DType arithmetic, const std::function<void()>& body) {
  if (!wants(op, shape)) return;
  Row row = measure(op, shape, body);
  const double compute = row.flops > 0 ? row.flops / rooflines_.products(arithmetic) : 0;
  const double memory = row.bytes / rooflines_.memory(Stream::Triad, row.bytes);
  row.roof = compute > memory ? arithmetic == DType::F32 ? "f32 products" : "products" : "memory";
  row.roof_seconds = std::max(compute, memory);
  rows_.push_back(row);
}

void Suite::reading(const std::string& op, const std::string& shape, double bytes, const std::function<void()>& body) {
  if (!wants(op, shape)) return;
  Row row = measure(op, shape, body);
  row.bytes = bytes;
  row.roof = "reading";
  row.roof_seconds = bytes / rooflines_.memory(Stream::Read, kBeyondCaches);
  rows_.push_back(row);
}

Tensor random_tensor(DType dtype, std::int64_t rows, std::int64_t cols) {
  Tensor x(dtype, Shape{rows, cols});
  Rng rng(static_cast<std::uint64_t>(rows * 31 + cols));
  for (std::int64_t i = 0; i < rows * cols; ++i) {
    const float value = 2.0f * rng.uniform() - 1.0f;
    if (dtype == DType::BF16)
      x->as<bf16>()[i] = to_bf16(value);
    else
      x->as<float>()[i] = value;
  }
  return x;
}

}  // namespace temper::bench
