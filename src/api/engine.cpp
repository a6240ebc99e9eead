#include "api/engine.h"

#include "base/cpu.h"
#include "base/parallel.h"
#include "ops/cpu/cpu_backend.h"

namespace temper::api {
namespace {

// Address space only: pages are taken from the machine as they are used.
constexpr std::size_t kWorkspaceBytes = std::size_t{256} << 30;

DType compute_dtype(recipe::Compute wanted) {
  const Isa isa = active_isa();
  if (wanted == recipe::Compute::F32) return DType::F32;
  if (has_bf16_products(isa)) return DType::BF16;
  if (wanted == recipe::Compute::Bf16)
    throw BadRecipe("runtime.compute bf16: the instruction set in use ({}) has no bf16 products; use auto or f32",
                    isa_name(isa));
  return DType::F32;
}

}  // namespace

Engine::Engine(const recipe::RuntimeOptions& options) : workspace_(kWorkspaceBytes) {
  if (options.threads > 0) set_num_threads(static_cast<int>(options.threads));
  context_ = {&ops::cpu_backend(), &workspace_, compute_dtype(options.compute),
              options.activations == recipe::Activations::Bits8 ? Activations::Bits8 : Activations::Bits16};
}

}  // namespace temper::api
