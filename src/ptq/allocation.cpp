#include "ptq/allocation.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include "base/error.h"

namespace temper::ptq {
namespace {

std::uint64_t smallest_of(const std::vector<Choice>& choices) {
  return std::ranges::min_element(choices, {}, &Choice::bytes)->bytes;
}

std::uint64_t units_of(std::uint64_t bytes, std::uint64_t unit) { return (bytes + unit - 1) / unit; }

}  // namespace

Frontier::Frontier(std::span<const std::vector<Choice>> tensors) : tensors_(tensors.begin(), tensors.end()) {
  std::uint64_t divisor = 0;
  for (const std::vector<Choice>& choices : tensors_) {
    if (choices.empty() || choices.size() > 255) throw LogicError("allocation: {} choices for a tensor", choices.size());
    const std::uint64_t least = smallest_of(choices);
    std::uint64_t most = least;
    for (const Choice& choice : choices) {
      if (!std::isfinite(choice.cost)) throw LogicError("allocation: a cost that is not finite");
      divisor = std::gcd(divisor, choice.bytes - least);
      most = std::max(most, choice.bytes);
    }
    smallest_ += least;
    largest_ += most;
  }
  const std::uint64_t span = largest_ - smallest_;
  unit_ = std::max<std::uint64_t>(1, divisor);
  if (span / unit_ > kMaxUnits) unit_ = units_of(span, kMaxUnits);
  units_ = static_cast<std::size_t>(span / unit_);

  // best[u]: smallest cost of the tensors so far in u units above their smallest bytes.
  const std::size_t states = units_ + 1;
  std::vector<double> best(states, 0.0), next(states);
  picks_.resize(tensors_.size() * states);
  for (std::size_t t = 0; t < tensors_.size(); ++t) {
    const std::uint64_t least = smallest_of(tensors_[t]);
    std::vector<std::size_t> order(tensors_[t].size());
    std::iota(order.begin(), order.end(), std::size_t{0});
    std::ranges::stable_sort(order, {}, [&](std::size_t c) { return tensors_[t][c].bytes; });
    std::ranges::fill(next, std::numeric_limits<double>::infinity());
    for (const std::size_t c : order) {
      const std::uint64_t used = units_of(tensors_[t][c].bytes - least, unit_);
      for (std::size_t u = used; u < states; ++u) {
        const double cost = best[u - used] + tensors_[t][c].cost;
        if (!(cost < next[u])) continue;
        next[u] = cost;
        picks_[t * states + u] = static_cast<std::uint8_t>(c);
      }
    }
    best.swap(next);
  }
}

Allocation Frontier::within(std::uint64_t budget) const {
  if (budget < smallest_)
    throw BadRecipe("a budget of {} bytes: the smallest formats to choose from take {} bytes", budget, smallest_);
  const std::size_t states = units_ + 1;
  std::size_t left = std::min<std::uint64_t>(units_, (budget - smallest_) / unit_);
  Allocation out;
  out.chosen.resize(tensors_.size());
  for (std::size_t t = tensors_.size(); t-- > 0;) {
    const std::size_t pick = picks_[t * states + left];
    const Choice& choice = tensors_[t][pick];
    out.chosen[t] = pick;
    out.bytes += choice.bytes;
    left -= units_of(choice.bytes - smallest_of(tensors_[t]), unit_);
  }
  for (std::size_t t = 0; t < tensors_.size(); ++t) out.cost += tensors_[t][out.chosen[t]].cost;
  return out;
}

}  // namespace temper::ptq
