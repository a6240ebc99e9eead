// Logging for libraries: messages go to a sink that the program sets, nowhere by default. The sink is spdlog's (see cli).
#pragma once

#include <fmt/format.h>

#include <functional>
#include <string_view>
#include <utility>

namespace temper {

enum class LogLevel { Debug, Info, Warning, Error };

using LogSink = std::function<void(LogLevel, std::string_view)>;

/// Replaces the sink; an empty function silences logging. Not thread-safe against concurrent logging.
void set_log_sink(LogSink sink);
void log_message(LogLevel level, std::string_view message);

template <typename... Args>
void log_info(fmt::format_string<Args...> format, Args&&... args) {
  log_message(LogLevel::Info, fmt::format(format, std::forward<Args>(args)...));
}

template <typename... Args>
void log_warning(fmt::format_string<Args...> format, Args&&... args) {
  log_message(LogLevel::Warning, fmt::format(format, std::forward<Args>(args)...));
}

}  // namespace temper
