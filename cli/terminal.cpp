#include "terminal.h"

#include <fmt/format.h>
#include <spdlog/sinks/stdout_color_sinks.h>
#include <spdlog/spdlog.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstdio>

namespace temper::cli {
namespace {

constexpr auto kRedrawInterval = std::chrono::milliseconds(100);
constexpr auto kLineInterval = std::chrono::seconds(5);
constexpr double kLineFraction = 0.1;
constexpr int kBarWidth = 24;

int terminal_columns() {
  winsize size{};
  return ioctl(STDERR_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 0 ? size.ws_col : 80;
}

std::string duration_text(double seconds) {
  const auto whole = std::lround(seconds);
  if (whole >= 3600) return fmt::format("{}:{:02}:{:02}", whole / 3600, whole / 60 % 60, whole % 60);
  return fmt::format("{}:{:02}", whole / 60, whole % 60);
}

/// The first `columns` characters (code points) of a line.
std::string shortened(const std::string& line, int columns) {
  int seen = 0;
  for (std::size_t i = 0; i < line.size(); ++i)
    if ((static_cast<unsigned char>(line[i]) & 0xc0) != 0x80 && ++seen > columns) return line.substr(0, i);
  return line;
}

double fraction_of(const ProgressReport& report) {
  return report.total > 0 ? std::clamp(static_cast<double>(report.done) / static_cast<double>(report.total), 0.0, 1.0) : 0.0;
}

}  // namespace

std::string describe(const ProgressReport& report, int bar_width) {
  std::string line(report.name);
  if (bar_width > 0 && report.total > 0) {
    const int filled = static_cast<int>(fraction_of(report) * bar_width);
    line += "  ";
    for (int i = 0; i < bar_width; ++i) line += i < filled ? "█" : "·";
  }
  line += report.total > 0 ? fmt::format("  {}/{}  {:.0f} %", report.done, report.total, 100 * fraction_of(report))
                           : fmt::format("  {}", report.done);
  if (report.tokens_per_second > 0) line += fmt::format("  {:.0f} tokens/s", report.tokens_per_second);
  if (report.loss) line += fmt::format("  loss {:.4f}", *report.loss);
  if (!report.note.empty() && !report.finished) line += fmt::format("  {}", report.note);
  if (report.finished)
    line += fmt::format("  took {}", duration_text(report.seconds));
  else if (report.seconds_left >= 0)
    line += fmt::format("  {} left", duration_text(report.seconds_left));
  return line;
}

Terminal::Terminal() : interactive_(isatty(STDERR_FILENO) == 1) {
  auto logger = spdlog::stderr_color_mt("temper");
  logger->set_pattern("%^%v%$");
  spdlog::set_default_logger(logger);
}

Terminal::~Terminal() { clear(); }

void Terminal::report(const ProgressReport& report) {
  const std::lock_guard lock(mutex_);
  if (!due(report)) return;
  if (!interactive_) {
    spdlog::info("{}", describe(report, 0));
  } else if (report.finished) {
    clear();
    fmt::print(stderr, "{}\n", shortened(describe(report, 0), terminal_columns() - 1));
  } else {
    draw(describe(report, kBarWidth));
  }
}

bool Terminal::due(const ProgressReport& report) {
  const auto now = Clock::now();
  const double fraction = fraction_of(report);
  const bool fresh = report.name != last_name_;
  const auto since = now - last_drawn_;
  // Plain lines: every 10 %, but not in a rush, and at least now and then where a step takes long.
  const bool line_due = since >= 4 * kLineInterval || (since >= kLineInterval && fraction >= last_fraction_ + kLineFraction);
  if (!fresh && !report.finished && (interactive_ ? since < kRedrawInterval : !line_due)) return false;
  last_name_ = report.finished ? std::string{} : std::string(report.name);
  last_fraction_ = fraction;
  last_drawn_ = now;
  return true;
}

void Terminal::status(std::string_view line) {
  const std::lock_guard lock(mutex_);
  if (line.empty())
    clear();
  else if (interactive_)
    draw(std::string(line) + " …");
  else
    spdlog::info("{} …", line);
}

void Terminal::log(LogLevel level, std::string_view message) {
  const std::lock_guard lock(mutex_);
  const std::string bottom = bottom_line_;
  clear();
  switch (level) {
    case LogLevel::Debug: spdlog::debug("{}", message); break;
    case LogLevel::Info: spdlog::info("{}", message); break;
    case LogLevel::Warning: spdlog::warn("warning: {}", message); break;
    case LogLevel::Error: spdlog::error("error: {}", message); break;
  }
  if (!bottom.empty()) draw(bottom);
}

void Terminal::draw(const std::string& line) {
  bottom_line_ = shortened(line, terminal_columns() - 1);
  fmt::print(stderr, "\r\x1b[2K{}", bottom_line_);
  std::fflush(stderr);
}

void Terminal::clear() {
  if (bottom_line_.empty()) return;
  fmt::print(stderr, "\r\x1b[2K");
  std::fflush(stderr);
  bottom_line_.clear();
}

}  // namespace temper::cli
