#include "base/progress.h"

#include <utility>

namespace temper {
namespace {
ProgressSink*& sink() {
  static ProgressSink* instance = nullptr;
  return instance;
}
}  // namespace

void set_progress_sink(ProgressSink* replacement) { sink() = replacement; }

void status(std::string_view line) {
  if (sink()) sink()->status(line);
}

Progress::Progress(std::string name, std::int64_t total)
    : name_(std::move(name)), total_(total), start_(std::chrono::steady_clock::now()) {}

Progress::~Progress() {
  if (!sink()) return;
  try {
    ProgressReport report = make_report();
    report.finished = true;
    sink()->report(report);
  } catch (...) {  // A sink that fails to draw must not end the work.
  }
}

void Progress::resume_from(std::int64_t already_done, std::int64_t tokens) {
  first_ = done_ = already_done;
  first_tokens_ = figures_.tokens = tokens;
}

void Progress::update(std::int64_t done, const ProgressFigures& figures) {
  done_ = done;
  figures_ = figures;
  if (sink()) sink()->report(make_report());
}

ProgressReport Progress::make_report() const {
  ProgressReport report;
  report.name = name_;
  report.done = done_;
  report.total = total_;
  report.loss = figures_.loss;
  report.note = figures_.note;
  report.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start_).count();
  const auto fresh_units = static_cast<double>(done_ - first_);
  const auto fresh_tokens = static_cast<double>(figures_.tokens - first_tokens_);
  if (report.seconds > 0 && fresh_tokens > 0) report.tokens_per_second = fresh_tokens / report.seconds;
  if (total_ > 0 && fresh_units > 0)
    report.seconds_left = report.seconds / fresh_units * static_cast<double>(total_ - done_);
  return report;
}

}  // namespace temper
