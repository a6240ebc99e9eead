#include "api/chart.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>

namespace temper::api {
namespace {

constexpr double kWidth = 860, kHeight = 520, kLeft = 80, kRight = 30, kTop = 50, kBottom = 62;
constexpr double kCharWidth = 7.0, kLineHeight = 14.0;  // of labels, about

std::string escape(const std::string& text) {
  std::string out;
  for (const char c : text) {
    if (c == '<')
      out += "&lt;";
    else if (c == '&')
      out += "&amp;";
    else
      out += c;
  }
  return out;
}

struct Box {
  double left, top, right, bottom;
  bool overlaps(const Box& o) const { return left < o.right && o.left < right && top < o.bottom && o.top < bottom; }
};

/// Where values lie on the page.
class Axes {
 public:
  explicit Axes(const Chart& chart) {
    double x_low = INFINITY, x_high = -INFINITY, y_low = INFINITY, y_high = -INFINITY;
    const auto see = [&](double x, double y) {
      x_low = std::min(x_low, x);
      x_high = std::max(x_high, x);
      if (y > 0.0) y_low = std::min(y_low, y);
      y_high = std::max(y_high, y);
    };
    for (const ChartPoint& p : chart.points) {
      see(p.x, p.y);
      if (p.interval) {
        see(p.x, p.interval->first);
        see(p.x, p.interval->second);
      }
    }
    for (const auto& [x, y] : chart.curve) see(x, y);
    if (!(x_high >= x_low)) x_low = x_high = 0.0;
    if (!(y_low <= y_high)) y_low = y_high = 1.0;
    const double margin = std::max(0.06 * (x_high - x_low), 1e-9 + 0.01 * std::abs(x_high));
    x_low_ = std::max(0.0, x_low - margin);
    x_high_ = x_high + margin;
    y_low_ = std::floor(std::log10(y_low));
    y_high_ = std::max(std::ceil(std::log10(y_high)), y_low_ + 1.0);
  }

  double x(double value) const { return kLeft + (value - x_low_) / (x_high_ - x_low_) * (kWidth - kLeft - kRight); }
  double y(double value) const {
    const double at = value > 0.0 ? std::max(std::log10(value), y_low_) : y_low_;
    return kHeight - kBottom - (at - y_low_) / (y_high_ - y_low_) * (kHeight - kTop - kBottom);
  }

  std::string grid() const {
    std::string out;
    const double raw = (x_high_ - x_low_) / 7.0, power = std::pow(10.0, std::floor(std::log10(raw)));
    const double step = power * (raw / power < 1.5 ? 1.0 : raw / power < 3.5 ? 2.0 : raw / power < 7.5 ? 5.0 : 10.0);
    for (double v = std::ceil(x_low_ / step) * step; v <= x_high_; v += step)
      out += fmt::format(
          "<path class=\"grid\" d=\"M{0:.1f} {1} V{2}\"/><text x=\"{0:.1f}\" y=\"{3}\" "
          "text-anchor=\"middle\">{4:g}</text>\n",
          x(v), kTop, kHeight - kBottom, kHeight - kBottom + 18, v);
    for (double decade = y_low_; decade <= y_high_; decade += 1.0)
      for (const double digit : {1.0, 2.0, 5.0}) {
        const double v = digit * std::pow(10.0, decade);
        if (std::log10(v) > y_high_ + 1e-9) continue;
        out += fmt::format(
            "<path class=\"grid\" d=\"M{0} {1:.1f} H{2}\"/><text x=\"{3}\" y=\"{4:.1f}\" text-anchor=\"end\">{5:g}</text>\n",
            kLeft, y(v), kWidth - kRight, kLeft - 8, y(v) + 4, v);
      }
    return out;
  }

