// What the machine can do, measured beside the operations: oneDNN's products, and loops that only move memory.
#pragma once

#include <cstdint>
#include <functional>
#include <map>

#include "library_product.h"

namespace temper::bench {

/// Median seconds of a call, after one to warm up: at least 5 calls and a tenth of a second.
double seconds_of(const std::function<void()>& body);

/// Seconds that oneDNN's matmul takes for it, on plain row-major operands, with all threads.
double onednn_seconds(const ProductShape& shape);

enum class Stream { Read, Write, Triad };

/// Bytes a second of a loop on all threads that moves `bytes` in all: reads them; writes them; or reads two thirds and
/// writes one (a = b + s·c). The same memory each time, so that what fits a cache is measured in that cache.
double stream_rate(Stream kind, double bytes);

/// The above, measured when first asked for and kept.
class Rooflines {
 public:
  double products(DType in);                 ///< FLOP/s of oneDNN's matmul at its best of a few large shapes.
  double memory(Stream kind, double bytes);  ///< stream_rate of that size, to within a factor of 2.

 private:
  std::map<DType, double> products_;
  std::map<std::pair<Stream, int>, double> memory_;
};

/// Bytes that no cache holds.
inline constexpr double kBeyondCaches = 512e6;

}  // namespace temper::bench
