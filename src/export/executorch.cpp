#include "export/executorch.h"

#include <fcntl.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <fstream>
#include <iterator>
#include <vector>

#include "base/atomic_file.h"
#include "base/error.h"
#include "base/progress.h"
#include "export/executorch_script.h"

namespace temper::exporter {
namespace {

namespace fs = std::filesystem;

std::string python() {
  const char* chosen = std::getenv("TEMPER_PYTHON");
  return chosen && *chosen ? chosen : "python3";
}

/// Runs a program with both its outputs in a file; its exit status, or -1.
int run(std::vector<std::string> command, const fs::path& log) {
  std::vector<char*> arguments;
  for (std::string& word : command) arguments.push_back(word.data());
  arguments.push_back(nullptr);
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_addopen(&actions, STDOUT_FILENO, log.c_str(), O_WRONLY | O_CREAT | O_TRUNC, 0644);
  posix_spawn_file_actions_adddup2(&actions, STDOUT_FILENO, STDERR_FILENO);
  pid_t child = 0;
  const int failed = posix_spawnp(&child, arguments[0], &actions, nullptr, arguments.data(), environ);
  posix_spawn_file_actions_destroy(&actions);
  int status = 0;
  if (failed != 0 || ::waitpid(child, &status, 0) != child || !WIFEXITED(status)) return -1;
  return WEXITSTATUS(status);
}

std::string tail_of(const fs::path& log) {
  std::ifstream file(log);
  const std::string text{std::istreambuf_iterator<char>(file), {}};
  constexpr std::size_t kShown = 1500;
  return text.substr(text.size() - std::min(text.size(), kShown));
}

}  // namespace

void require_executorch() {
  if (run({python(), "-c", "import executorch, torchao"}, "/dev/null") == 0) return;
  throw Unsupported(
      "export.to executorch: {0} has not the packages executorch and torchao, which make the program; install them with "
      "`{0} -m pip install executorch==1.5.1 torchao==0.18.0`, or name another Python in TEMPER_PYTHON. `--to torchao` "
      "writes the folder that they start from",
      python());
}

void make_executorch(const fs::path& folder, const fs::path& program) {
  status("making the program with executorch");
  const fs::path script = program.parent_path() / "temper_executorch.py", log = program.parent_path() / "executorch.log";
  write_file(script, kExecutorchScript);
  if (const int code = run({python(), script.string(), folder.string(), program.string()}, log);
      code != 0 || !fs::exists(program))
    throw IoError("executorch's exporter ended with status {}:\n{}", code, tail_of(log));
  fs::remove(script);
  fs::remove(log);
}

}  // namespace temper::exporter
