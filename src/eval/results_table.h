// The table at the end of a run: what quantization cost and what training won back.
#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <optional>
#include <span>
#include <string>

#include "eval/statistics.h"

namespace temper::eval {

struct ResultRow {
  std::string model;                       ///< "tuned, then q4_0 (PTQ)"
  double bits_per_weight = 0;              ///< Over every tensor of the real file.
  std::uint64_t bytes = 0;                 ///< Of all tensors.
  Estimate nll;                            ///< Answer NLL, nats per labelled token.
  std::optional<Estimate> kld;             ///< Against the tuned model, nats.
  std::optional<Estimate> top1_agreement;  ///< Share, 0 to 1.
  std::optional<Estimate> recovered;       ///< Share, 0 to 1.
};

/// Aligned columns, a header line; absent figures are left blank. Width counts characters, not bytes.
std::string results_text(std::span<const ResultRow> rows);
/// An array of objects with the same figures, unrounded; intervals as `…_ci`.
nlohmann::ordered_json results_json(std::span<const ResultRow> rows);

}  // namespace temper::eval
