// The searches by which ggml fits the scale (and minimum) of a group of elements, and of a superblock's scales.
//
// Every function is written once over V: a float, for the definition, or a vector of floats, for kernels that search one
// group per lane. Lanes never mix, and sums run over the elements in order, so that both give the same bits. They are those
// of ggml built without fused multiply-add, as its x86 libraries are (ggml-quants.c of llama.cpp, 2026); where a compiler
// contracts a * b + c, as on ARM, ggml's own bytes differ from these in rare near-ties.
//
// Internal linkage throughout: see bits.h.
#pragma once

#include "quant/bits.h"

namespace temper::quant {
namespace {

template <typename V>
struct LanesOf {
  using Int = decltype(V{} < V{});
};
template <>
struct LanesOf<float> {
  using Int = i32;
};
template <typename V>
using IntsOf = typename LanesOf<V>::Int;

template <typename V>
V splat(float x) {
  return x - V{};
}

template <typename V>
V to_floats(IntsOf<V> x) {
  if constexpr (sizeof(V) == sizeof(float))
    return static_cast<float>(x);
  else
    return __builtin_convertvector(x, V);
}

template <typename V>
V magnitude(V x) {
  return __builtin_bit_cast(V, __builtin_bit_cast(IntsOf<V>, x) & 0x7fffffff);
}

template <typename V>
V root(V x) {
  if constexpr (sizeof(V) == sizeof(float)) {
    return __builtin_sqrtf(x);
  } else {
    for (unsigned j = 0; j < sizeof(V) / sizeof(float); ++j) x[j] = __builtin_sqrtf(x[j]);
    return x;
  }
}

/// The nearest integer, ties to even, within [low, high]. What is too large for the trick of adding 1.5 * 2^23, or NaN,
/// gives what it gives in ggml.
template <typename V>
V nearest(V x, int low, int high) {
  using Int = IntsOf<V>;
  Int q = (__builtin_bit_cast(Int, x + 12582912.0f) & 0x007fffff) - 0x00400000;
  const Int least = low - Int{}, most = high - Int{};
  q = q > least ? q : least;
  q = q < most ? q : most;
  return to_floats<V>(q);
}

/// The code that a step of the search gives, counted from the lowest; the lowest if the step is infinite.
inline int searched_code(float x, float step, float origin, int low, int high) {
  return step - step != 0 ? 0 : static_cast<int>(nearest<float>(step * (x - origin), low, high)) - low;
}

/// Weights of a weighted search: importance, moderated by the size of the element; `energy` is a mean square nearby.
template <int kElements, typename V>
void weigh(const V* x, const V* importance, V energy, V* weights) {
  for (int i = 0; i < kElements; ++i) weights[i] = importance[i] * root<V>(energy + x[i] * x[i]);
}

// ---- Groups with a scale and a minimum: x' = scale * code - minimum, code in 0 … levels ----

struct AffineSearch {
  int levels;
  float first, delta;  ///< Steps tried: range / (levels + first + delta * i), for i = 0 … tries.
  int tries;
  bool absolute = false;  ///< Compare sums of |error| instead of its square.
};

/// `step` and `origin` gave the codes that the scale was fitted to: code = nearest(step * (x - origin)).
template <typename V>
struct AffineFit {
  V scale, minimum, step, origin;
};

/// The scale and the non-negative minimum of least weighted error among those fitted by least squares to the codes that each
/// step gives. A constant group has scale 0 and an infinite step.
template <int kElements, typename V>
AffineFit<V> fit_affine(const V* x, const V* weights, const AffineSearch& search) {
  const V zero{};
  V low = x[0], high = x[0], sum_w = weights[0], sum_x = weights[0] * x[0];
  for (int i = 1; i < kElements; ++i) {
    low = x[i] < low ? x[i] : low;
    high = x[i] > high ? x[i] : high;
    sum_w += weights[i];
    sum_x += weights[i] * x[i];
  }
  low = low > zero ? zero : low;
  V codes[kElements];
  const auto error_of = [&](V scale, V minimum) {
    V error{};
    for (int i = 0; i < kElements; ++i) {
      const V difference = scale * codes[i] + minimum - x[i];
      error += weights[i] * (search.absolute ? magnitude(difference) : difference * difference);
    }
    return error;
  };

  const auto levels = static_cast<float>(search.levels);
  V step = levels / (high - low), scale = 1.0f / step, origin = low;
  for (int i = 0; i < kElements; ++i) codes[i] = nearest<V>(step * (x[i] - low), 0, search.levels);
  V least = error_of(scale, low);
  for (int t = 0; t <= search.tries; ++t) {
    const V tried = (search.first + search.delta * static_cast<float>(t) + levels) / (high - low);
    V sum_l{}, sum_l2{}, sum_xl{};
    for (int i = 0; i < kElements; ++i) {
      codes[i] = nearest<V>(tried * (x[i] - low), 0, search.levels);
      const V wl = weights[i] * codes[i];
      sum_l += wl;
      sum_l2 += wl * codes[i];
      sum_xl += wl * x[i];
    }
    const V determinant = sum_w * sum_l2 - sum_l * sum_l;
    V fitted = (sum_w * sum_xl - sum_x * sum_l) / determinant, minimum = (sum_l2 * sum_x - sum_l * sum_xl) / determinant;
    const auto above = minimum > zero;
    fitted = above ? sum_xl / sum_l2 : fitted;
    minimum = above ? zero : minimum;
    const V error = error_of(fitted, minimum);
    const auto better = (determinant > zero) & (error < least);
    step = better ? tried : step;
    origin = better ? low : origin;
    scale = better ? fitted : scale;
    low = better ? minimum : low;
    least = better ? error : least;
  }
  return {scale, -low, step, origin};
}

// ---- Groups with a scale: x' = scale * code, code in -half … half - 1 ----

constexpr float kNothing = 1e-15f;  ///< Groups below this count as zeros.

/// `step` gave the codes that the scale was fitted to: code = nearest(step * x). A group of zeros has scale 0 and an
/// infinite step, and its codes are -half.
template <typename V>
struct SymmetricFit {
  V scale, step;
};

template <int kElements, typename V>
V first_largest_of(const V* x) {
  V largest{};
  for (int i = 0; i < kElements; ++i) largest = magnitude(x[i]) > magnitude(largest) ? x[i] : largest;
  return largest;
}

/// The scale of least weighted error among those fitted to the codes of 19 steps near largest / -half.
template <int kElements, typename V>
SymmetricFit<V> fit_symmetric(const V* x, const V* weights, int half) {
  const V zero{}, largest = first_largest_of<kElements>(x);
  const auto centre = static_cast<float>(half);
  V sum_xl, sum_l2;
  const auto sum = [&](V tried) {
    sum_xl = sum_l2 = zero;
    for (int i = 0; i < kElements; ++i) {
      const V code = nearest<V>(tried * x[i], -half, half - 1);
      sum_xl += weights[i] * x[i] * code;
      sum_l2 += weights[i] * code * code;
    }
  };
  V step = -centre / largest;
  sum(step);
  V scale = sum_l2 > zero ? sum_xl / sum_l2 : zero, best = scale * sum_xl;
  for (int t = -9; t <= 9; ++t) {
    if (t == 0) continue;
    const V tried = -(centre + 0.1f * static_cast<float>(t)) / largest;
    sum(tried);
    const auto better = (sum_l2 > zero) & (sum_xl * sum_xl > best * sum_l2);
    scale = better ? sum_xl / sum_l2 : scale;
    best = better ? scale * sum_xl : best;
    step = better ? tried : step;
  }
  const auto nothing = magnitude(largest) < splat<V>(kNothing);
  return {nothing ? zero : scale, nothing ? splat<V>(__builtin_inff()) : step};
}

/// The scale by coordinate descent over the codes, weighted by x²; `codes` receives code + half, or zeros for a group of
/// zeros.
template <int kElements, typename V>
V fit_by_descent(const V* x, int half, V* codes) {
  const V zero{}, largest = first_largest_of<kElements>(x), step = -static_cast<float>(half) / largest;
  V sum_xl{}, sum_l2{};
  for (int i = 0; i < kElements; ++i) {
    codes[i] = nearest<V>(step * x[i], -half, half - 1);
    const V weight = x[i] * x[i];
    sum_xl += weight * x[i] * codes[i];
    sum_l2 += weight * codes[i] * codes[i];
  }
  for (int pass = 0; pass < 5; ++pass) {
    for (int i = 0; i < kElements; ++i) {
      const V weight = x[i] * x[i];
      V xl = sum_xl - weight * x[i] * codes[i], l2 = sum_l2 - weight * codes[i] * codes[i];
      const V code = nearest<V>(x[i] * l2 / xl, -half, half - 1);
      auto better = (xl > zero) & (code != codes[i]);
      xl += weight * x[i] * code;
      l2 += weight * code * code;
      better = better & (l2 > zero) & (xl * xl * sum_l2 > sum_xl * sum_xl * l2);
      codes[i] = better ? code : codes[i];
      sum_xl = better ? xl : sum_xl;
      sum_l2 = better ? l2 : sum_l2;
    }
  }
  const auto nothing = magnitude(largest) < splat<V>(kNothing);
  for (int i = 0; i < kElements; ++i) codes[i] = nothing ? zero : codes[i] + static_cast<float>(half);
  return ((sum_l2 > zero) & (magnitude(largest) >= splat<V>(kNothing))) ? sum_xl / sum_l2 : zero;
}

// ---- Groups whose codes index a table: x' = scale * kValues[code] ----

/// The table of iq4_nl and iq4_xs.
constexpr int kValues[16] = {-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113};

/// Index of the value nearest to x, the upper one of two as near. Halfway points are exact in f32, as are distances near
/// them, so that comparing with them is comparing distances.
template <typename V>
IntsOf<V> nearest_index(V x) {
  IntsOf<V> index{};
  for (int k = 0; k < 15; ++k) {
    const auto above = x >= splat<V>(0.5f * static_cast<float>(kValues[k] + kValues[k + 1]));
    if constexpr (sizeof(V) == sizeof(float))
      index += above;
    else
      index -= above;
  }
  return index;
}

/// The value nearest to x.
template <typename V>
V nearest_value(V x) {
  V value = splat<V>(kValues[0]);
  for (int k = 0; k < 15; ++k) {
    const V gap = splat<V>(static_cast<float>(kValues[k + 1] - kValues[k]));
    value = value + (x >= splat<V>(0.5f * static_cast<float>(kValues[k] + kValues[k + 1])) ? gap : V{});
  }
  return value;
}

/// The scale of least weighted error among those fitted to the codes of 16 steps; 0 for a group of zeros.
template <int kElements, typename V>
V fit_to_table(const V* x, const V* weights) {
  const V zero{}, largest = first_largest_of<kElements>(x);
  V scale{}, best{}, sum_xq, sum_q2;
  const auto sum = [&](V step) {
    sum_xq = sum_q2 = zero;
    for (int i = 0; i < kElements; ++i) {
      const V q = nearest_value<V>(step * x[i]);
      sum_xq += weights[i] * q * x[i];
      sum_q2 += weights[i] * q * q;
    }
  };
  constexpr auto kFirst = static_cast<float>(kValues[0]);
  sum(1.0f / (-largest / kFirst));
  scale = sum_q2 > zero ? sum_xq / sum_q2 : zero;
  best = scale * sum_xq;
  for (int t = -7; t <= 7; ++t) {
    sum((static_cast<float>(t) + kFirst) / largest);
    const auto better = (sum_q2 > zero) & (sum_xq * sum_xq > best * sum_q2);
    scale = better ? sum_xq / sum_q2 : scale;
    best = better ? scale * sum_xq : best;
  }
  return magnitude(largest) < splat<V>(kNothing) ? zero : scale;
}

// ---- A superblock's scales: x' = scale * code, x >= 0, code in 0 … levels ----

/// The common scale of `count` values, weighted; `codes` receives their codes. A search over 9 steps, then coordinate
/// descent.
inline float fit_levels(const float* x, const float* weights, int count, int levels, float* codes) {
  constexpr int kUnbounded = -0x00400000;  // below zero nothing is clipped
  float largest = 0;
  for (int i = 0; i < count; ++i) largest = largest > x[i] ? largest : x[i];
  if (largest < kNothing) {
    for (int i = 0; i < count; ++i) codes[i] = 0;
    return 0;
  }
  const auto centre = static_cast<float>(levels);
  float step = centre / largest, least = 0;
  for (int t = -5; t <= 4; ++t) {  // -5 stands for the plain step, which comes first
    if (t == 0) continue;
    const float tried = t == -5 ? step : (0.1f * static_cast<float>(t) + centre) / largest, scale = 1.0f / tried;
    float error = 0;
    for (int i = 0; i < count; ++i) {
      const float difference = x[i] - scale * nearest<float>(tried * x[i], kUnbounded, levels);
      error += weights[i] * difference * difference;
    }
    if (t != -5 && !(error < least)) continue;
    least = error;
    step = tried;
  }
  float sum_xl = 0, sum_l2 = 0;
  for (int i = 0; i < count; ++i) {
    codes[i] = nearest<float>(step * x[i], kUnbounded, levels);
    sum_xl += weights[i] * x[i] * codes[i];
    sum_l2 += weights[i] * codes[i] * codes[i];
  }
  bool changed = true;
  for (int pass = 0; pass < 5 && changed; ++pass) {
    changed = false;
    for (int i = 0; i < count; ++i) {
      float xl = sum_xl - weights[i] * x[i] * codes[i], l2 = sum_l2 - weights[i] * codes[i] * codes[i];
      if (!(xl > 0 && l2 > 0)) continue;
      const float code = nearest<float>(x[i] * l2 / xl, kUnbounded, levels);
      if (code == codes[i]) continue;
      xl += weights[i] * x[i] * code;
      l2 += weights[i] * code * code;
      if (!(xl * xl * sum_l2 > sum_xl * sum_xl * l2)) continue;
      codes[i] = code;
      sum_xl = xl;
      sum_l2 = l2;
      changed = true;
    }
  }
  return sum_l2 > 0.0f ? sum_xl / sum_l2 : 0.0f;
}

}  // namespace
}  // namespace temper::quant
