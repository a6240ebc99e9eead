#include "ptq/clip.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "base/error.h"
#include "base/parallel.h"
#include "quant/scaled_codec.h"

namespace temper::ptq {
namespace {

using Index = std::int64_t;

constexpr Index kTileRows = 16;

/// Factors in the order in which they are tried: 1 first.
std::vector<float> factors() {
  std::vector<float> all = {1.0f};
  for (int percent = 120; percent >= 40; percent -= 2)
    if (percent != 100) all.push_back(static_cast<float>(percent) / 100.0f);
  return all;
}

/// How a codec's parameters lie in a row: a header, then so many of each group.
struct Layout {
  Index cols, group, groups, header, per_group, per_row;

  Layout(const quant::Codec& codec, Index cols_) : cols(cols_) {
    group = codec.group() == 0 ? cols : codec.group();
    groups = cols / group;
    const quant::ScaledCodec* scaled = quant::as_scaled(&codec);
    header = scaled ? scaled->format().header_params(groups) : 0;
    per_row = codec.params_per_row(cols);
    per_group = (per_row - header) / groups;
  }
};

quant::Sharing sharing(const quant::Codec& codec) {
  const quant::ScaledCodec* scaled = quant::as_scaled(&codec);
  return scaled ? scaled->format().sharing : quant::Sharing::None;
}

/// Values of some rows times a factor.
void scale_rows(const TensorView& in, float factor, const TensorView& out) {
  for (Index r = 0; r < in.rows(); ++r) {
    const float* from = in.as<float>() + r * in.row_stride;
    float* to = out.as<float>() + r * out.row_stride;
    for (Index c = 0; c < in.cols(); ++c) to[c] = from[c] * factor;
  }
}

/// Scratch for rounding and decoding a tile.
struct Tile {
  Tile(const quant::Codec& codec, Index rows, Index cols)
      : values(DType::F32, {rows, cols}), bytes(static_cast<std::size_t>(rows) * codec.row_bytes(cols)) {}
  Tensor values;
  std::vector<std::byte> bytes;
};

/// errors[r · groups + g] = Σ importance · (decode(round(value)) − value)² of each group, in double.
void measure(const quant::Codec& codec, const Layout& layout, const TensorView& values, std::span<const float> importance,
             std::span<const float> params, Tile& tile, std::span<double> errors) {
  const Index rows = values.rows();
  const auto bytes = std::span(tile.bytes).first(static_cast<std::size_t>(rows) * codec.row_bytes(layout.cols));
  const TensorView decoded = tile.values.view().slice_rows(0, rows);
  codec.round_rows(values, params, bytes);
  codec.decode_rows(bytes, decoded);
  for (Index r = 0; r < rows; ++r) {
    const float* x = values.as<float>() + r * values.row_stride;
    const float* y = decoded.as<float>() + r * decoded.row_stride;
    for (Index g = 0; g < layout.groups; ++g) {
      double sum = 0;
      for (Index c = g * layout.group; c < (g + 1) * layout.group; ++c) {
        const double d = static_cast<double>(y[c]) - x[c];
        sum += importance.empty() ? d * d : d * d * static_cast<double>(importance[static_cast<std::size_t>(c)]);
      }
      errors[static_cast<std::size_t>(r * layout.groups + g)] = sum;
    }
  }
}

void copy_group(const Layout& layout, std::span<const float> from, Index row, Index group, std::span<float> to) {
  const auto at = static_cast<std::size_t>(row * layout.per_row + layout.header + group * layout.per_group);
  std::copy_n(from.begin() + static_cast<std::ptrdiff_t>(at), layout.per_group,
              to.begin() + static_cast<std::ptrdiff_t>(at));
}

/// Calls body(begin, end) over tiles of rows, on all threads.
template <typename Body>
void for_tiles(Index rows, Body&& body) {
  parallel_for((rows + kTileRows - 1) / kTileRows, 1, [&](Index first, Index last) {
    for (Index t = first; t < last; ++t) body(t * kTileRows, std::min(rows, (t + 1) * kTileRows));
  });
}

/// fit of `values` with each group's range times `factor`; header from `whole` where it is given.
void fit_scaled(const quant::Codec& codec, const Layout& layout, const TensorView& values, float factor,
                std::span<const float> whole, const TensorView& scratch, std::span<float> params) {
  scale_rows(values, factor, scratch);
  codec.fit_rows(scratch, params);
  for (Index r = 0; r < values.rows() && !whole.empty(); ++r)
    std::copy_n(whole.begin() + r * layout.per_row, layout.header, params.begin() + r * layout.per_row);
}

/// Each group's own factor, for a tile of rows whose params hold the plain fit.
void search_tile(const quant::Codec& codec, const Layout& layout, const TensorView& values,
                 std::span<const float> importance, std::span<float> params) {
  const Index rows = values.rows();
  Tile tile(codec, rows, layout.cols);
  const Tensor scratch(DType::F32, {rows, layout.cols});
  const std::vector<float> plain(params.begin(), params.end());
  std::vector<float> tried(params.size());
  std::vector<double> best(static_cast<std::size_t>(rows * layout.groups), std::numeric_limits<double>::infinity());
  std::vector<double> errors(best.size());
  for (const float factor : factors()) {
    fit_scaled(codec, layout, values, factor, plain, scratch, tried);
    measure(codec, layout, values, importance, tried, tile, errors);
    for (Index r = 0; r < rows; ++r)
      for (Index g = 0; g < layout.groups; ++g) {
        const auto i = static_cast<std::size_t>(r * layout.groups + g);
        if (!(errors[i] < best[i])) continue;
        best[i] = errors[i];
        copy_group(layout, tried, r, g, params);
      }
  }
}

/// One factor for all groups that share a parameter: those of a tensor, or of a column of 128 rows.
void search_shared(const quant::Codec& codec, const Layout& layout, const TensorView& values,
                   std::span<const float> importance, std::span<float> params) {
  const Index rows = values.rows(), band = sharing(codec) == quant::Sharing::Tensor ? rows : quant::kBandRows;
  const bool whole_tensor = sharing(codec) == quant::Sharing::Tensor;
  const auto unit = [&](Index r, Index g) {
    return static_cast<std::size_t>(whole_tensor ? 0 : r / band * layout.groups + g);
  };
  const std::size_t units = whole_tensor ? 1 : static_cast<std::size_t>((rows + band - 1) / band * layout.groups);
  std::vector<float> tried(params.size());
  std::vector<double> best(units, std::numeric_limits<double>::infinity());
  std::vector<double> errors(static_cast<std::size_t>(rows * layout.groups));
  for (const float factor : factors()) {
    for_tiles(rows, [&](Index begin, Index end) {
      const Tensor scratch(DType::F32, {end - begin, layout.cols});
      fit_scaled(codec, layout, values.slice_rows(begin, end), factor, {}, scratch,
                 std::span(tried).subspan(static_cast<std::size_t>(begin * layout.per_row),
                                          static_cast<std::size_t>((end - begin) * layout.per_row)));
    });
    codec.join(tried, rows, layout.cols);
    for_tiles(rows, [&](Index begin, Index end) {
      Tile tile(codec, end - begin, layout.cols);
      measure(codec, layout, values.slice_rows(begin, end), importance,
              std::span<const float>(tried).subspan(static_cast<std::size_t>(begin * layout.per_row),
                                                    static_cast<std::size_t>((end - begin) * layout.per_row)),
              tile,
              std::span(errors).subspan(static_cast<std::size_t>(begin * layout.groups),
                                        static_cast<std::size_t>((end - begin) * layout.groups)));
    });
    std::vector<double> sums(units, 0.0);
    for (Index r = 0; r < rows; ++r)
      for (Index g = 0; g < layout.groups; ++g) sums[unit(r, g)] += errors[static_cast<std::size_t>(r * layout.groups + g)];
    for (Index r = 0; r < rows; ++r)
      for (Index g = 0; g < layout.groups; ++g)
        if (sums[unit(r, g)] < best[unit(r, g)]) copy_group(layout, tried, r, g, params);
    for (std::size_t u = 0; u < units; ++u) best[u] = std::min(best[u], sums[u]);
  }
}

/// The percentile of values in ascending order, linear between neighbours.
float percentile_of(std::span<const float> ascending, double percentile) {
  const double at = percentile / 100.0 * static_cast<double>(ascending.size() - 1);
  const auto below = static_cast<std::size_t>(at);
  const double part = at - static_cast<double>(below), low = ascending[below],
               high = ascending[std::min(below + 1, ascending.size() - 1)];
  return static_cast<float>(low + part * (high - low));
}

void clamp_group(std::span<float> group, double percentile, bool asymmetric, std::vector<float>& sorted) {
  sorted.assign(group.begin(), group.end());
  if (!asymmetric)
    for (float& x : sorted) x = std::fabs(x);
  std::ranges::sort(sorted);
  const float high = percentile_of(sorted, percentile);
  const float low = asymmetric ? percentile_of(sorted, 100.0 - percentile) : -high;
  for (float& x : group) x = std::clamp(x, std::min(low, high), std::max(low, high));
}

/// Formats with a minimum or a zero point.
bool asymmetric(const quant::Codec& codec) {
  if (const quant::ScaledCodec* scaled = quant::as_scaled(&codec)) return scaled->format().asymmetric();
  return codec.name() == "q4_1" || codec.name() == "q5_1";
}

}  // namespace

bool can_clip(const quant::Codec& codec) {
  if (!codec.encodes()) return false;
  if (const quant::ScaledCodec* scaled = quant::as_scaled(&codec))
    return scaled->format().mapping != quant::Mapping::AbsmaxDouble;
  constexpr std::string_view kAbsmax[] = {"q4_0", "q4_1", "q5_0", "q5_1", "q8_0"};
  return std::ranges::find(kAbsmax, codec.name()) != std::end(kAbsmax);
}

void require_clip(const quant::Codec& codec, std::string_view method) {
  if (!can_clip(codec))
    throw BadRecipe(
        "quant.method {}: {} has no range to clip (its fit is a search, or its scales are nested); use rtn, importance or "
        "gptq",
        method, codec.name());
}

void fit_mse(const quant::Codec& codec, const TensorView& values, std::span<const float> importance,
             std::span<float> params) {
  const Layout layout(codec, values.cols());
  const auto tile_params = [&](Index begin, Index end) {
    return params.subspan(static_cast<std::size_t>(begin * layout.per_row),
                          static_cast<std::size_t>((end - begin) * layout.per_row));
  };
  for_tiles(values.rows(),
            [&](Index begin, Index end) { codec.fit_rows(values.slice_rows(begin, end), tile_params(begin, end)); });
  codec.join(params, values.rows(), values.cols());
  if (codec.joins_rows() && layout.header == 0) return search_shared(codec, layout, values, importance, params);
  for_tiles(values.rows(), [&](Index begin, Index end) {
    search_tile(codec, layout, values.slice_rows(begin, end), importance, tile_params(begin, end));
  });
}

void fit_percentile(const quant::Codec& codec, const TensorView& values, double percentile, std::span<float> params) {
  const Layout layout(codec, values.cols());
  for_tiles(values.rows(), [&](Index begin, Index end) {
    const Tensor clamped(DType::F32, {end - begin, layout.cols});
    scale_rows(values.slice_rows(begin, end), 1.0f, clamped);
    std::vector<float> sorted;
    const std::span<float> all = clamped.span<float>();
    for (std::size_t at = 0; at < all.size(); at += static_cast<std::size_t>(layout.group))
      clamp_group(all.subspan(at, static_cast<std::size_t>(layout.group)), percentile, asymmetric(codec), sorted);
    codec.fit_rows(clamped, params.subspan(static_cast<std::size_t>(begin * layout.per_row),
                                           static_cast<std::size_t>((end - begin) * layout.per_row)));
  });
  codec.join(params, values.rows(), values.cols());
}

std::vector<std::byte> round_all(const quant::Codec& codec, const TensorView& values, std::span<const float> params) {
  const std::size_t row_bytes = codec.row_bytes(values.cols());
  const Index per_row = codec.params_per_row(values.cols());
  std::vector<std::byte> bytes(static_cast<std::size_t>(values.rows()) * row_bytes);
  for_tiles(values.rows(), [&](Index begin, Index end) {
    const auto rows = static_cast<std::size_t>(end - begin);
    codec.round_rows(values.slice_rows(begin, end),
                     params.subspan(static_cast<std::size_t>(begin * per_row), rows * static_cast<std::size_t>(per_row)),
                     std::span(bytes).subspan(static_cast<std::size_t>(begin) * row_bytes, rows * row_bytes));
  });
  return bytes;
}

}  // namespace temper::ptq