 private:
  double x_low_, x_high_, y_low_, y_high_;  // of y: powers of ten
};

/// A label beside its point, where the fewest others are in its way.
class Labels {
 public:
  void keep_clear(double x, double y) { taken_.push_back({x - 5, y - 5, x + 5, y + 5}); }
  std::string place(const std::string& text, double x, double y) {
    const double width = kCharWidth * static_cast<double>(text.size());
    const std::array<std::pair<double, double>, 6> offsets = {
        {{9, 4}, {-width / 2, -10}, {-width / 2, 20}, {-width - 9, 4}, {9, -12}, {9, 20}}};
    std::ptrdiff_t fewest = -1;
    Box best{};
    for (const auto& [dx, dy] : offsets) {
      const Box box{x + dx, y + dy - kLineHeight + 3, x + dx + width, y + dy + 3};
      auto met = std::ranges::count_if(taken_, [&](const Box& other) { return box.overlaps(other); });
      if (box.right > kWidth || box.left < kLeft || box.top < kTop) met += 100;
      if (fewest >= 0 && met >= fewest) continue;
      fewest = met;
      best = box;
    }
    taken_.push_back(best);
    return fmt::format("<text class=\"label\" x=\"{:.1f}\" y=\"{:.1f}\">{}</text>\n", best.left, best.bottom - 3,
                       escape(text));
  }

 private:
  std::vector<Box> taken_;
};

}  // namespace

std::string to_svg(const Chart& chart) {
  const Axes axes(chart);
  std::string out = fmt::format(
      "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {0} {1}\" width=\"{0}\" height=\"{1}\">\n"
      "<style>text{{font:12px sans-serif;fill:#333}}.title{{font-size:16px;font-weight:bold}}.label{{fill:#111}}"
      ".grid{{stroke:#e4e4e4;fill:none}}.frame{{stroke:#888;fill:none}}.bar{{stroke:#2466a8;stroke-width:1.5;fill:none}}"
      ".dot{{fill:#2466a8}}.curve{{stroke:#c4622d;stroke-width:1.5;fill:none}}</style>\n"
      "<rect width=\"100%\" height=\"100%\" fill=\"#fff\"/>\n<text class=\"title\" x=\"{2}\" y=\"28\">{3}</text>\n",
      kWidth, kHeight, kLeft, escape(chart.title));
  out += axes.grid();
  out += fmt::format("<rect class=\"frame\" x=\"{}\" y=\"{}\" width=\"{}\" height=\"{}\"/>\n", kLeft, kTop,
                     kWidth - kLeft - kRight, kHeight - kTop - kBottom);
  out += fmt::format("<text x=\"{}\" y=\"{}\" text-anchor=\"middle\">{}</text>\n", (kLeft + kWidth - kRight) / 2,
                     kHeight - 18, escape(chart.x_label));
  const double middle = (kTop + kHeight - kBottom) / 2;
  out += fmt::format("<text x=\"20\" y=\"{0}\" text-anchor=\"middle\" transform=\"rotate(-90 20 {0})\">{1}</text>\n", middle,
                     escape(chart.y_label));
  if (!chart.curve.empty()) {
    out += "<path class=\"curve\" d=\"";
    for (std::size_t i = 0; i < chart.curve.size(); ++i)
      out +=
          fmt::format("{}{:.1f} {:.1f}", i == 0 ? "M" : " L", axes.x(chart.curve[i].first), axes.y(chart.curve[i].second));
    out += "\"/>\n";
  }
  Labels labels;
  for (const ChartPoint& p : chart.points) labels.keep_clear(axes.x(p.x), axes.y(p.y));
  for (const ChartPoint& p : chart.points) {
    const double x = axes.x(p.x), y = axes.y(p.y);
    if (p.interval)
      out += fmt::format("<path class=\"bar\" d=\"M{:.1f} {:.1f} V{:.1f}\"/>\n", x, axes.y(p.interval->first),
                         axes.y(p.interval->second));
    out += fmt::format("<circle class=\"dot\" cx=\"{:.1f}\" cy=\"{:.1f}\" r=\"4\"/>\n", x, y) + labels.place(p.label, x, y);
  }
  return out + "</svg>\n";
}

}  // namespace temper::api
