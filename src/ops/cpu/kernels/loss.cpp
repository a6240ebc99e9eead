// Losses of rows of logits. Compiled with contraction allowed: nothing here decides a code.
#include "ops/cpu/kernels/local.h"
#include "ops/cpu/kernels/simd.h"

namespace temper::ops::cpu::TEMPER_KERNEL_NS {
namespace {

/// Far below every logit, yet finite: differences of two of them are 0, and its exponential is.
constexpr float kNothing = -1e30f;

/// 16 values from p, of which only n may be there: the rest are kNothing.
TEMPER_INLINE Vec load_padded(const float* p, Index n) {
  float lanes[kLanes];
  for (Index i = 0; i < kLanes; ++i) lanes[i] = i < n ? p[i] : kNothing;
  return load(lanes);
}

/// Calls body(x) with each 16 values of a row, padded with kNothing.
template <typename Body>
TEMPER_INLINE void for_padded(const float* row, Index cols, Body&& body) {
  const Index whole = cols / kLanes * kLanes;
  for (Index c = 0; c < whole; c += kLanes) body(load(row + c));
  if (whole < cols) body(load_padded(row + whole, cols - whole));
}

float largest_of(const float* row, Index cols) {
  const Index whole = cols / kLanes * kLanes;
  Vec top(row[0]);
  for (Index c = 0; c < whole; c += kLanes) top = max(load(row + c), top);
  float largest = maximum(top);
  for (Index c = whole; c < cols; ++c) largest = row[c] > largest ? row[c] : largest;
  return largest;
}

/// Σ exp((row − shift) · slope)
float exponentials(const float* row, Index cols, float shift, float slope) {
  const Vec by(shift), factor(slope);
  Vec total(0.0f);
  for_padded(row, cols, [&](const Vec& x) { total = total + exp((x - by) * factor); });
  return sum(total);
}

/// The largest logit, and Σ exp(logit − largest).
struct Normaliser {
  float largest, total;
};

Normaliser normaliser(const float* row, Index cols) {
  const float largest = largest_of(row, cols);
  return {largest, exponentials(row, cols, largest, 1.0f)};
}

/// Of both rows at a temperature: Σ exp of each, and Σ of the teacher's weights times the differences of the exponents.
struct Divergence {
  float student = 0, teacher = 0, cross = 0;
  float kl() const { return cross / teacher + __builtin_logf(student) - __builtin_logf(teacher); }
};

Divergence divergence(const float* student, const float* teacher, Index cols, float student_top, float teacher_top,
                      float slope) {
  const Vec top(student_top), other_top(teacher_top), factor(slope);
  Vec total(0.0f), other_total(0.0f), cross(0.0f);
  const auto add = [&](const Vec& x, const Vec& y) {
    const Vec a = (x - top) * factor, b = (y - other_top) * factor, weight = exp(b);
    total = total + exp(a);
    other_total = other_total + weight;
    cross = multiply_add(weight, b - a, cross);
  };
  const Index whole = cols / kLanes * kLanes;
  for (Index c = 0; c < whole; c += kLanes) add(load(student + c), load(teacher + c));
  if (whole < cols) add(load_padded(student + whole, cols - whole), load_padded(teacher + whole, cols - whole));
  return {sum(total), sum(other_total), sum(cross)};
}

TEMPER_INLINE float exp_of(float x) { return exp(Vec(x)).part[0][0]; }

}  // namespace

void cross_entropy(Rows logits, const std::int32_t* targets, float grad_scale, float* nll, Rows dlogits, Index rows,
                   Index cols) {
  for (Index r = 0; r < rows; ++r) {
    const float* row = row_of<float>(logits, r);
    const Normaliser n = normaliser(row, cols);
    const float at_target = row[targets[r]];  // read first: dlogits may lie over logits
    nll[r] = __builtin_logf(n.total) + (n.largest - at_target);
    if (!dlogits.data) continue;
    const Vec shift(n.largest), factor(grad_scale / n.total);
    with_activation(dlogits.type, [&](auto* tag) {
      using T = TEMPER_TYPE(tag);
      T* grad = row_of<T>(dlogits, r);
      for_columns(cols, [&](Index c, auto get, auto put) { put(grad + c, exp(get(row + c) - shift) * factor); });
      // At the target again, from f32, so that p − 1 is rounded once.
      const Vec p = exp(Vec(at_target) - shift) * Vec(1.0f / n.total);
      store_part(grad + targets[r], (p - Vec(1.0f)) * Vec(grad_scale), 1);
    });
  }
}

/// With p and q the softmaxes of teacher and student at τ: the gradient is c · (softmax − onehot) + d · τ · (q − p).
void distill(Rows logits, Rows teacher, const std::int32_t* targets, const DistillFactors& f, float* nll, float* kl,
             Rows dlogits, Index rows, Index cols) {
  const float slope = 1.0f / f.temperature;
  for (Index r = 0; r < rows; ++r) {
    const float *row = row_of<float>(logits, r), *other = row_of<float>(teacher, r);
    const Normaliser n = normaliser(row, cols);
    const float other_top = largest_of(other, cols);
    const Divergence d = divergence(row, other, cols, n.largest, other_top, slope);
    const float x = row[targets[r]], y = other[targets[r]];  // read first: dlogits may lie over logits
    nll[r] = __builtin_logf(n.total) + (n.largest - x);
    kl[r] = d.kl();
    if (!dlogits.data) continue;
    const float pull = f.grad_scale * f.divergence * f.temperature;
    const Vec top(n.largest), teacher_top(other_top), factor(slope), hard(f.grad_scale * f.cross_entropy / n.total),
        soft(pull / d.student), drawn(pull / d.teacher);
    const auto gradient = [&](const Vec& a, const Vec& b) __attribute__((always_inline)) {
      const Vec own = a - top;
      const Vec difference = exp(own * factor) * soft - exp((b - teacher_top) * factor) * drawn;
      return multiply_add(exp(own), hard, difference);
    };
    with_activation(dlogits.type, [&](auto* tag) {
      using T = TEMPER_TYPE(tag);
      T* grad = row_of<T>(dlogits, r);
      for_columns(cols, [&](Index c, auto get, auto put) { put(grad + c, gradient(get(row + c), get(other + c))); });
      store_part(grad + targets[r], gradient(Vec(x), Vec(y)) - Vec(f.grad_scale * f.cross_entropy), 1);
    });
  }
}

/// As distill, of k + 1 outcomes. At an id j outside of the k, q_j · (1 − p_rest / q_rest) stands for q_j − p_j.
void distill_top(Rows logits, const TopRows& teacher, const std::int32_t* targets, const DistillFactors& f, float* nll,
                 float* kl, Rows dlogits, Index rows, Index cols) {
  const float slope = 1.0f / f.temperature, hard_scale = f.grad_scale * f.cross_entropy;
  for (Index r = 0; r < rows; ++r) {
    float* row = row_of<float>(logits, r);
    const std::int32_t* ids = teacher.ids + r * teacher.k;
    const float* log_p = teacher.log_probs + r * teacher.k;
    const Normaliser n = normaliser(row, cols);
    const float at_target = row[targets[r]];
    nll[r] = __builtin_logf(n.total) + (n.largest - at_target);

    // The rest's sum is taken with the k out of the row: as a difference it would be rounding alone where little is left.
    float x[kMaxTop], e[kMaxTop], total = 0;
    for (Index j = 0; j < teacher.k; ++j) {
      x[j] = row[ids[j]];
      e[j] = exp_of((x[j] - n.largest) * slope);
      total += e[j];
    }
    for (Index j = 0; j < teacher.k; ++j) row[ids[j]] = kNothing;
    const float rest = exponentials(row, cols, n.largest, slope);
    for (Index j = 0; j < teacher.k; ++j) row[ids[j]] = x[j];
    total += rest;
    const float log_total = __builtin_logf(total), p_rest = exp_of(teacher.log_rest[r]);
    float sum = p_rest > 0 ? p_rest * (teacher.log_rest[r] - (__builtin_logf(rest) - log_total)) : 0.0f;
    for (Index j = 0; j < teacher.k; ++j) sum += exp_of(log_p[j]) * (log_p[j] - ((x[j] - n.largest) * slope - log_total));
    kl[r] = sum;
    if (!dlogits.data) continue;

    const float pull = f.grad_scale * f.divergence * f.temperature;
    const float per_rest = 1.0f / total - (rest > 0 ? p_rest / rest : 0.0f);
    const Vec top(n.largest), factor(slope), hard(hard_scale / n.total), soft(pull * per_rest);
    const auto elsewhere = [&](const Vec& a) __attribute__((always_inline)) {
      const Vec own = a - top;
      return multiply_add(exp(own), hard, exp(own * factor) * soft);
    };
    with_activation(dlogits.type, [&](auto* tag) {
      using T = TEMPER_TYPE(tag);
      T* grad = row_of<T>(dlogits, r);
      for_columns(cols, [&](Index c, auto get, auto put) { put(grad + c, elsewhere(get(row + c))); });
      store_part(grad + targets[r], elsewhere(Vec(at_target)) - Vec(hard_scale), 1);
      for (Index j = 0; j < teacher.k; ++j) {
        const float softmax = exp_of(x[j] - n.largest) / n.total - (ids[j] == targets[r] ? 1.0f : 0.0f);
        store_part(grad + ids[j], Vec(softmax * hard_scale + pull * (e[j] / total - exp_of(log_p[j]))), 1);
      }
    });
  }
}

}  // namespace temper::ops::cpu::TEMPER_KERNEL_NS
