// The machine as a recipe asks for it: threads, precision, working memory, and the backend behind every operation.
#pragma once

#include "recipe/recipe.h"
#include "tensor/exec_context.h"

namespace temper::api {

class Engine {
 public:
  /// Throws BadRecipe if bf16 products are asked for on a CPU without them.
  explicit Engine(const recipe::RuntimeOptions& options);
  const ExecContext& context() const { return context_; }

 private:
  Arena workspace_;
  ExecContext context_;
};

}  // namespace temper::api
