// Schedules without memory: how much of its workspace a sequence of operations needs, before it is run.
#pragma once

#include "tensor/exec_context.h"

namespace temper::ops {

/// `ctx` with `arena`, which has no memory behind it, as its workspace: every op checks what it is given, claims its scratch
/// there as it would in `ctx`, and computes nothing. arena.peak() is then what the same calls take of ctx.workspace.
ExecContext dry_run(const ExecContext& ctx, Arena& arena);

}  // namespace temper::ops
