// Arbitrary bytes as an importance matrix, in either format: what is accepted has counts that divide its sums.
#include "fuzz_support.h"
#include "ptq/imatrix.h"

using namespace temper;

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  return fuzz::run([&] {
    const ptq::ImportanceMatrix matrix = ptq::parse_imatrix(fuzz::bytes(data, size), "fuzz");
    std::size_t total = 0;
    for (const auto& item : matrix.entries) {
      const auto& sums = item.second.sums;
      const auto& counts = item.second.counts;
      total += item.first.size() + sums.size() * sizeof(float);
      fuzz::require(!counts.empty() && sums.size() % counts.size() == 0);
      fuzz::run([&] { matrix.importance(item.first, static_cast<std::int64_t>(sums.size())); });
    }
    fuzz::require(total <= size);
  });
}
