// Head and loss fused in chunks of rows.
#pragma once

#include "ops/backend.h"
#include "ops/cpu/kernels.h"

namespace temper::ops::cpu {

void linear_cross_entropy(const ExecContext& ctx, const Backend& backend, const Kernels& kernels, const TensorView& hidden,
                          const Weight& head, std::span<const std::int32_t> targets, float grad_scale, std::span<float> nll,
                          const HeadGradients* gradients, float cap);

void linear_distillation(const ExecContext& ctx, const Backend& backend, const Kernels& kernels, const TensorView& hidden,
                         const Weight& head, std::span<const std::int32_t> targets, const TeacherRows& teacher,
                         const DistillationMix& mix, float grad_scale, std::span<float> nll, std::span<float> kl,
                         const HeadGradients* gradients, float cap);

}  // namespace temper::ops::cpu
