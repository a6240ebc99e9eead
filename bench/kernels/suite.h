// Measures operations one by one, each against its roofline.
#pragma once

#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "roofline.h"
#include "tensor/exec_context.h"
#include "tensor/tensor.h"

namespace temper::bench {

/// SmolLM2-135M, whose shapes are measured, with 2048 tokens a step.
inline constexpr std::int64_t kTokens = 2048, kHidden = 576, kInner = 1536, kKv = 192, kHeads = 9, kKvHeads = 3,
                              kHeadDim = 64, kVocab = 49152, kRank = 16;

struct Row {
  std::string op, shape;
  double seconds = 0, flops = 0, bytes = 0;  ///< A call's; the work that the op's definition asks for.
  std::string roof;                          ///< What bounds it: "oneDNN", "products", "f32", "memory", "reading".
  double roof_seconds = 0;
};

class Suite {
 public:
  /// `filter`: part of "op shape"; what does not have it is not measured.
  explicit Suite(std::string filter);

  const ExecContext& ctx() const { return ctx_; }
  const std::vector<Row>& rows() const { return rows_; }
  Rooflines& rooflines() { return rooflines_; }

  bool wants(const std::string& op, const std::string& shape) const {
    return (op + " " + shape).find(filter_) != std::string::npos;
  }
  /// Formats measured: those that the filter names, or, where it names none, a few that stand for their families.
  bool wants_format(std::string_view name) const;
  /// A product, against oneDNN's of the same shape.
  void product(const std::string& op, const std::string& shape, const ProductShape& roof, const std::function<void()>& body);
  /// An op whose arithmetic could go at the rate of products of dtype `arithmetic`, and whose operands have to be moved:
  /// the slower of both is its roofline. `body` calls ops; what they count is what is counted.
  void op(const std::string& op, const std::string& shape, DType arithmetic, const std::function<void()>& body);
  /// One that reads `bytes` which no cache holds.
  void reading(const std::string& op, const std::string& shape, double bytes, const std::function<void()>& body);

 private:
  Row measure(const std::string& op, const std::string& shape, const std::function<void()>& body);

  std::string filter_;
  Arena arena_;
  ExecContext ctx_;
  Rooflines rooflines_;
  std::vector<Row> rows_;
};

Tensor random_tensor(DType dtype, std::int64_t rows, std::int64_t cols);

void measure_products(Suite& suite);  ///< Of a training step, and of generation.
void measure_attention(Suite& suite);
void measure_pointwise(Suite& suite);  ///< Norms, rotary embedding, activation, residual, optimizer, loss.
void measure_weights(Suite& suite);    ///< Merge, and encode and decode in every format.

}  // namespace temper::bench
