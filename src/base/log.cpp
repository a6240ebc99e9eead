#include "base/log.h"

namespace temper {
namespace {
LogSink& sink() {
  static LogSink instance;
  return instance;
}
}  // namespace

void set_log_sink(LogSink replacement) { sink() = std::move(replacement); }

void log_message(LogLevel level, std::string_view message) {
  if (sink()) sink()(level, message);
}

}  // namespace temper
