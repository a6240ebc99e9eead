// temper: the program.
#include <fmt/format.h>
#include <spdlog/spdlog.h>

#include <cstdio>
#include <exception>
#include <filesystem>
#include <new>

#include "base/cpu.h"
#include "base/error.h"
#include "base/interrupt.h"
#include "base/log.h"
#include "base/parallel.h"
#include "command_line.h"
#include "commands.h"
#include "terminal.h"

namespace {

constexpr int kInternalError = 70, kOutOfMemory = 6, kSystem = 7;

/// Connects the libraries' log and progress to the terminal for as long as it lives.
class Session {
 public:
  explicit Session(bool verbose) {
    spdlog::set_level(verbose ? spdlog::level::debug : spdlog::level::info);
    temper::set_log_sink([this](temper::LogLevel level, std::string_view text) { terminal_.log(level, text); });
    temper::set_progress_sink(&terminal_);
  }
  ~Session() {
    temper::set_log_sink({});
    temper::set_progress_sink(nullptr);
  }
  Session(const Session&) = delete;
  Session& operator=(const Session&) = delete;

 private:
  temper::cli::Terminal terminal_;
};

void run(int argc, char** argv) {
  const auto command = temper::cli::parse_command_line(argc, argv);
  if (!command) return;
  const auto& runtime = command->recipe.runtime;
  if (command->verb == temper::recipe::Verb::Docs || command->verb == temper::recipe::Verb::Schemes)
    return temper::cli::run_command(*command);
  const Session session(runtime.verbose);
  temper::install_interrupt_handler();
  if (runtime.threads > 0) temper::set_num_threads(static_cast<int>(runtime.threads));
  temper::log_info("temper {}: instruction set {} (this CPU: {}), {} threads", TEMPER_VERSION,
                   temper::isa_name(temper::active_isa()), temper::isa_name(temper::detected_isa()), temper::num_threads());
  temper::cli::run_command(*command);
}

}  // namespace

int main(int argc, char** argv) {
  try {
    run(argc, argv);
    // Results on stdout that did not arrive (a full disk, a closed pipe) are an error too.
    if (std::fflush(stdout) != 0) throw temper::IoError("stdout: the results could not be written");
    return 0;
  } catch (const temper::Error& error) {
    fmt::print(stderr, "temper: {}\n", error.what());
    return error.exit_code();
  } catch (const std::bad_alloc&) {
    fmt::print(stderr,
               "temper: out of memory; a smaller train.micro_batch or data.seq_len needs less, and train.recompute=block\n");
    return kOutOfMemory;
  } catch (const std::filesystem::filesystem_error& error) {
    fmt::print(stderr, "temper: {}: the system refused: {}\n", error.path1().string(), error.code().message());
    return kSystem;
  } catch (const std::exception& error) {
    fmt::print(stderr, "temper: internal error: {}\n", error.what());
    return kInternalError;
  }
}
