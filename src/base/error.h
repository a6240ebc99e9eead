// Errors: one exception type per kind. A message names the file, the key or tensor, what was expected, what was found, and
// what to do. A library never aborts and never prints.
#pragma once

#include <fmt/format.h>

#include <stdexcept>
#include <string>
#include <utility>

namespace temper {

/// Base of every error that temper throws on purpose. `exit_code` is what the command line returns for it.
class Error : public std::runtime_error {
 public:
  Error(const std::string& message, int exit_code) : std::runtime_error(message), exit_code_(exit_code) {}
  int exit_code() const noexcept { return exit_code_; }

 private:
  int exit_code_;
};

/// Defines an error kind whose constructor formats its message: `throw BadFile("{}: expected {}, found {}", path, a, b)`.
#define TEMPER_ERROR_KIND(Name, code)                                      \
  class Name : public Error {                                              \
   public:                                                                 \
    template <typename... Args>                                            \
    explicit Name(fmt::format_string<Args...> format, Args&&... args)      \
        : Error(fmt::format(format, std::forward<Args>(args)...), code) {} \
  }

TEMPER_ERROR_KIND(BadFile, 3);        ///< A file that is missing, truncated, malformed or inconsistent.
TEMPER_ERROR_KIND(BadRecipe, 2);      ///< An option that is unknown, out of range, or contradicts another.
TEMPER_ERROR_KIND(BadData, 4);        ///< A dataset with a broken row, or with nothing to learn.
TEMPER_ERROR_KIND(Unsupported, 5);    ///< Well-formed, but not something temper does.
TEMPER_ERROR_KIND(OutOfMemory, 6);    ///< An arena or limit that ran dry.
TEMPER_ERROR_KIND(IoError, 7);        ///< The system refused a read or write: full disk, permissions.
TEMPER_ERROR_KIND(Diverged, 8);       ///< A loss or gradient that is NaN or infinite.
TEMPER_ERROR_KIND(VerifyFailed, 9);   ///< An exported file that does not answer as training did.
TEMPER_ERROR_KIND(Interrupted, 130);  ///< The user asked to stop; state was saved.

/// A caller's mistake inside temper (shapes that do not fit an op, say), not a user's.
TEMPER_ERROR_KIND(LogicError, 70);

#undef TEMPER_ERROR_KIND

}  // namespace temper
