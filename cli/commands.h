// What each verb does: a call into the public API, and printing what it returns.
#pragma once

#include "command_line.h"

namespace temper::cli {

/// Runs the verb. Results go to stdout, everything else to the log. Throws what the API throws.
void run_command(const Command& command);

}  // namespace temper::cli
