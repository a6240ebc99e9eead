// Charts as self-contained SVG: points with intervals and labels, and a curve, over a linear and a logarithmic axis.
#pragma once

#include <optional>
#include <string>
#include <utility>
#include <vector>

namespace temper::api {

struct ChartPoint {
  std::string label;
  double x = 0, y = 0;
  std::optional<std::pair<double, double>> interval;  ///< Of y.
};

struct Chart {
  std::string title, x_label, y_label;
  std::vector<ChartPoint> points;
  std::vector<std::pair<double, double>> curve;  ///< Drawn as a line, x ascending.
};

/// Points whose y is not above 0 stand on the lower edge, for the axis is logarithmic. Texts are escaped.
std::string to_svg(const Chart& chart);

}  // namespace temper::api
