// Conversions, sums, norms and rotations: one pass over each row.
#include "ops/cpu/kernels/local.h"
#include "ops/cpu/kernels/philox.h"

namespace temper::ops::cpu::TEMPER_KERNEL_NS {

void convert(Rows in, Rows out, Index rows, Index cols) {
  with_storage(in.type, [&](auto* in_tag) {
    with_storage(out.type, [&](auto* out_tag) {
      for (Index r = 0; r < rows; ++r) {
        const auto* x = row_of<TEMPER_TYPE(in_tag)>(in, r);
        auto* y = row_of<TEMPER_TYPE(out_tag)>(out, r);
        for_columns(cols, [&](Index c, auto get, auto put) { put(y + c, get(x + c)); });
      }
    });
  });
}

void scaled_copy(const float* in, Index in_stride, Rows out, Index rows, Index cols, float alpha, bool accumulate) {
  const Vec factor(alpha);
  with_activation(out.type, [&](auto* tag) {
    for (Index r = 0; r < rows; ++r) {
      const float* x = in + r * in_stride;
      auto* y = row_of<TEMPER_TYPE(tag)>(out, r);
      for_columns(cols, [&](Index c, auto get, auto put) {
        const Vec value = get(x + c) * factor;
        put(y + c, accumulate ? get(y + c) + value : value);
      });
    }
  });
}

void add(Rows a, Rows b, Rows out, Index rows, Index cols) {
  with_activation(b.type, [&](auto* tag) {
    for (Index r = 0; r < rows; ++r) {
      const float* x = row_of<float>(a, r);
      const auto* y = row_of<TEMPER_TYPE(tag)>(b, r);
      float* z = row_of<float>(out, r);
      for_columns(cols, [&](Index c, auto get, auto put) { put(z + c, get(x + c) + get(y + c)); });
    }
  });
}

void scale(float* x, Index n, float factor) {
  const Vec f(factor);
  for_columns(n, [&](Index c, auto get, auto put) { put(x + c, get(x + c) * f); });
}

void rmsnorm(Rows x, const float* weight, float eps, Rows y, float* rstd, Index rows, Index cols) {
  with_activation(y.type, [&](auto* tag) {
    for (Index r = 0; r < rows; ++r) {
      const float* in = row_of<float>(x, r);
      auto* out = row_of<TEMPER_TYPE(tag)>(y, r);
      Vec squares(0.0f);
      for_columns(cols, [&](Index c, auto get, auto) {
        const Vec v = get(in + c);
        squares = multiply_add(v, v, squares);
      });
      rstd[r] = 1.0f / __builtin_sqrtf(sum(squares) / static_cast<float>(cols) + eps);
      const Vec factor(rstd[r]);
      for_columns(cols, [&](Index c, auto get, auto put) { put(out + c, get(in + c) * factor * get(weight + c)); });
    }
  });
}

/// With x̂ = x·rstd and g = dy·weight: dx = rstd · (g − x̂ · mean(g·x̂)).
void rmsnorm_backward(Rows dy, Rows x, const float* weight, const float* rstd, Rows dx, Index rows, Index cols) {
  for (Index r = 0; r < rows; ++r) {
    const float *g = row_of<float>(dy, r), *in = row_of<float>(x, r);
    float* out = row_of<float>(dx, r);
    Vec products(0.0f);
    for_columns(cols, [&](Index c, auto get, auto) {
      products = multiply_add(get(g + c) * get(weight + c), get(in + c), products);
    });
    const Vec factor(rstd[r]), mean(sum(products) * rstd[r] * rstd[r] / static_cast<float>(cols));
    for_columns(cols, [&](Index c, auto get, auto put) {
      put(out + c, get(out + c) + factor * (get(g + c) * get(weight + c) - get(in + c) * mean));
    });
  }
}

void rmsnorm_dweight(Rows dy, Rows x, const float* rstd, float* dweight, Index rows, Index cols) {
  for (Index r = 0; r < rows; ++r) {
    const float *g = row_of<float>(dy, r), *in = row_of<float>(x, r);
    const Vec factor(rstd[r]);
    for_columns(cols, [&](Index c, auto get, auto put) {
      put(dweight + c, multiply_add(get(g + c), get(in + c) * factor, get(dweight + c)));
    });
  }
}

void scale_columns(Rows x, const float* row, Rows out, Index rows, Index cols) {
  with_activation(x.type, [&](auto* in_tag) {
    with_activation(out.type, [&](auto* out_tag) {
      for (Index r = 0; r < rows; ++r) {
        const auto* in = row_of<TEMPER_TYPE(in_tag)>(x, r);
        auto* y = row_of<TEMPER_TYPE(out_tag)>(out, r);
        for_columns(cols, [&](Index c, auto get, auto put) { put(y + c, get(in + c) * get(row + c)); });
      }
    });
  });
}

void dropout(Rows x, Rows out, Index rows, Index cols, const Dropout& d) {
  constexpr Index kGroup = 4 * kLanes;  // what sixteen counters serve
  const Vec factor(1.0f / (1.0f - d.p));
  const std::uint32_t least = static_cast<std::uint32_t>(static_cast<double>(d.p) * 0x1p32);
  with_activation(x.type, [&](auto* tag) {
    for (Index r = 0; r < rows; ++r) {
      const auto* in = row_of<TEMPER_TYPE(tag)>(x, r);
      auto* kept = row_of<TEMPER_TYPE(tag)>(out, r);
      const std::uint64_t first = static_cast<std::uint64_t>((d.first_row + r) * ((cols + kGroup - 1) / kGroup));
      Words draws[4];
      for_columns(cols, [&](Index c, auto get, auto put) {
        if (c % kGroup == 0) philox(d.seed, d.stream, (first + static_cast<std::uint64_t>(c / kGroup)) * kLanes, draws);
        Vec y = get(in + c) * factor;
        for (int p = 0; p < kParts; ++p)
          y.part[p] = (NativeF)((NativeU)y.part[p] & (NativeU)(draws[c / kLanes % 4].part[p] >= least));
        put(kept + c, y);
      });
    }
  });
}

void rope(Rows x, Index heads, Index head_dim, Index half, const std::int32_t* positions, Rows cos, Rows sin, bool inverse,
          Index rows) {
  const Vec direction(inverse ? -1.0f : 1.0f);
  with_activation(x.type, [&](auto* tag) {
    for (Index r = 0; r < rows; ++r) {
      const float *cosine = row_of<float>(cos, positions[r]), *sine = row_of<float>(sin, positions[r]);
      for (Index h = 0; h < heads; ++h) {
        auto* low = row_of<TEMPER_TYPE(tag)>(x, r) + h * head_dim;
        auto* high = low + half;
        for_columns(half, [&](Index c, auto get, auto put) {
          const Vec a = get(low + c), b = get(high + c), k = get(cosine + c), s = get(sine + c) * direction;
          put(low + c, a * k - b * s);
          put(high + c, b * k + a * s);
        });
      }
    }
  });
}

}  // namespace temper::ops::cpu::TEMPER_KERNEL_NS
