// Progress of long work. A library never prints: it tells a sink, which the program sets (nowhere by default; see cli/).
#pragma once

#include <chrono>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace temper {

/// Figures that accompany a step; what is absent is not shown.
struct ProgressFigures {
  std::int64_t tokens = 0;          ///< Tokens processed since the work began (0: no rate is shown).
  std::optional<double> loss = {};  ///< Loss of the latest step, nats per labelled token.
  std::string note = {};            ///< Anything else worth watching, ready to be shown: "gradient 0.41".
};

/// What a sink is told about one piece of work.
struct ProgressReport {
  std::string_view name;         ///< "train", "evaluate", …
  std::int64_t done = 0;         ///< Units finished.
  std::int64_t total = 0;        ///< Units in all; 0 if unknown.
  double seconds = 0;            ///< Since the work began.
  double tokens_per_second = 0;  ///< Mean since the work began; 0 if no tokens were counted.
  double seconds_left = -1;      ///< Estimated from the mean rate; negative if unknown.
  std::optional<double> loss;
  std::string_view note;  ///< Valid during the call.
  bool finished = false;  ///< The last report of this piece of work.
};

/// Receives progress. How and how often it is drawn is the sink's business.
class ProgressSink {
 public:
  virtual ~ProgressSink() = default;
  virtual void report(const ProgressReport& report) = 0;
  /// One line that says what is happening now; an empty one: nothing, the screen is wanted for something else.
  virtual void status(std::string_view line) = 0;
};

/// Sets the sink; null silences progress. The sink must outlive every Progress. Not thread-safe.
void set_progress_sink(ProgressSink* sink);

/// Says what is happening now, in one line: `status("reading model.gguf")`. An empty line takes the last one away.
void status(std::string_view line);

/// One piece of work of `total` units (steps, rows, tensors; 0 if unknown):
///     Progress progress("train", steps);
///     progress.update(step, {.tokens = tokens_seen, .loss = loss});
/// Destruction reports the end of the work, complete or not.
class Progress {
 public:
  explicit Progress(std::string name, std::int64_t total = 0);
  ~Progress();
  Progress(const Progress&) = delete;
  Progress& operator=(const Progress&) = delete;

  /// `done` units of the total are finished. A resumed run's first update may start above zero: pass it as `already_done`
  /// to `resume_from` beforehand, so that the estimate counts only this process's work.
  void update(std::int64_t done, const ProgressFigures& figures = {});

  /// Work that an earlier process had done; excluded from rates.
  void resume_from(std::int64_t already_done, std::int64_t tokens = 0);

 private:
  ProgressReport make_report() const;

  std::string name_;
  std::int64_t total_, done_ = 0, first_ = 0, first_tokens_ = 0;
  ProgressFigures figures_;
  std::chrono::steady_clock::time_point start_;
};

}  // namespace temper
