#include "ops/dry_run.h"

#include "ops/backend.h"

namespace temper::ops {

ExecContext dry_run(const ExecContext& ctx, Arena& arena) {
  if (!arena.dry()) throw LogicError("a dry run on an arena with memory");
  ExecContext dry = ctx;
  dry.backend = &ctx.backend->dry();
  dry.workspace = &arena;
  return dry;
}

}  // namespace temper::ops
