// Arbitrary bytes as a teacher's file: what is accepted gives records of its shape, with ids of its vocabulary.
#include "fuzz_support.h"
#include "train/teacher_cache.h"

using namespace temper;

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  return fuzz::run([&] {
    const train::TeacherCache cache = train::TeacherCache::parse(fuzz::bytes(data, size), "fuzz");
    const auto k = static_cast<std::size_t>(cache.top_k());
    for (std::int64_t sequence = 0; sequence < cache.sequences(); ++sequence)
      fuzz::run([&] {
        const auto rows = cache.rows({&sequence, 1});
        fuzz::require(rows.ids.size() == rows.log_rest.size() * k && rows.log_probs.size() == rows.ids.size());
        for (const std::int32_t id : rows.ids) fuzz::require(id >= 0 && id < cache.key().vocab);
      });
  });
}
