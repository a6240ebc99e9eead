#include "eval/results_table.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <string_view>
#include <vector>

namespace temper::eval {
namespace {

constexpr std::size_t kColumns = 7;
using Cells = std::array<std::string, kColumns>;

/// Characters of valid UTF-8: bytes that do not continue one.
std::size_t width(std::string_view text) {
  return static_cast<std::size_t>(
      std::ranges::count_if(text, [](char c) { return (static_cast<unsigned char>(c) & 0xC0u) != 0x80u; }));
}

std::string size_text(std::uint64_t bytes) {
  const double megabytes = static_cast<double>(bytes) / 1e6;
  return megabytes < 1000.0 ? fmt::format("{:.1f} MB", megabytes) : fmt::format("{:.2f} GB", megabytes / 1000.0);
}

Cells cells(const ResultRow& row) {
  Cells out;
  out[0] = row.model;
  out[1] = fmt::format("{:.2f}", row.bits_per_weight);
  out[2] = size_text(row.bytes);
  out[3] = fmt::format("{:.4f} [{:.4f}, {:.4f}]", row.nll.value, row.nll.low, row.nll.high);
  if (row.kld) out[4] = fmt::format("{:.4f}", row.kld->value);
  if (row.top1_agreement) out[5] = fmt::format("{:.1f} %", 100.0 * row.top1_agreement->value);
  if (row.recovered)
    out[6] = fmt::format("{:.0f} % [{:.0f}, {:.0f}]", 100.0 * row.recovered->value, 100.0 * row.recovered->low,
                         100.0 * row.recovered->high);
  return out;
}

void put(nlohmann::ordered_json& json, const std::string& key, const std::optional<Estimate>& estimate) {
  if (!estimate) return;
  json[key] = estimate->value;
  json[key + "_ci"] = {estimate->low, estimate->high};
}

}  // namespace

std::string results_text(std::span<const ResultRow> rows) {
  std::vector<Cells> lines = {
      {"model", "bits/weight", "size", "answer NLL [95 % CI]", "KLD vs tuned", "top-1 agree", "recovered [95 % CI]"}};
  for (const ResultRow& row : rows) lines.push_back(cells(row));
  std::array<std::size_t, kColumns> widths{};
  for (const Cells& line : lines)
    for (std::size_t c = 0; c < kColumns; ++c) widths[c] = std::max(widths[c], width(line[c]));
  std::string out;
  for (const Cells& line : lines) {
    std::string text;
    for (std::size_t c = 0; c < kColumns; ++c) {
      const std::string padding(widths[c] - width(line[c]), ' ');
      // Names to the left, figures to the right.
      text += c == 0 ? line[c] + padding : "   " + padding + line[c];
    }
    text.erase(text.find_last_not_of(' ') + 1);
    out += text + "\n";
  }
  return out;
}

nlohmann::ordered_json results_json(std::span<const ResultRow> rows) {
  nlohmann::ordered_json out = nlohmann::ordered_json::array();
  for (const ResultRow& row : rows) {
    nlohmann::ordered_json json;
    json["model"] = row.model;
    json["bits_per_weight"] = row.bits_per_weight;
    json["bytes"] = row.bytes;
    put(json, "nll", row.nll);
    put(json, "kld", row.kld);
    put(json, "top1_agreement", row.top1_agreement);
    put(json, "recovered", row.recovered);
    out.push_back(std::move(json));
  }
  return out;
}

}  // namespace temper::eval
