// What the user sees while temper works: log lines, status lines and a progress bar, all on stderr.
#pragma once

#include <chrono>
#include <mutex>
#include <string>
#include <string_view>

#include "base/log.h"
#include "base/progress.h"

namespace temper::cli {

/// Draws a bar on the last line of a terminal; elsewhere prints plain lines, at most one per 10 % and per few seconds.
/// Log lines go through spdlog, above the bar. Thread-safe.
class Terminal final : public ProgressSink {
 public:
  Terminal();
  ~Terminal() override;
  Terminal(const Terminal&) = delete;
  Terminal& operator=(const Terminal&) = delete;

  void report(const ProgressReport& report) override;
  void status(std::string_view line) override;
  void log(LogLevel level, std::string_view message);

 private:
  using Clock = std::chrono::steady_clock;

  void draw(const std::string& line);
  void clear();
  bool due(const ProgressReport& report);

  std::mutex mutex_;
  bool interactive_;
  std::string bottom_line_;  ///< What stands on the last line of the terminal; empty if nothing.
  std::string last_name_;
  double last_fraction_ = 0;
  Clock::time_point last_drawn_{};
};

/// "train  12/60  20 %  1,234 tokens/s  loss 1.2345  0:42 left", with a bar of `bar_width` characters if that is above zero.
std::string describe(const ProgressReport& report, int bar_width);

}  // namespace temper::cli
