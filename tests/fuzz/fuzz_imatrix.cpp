// Arbitrary bytes as an importance matrix, in either format: what is accepted has counts that divide its sums.
#include "fuzz_support.h"
#include "ptq/imatrix.h"

using namespace temper;

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  return fuzz::run([&] {
    const ptq::ImportanceMatrix matrix = ptq::parse_imatrix(fuzz::bytes(data, size), "fuzz");
    std::size_t total = 0;
    for (const auto& [name, entry] : matrix.entries) {
      total += name.size() + entry.sums.size() * sizeof(float);
      fuzz::require(!entry.counts.empty() && entry.sums.size() % entry.counts.size() == 0);
      fuzz::run([&] { matrix.importance(name, static_cast<std::int64_t>(entry.sums.size())); });
    }
    fuzz::require(total <= size);
  });
}
