// A profile as people read it: time by op, and how near each op comes to what the machine can do.
#pragma once

#include <string>

#include "base/profile.h"
#include "tensor/exec_context.h"

namespace temper::ops {

/// What this machine reaches, measured through the backend with all its threads.
struct Ceilings {
  double flops_per_second = 0;  ///< Of a large product in the compute dtype.
  double bytes_per_second = 0;  ///< Of copying what no cache holds: read and written.
};

/// Takes about a second and 300 MB of memory.
Ceilings measure_ceilings(const ExecContext& ctx);

/// Seconds that a row would take at the ceilings: the slower of its arithmetic and its traffic.
double ceiling_seconds(const ProfileRow& row, const Ceilings& ceilings);

/// A table of `profile`'s rows: calls, time, share of the whole, GFLOP/s, GB/s, and share of the ceiling; the last row is
/// the time outside of any op. Ops whose tensors stay in caches may exceed the ceiling of memory.
std::string profile_table(const Profile& profile, const Ceilings& ceilings);

}  // namespace temper::ops
