// What this process has in memory, as the system counts it.
#pragma once

#include <cstddef>

namespace temper {

/// Resident set as it is, in bytes: anonymous memory and pages of mapped files; 0 where the system does not tell.
std::size_t resident_bytes();

/// Largest resident set since the process began, or since reset_peak_resident. Unlike getrusage's ru_maxrss, it does not
/// begin with what the program that started this one had in memory.
std::size_t peak_resident_bytes();

/// Lets the peak begin anew with what is resident now, where the system can.
void reset_peak_resident();

}  // namespace temper
