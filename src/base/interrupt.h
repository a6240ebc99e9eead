// Ctrl-C as a flag that loops look at between steps, so that state is saved before the process ends.
#pragma once

namespace temper {

/// Installs handlers for SIGINT and SIGTERM that set the flag; a second signal ends the process at once.
void install_interrupt_handler();

/// True once the user asked to stop.
bool interrupted() noexcept;

/// Sets or clears the flag, as a signal would (for tests and embedders).
void set_interrupted(bool value) noexcept;

}  // namespace temper
