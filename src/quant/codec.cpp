#include "quant/codec.h"

#include <algorithm>

#include "quant/checks.h"

namespace temper::quant {
namespace {

/// Calls visit(row, r) with every row of F32 or BF16 `values` as floats.
template <typename Visitor>
void for_each_row(const TensorView& values, Visitor&& visit) {
  std::vector<float> row(static_cast<std::size_t>(values.cols()));
  for (std::int64_t r = 0; r < values.rows(); ++r) {
    widen_row(values, r, row);
    visit(row, static_cast<std::size_t>(r));
  }
}

}  // namespace

void Codec::join(std::span<float> params, std::int64_t rows, std::int64_t cols) const {
  check_size(*this, "parameters", static_cast<std::size_t>(rows * params_per_row(cols)), params.size());
}

std::int64_t Codec::first_overflow(std::span<const std::byte>, std::int64_t, std::int64_t) const { return -1; }

void Codec::group_params(std::span<const float> params, std::int64_t cols, std::int64_t g, std::span<float> out) const {
  check_size(*this, "parameters of a row", static_cast<std::size_t>(params_per_row(cols)), params.size());
  const std::span<const float> part = params.subspan(static_cast<std::size_t>(g) * out.size(), out.size());
  std::ranges::copy(part, out.begin());
}

void Codec::fit_rows(const TensorView& values, std::span<float> params) const {
  check_matrix(*this, values, static_cast<std::size_t>(values.rows()) * row_bytes(values.cols()));
  const auto per_row = static_cast<std::size_t>(params_per_row(values.cols()));
  check_size(*this, "parameters", static_cast<std::size_t>(values.rows()) * per_row, params.size());
  for_each_row(values, [&](std::span<const float> row, std::size_t r) { fit(row, params.subspan(r * per_row, per_row)); });
}

void Codec::round_rows(const TensorView& values, std::span<const float> params, std::span<std::byte> encoded) const {
  check_matrix(*this, values, encoded.size());
  const auto per_row = static_cast<std::size_t>(params_per_row(values.cols()));
  const std::size_t bytes = row_bytes(values.cols());
  check_size(*this, "parameters", static_cast<std::size_t>(values.rows()) * per_row, params.size());
  for_each_row(values, [&](std::span<const float> row, std::size_t r) {
    round(row, params.subspan(r * per_row, per_row), encoded.subspan(r * bytes, bytes));
  });
}

void Codec::reround_rows(const TensorView& values, std::span<std::byte> encoded) const {
  check_matrix(*this, values, encoded.size());
  const std::size_t bytes = row_bytes(values.cols());
  for_each_row(values, [&](std::span<const float> row, std::size_t r) { reround(row, encoded.subspan(r * bytes, bytes)); });
}

}  // namespace temper::quant
