// An architecture from arbitrary bytes: a GGUF file's metadata where they begin like one, else a config.json.
#include "files/gguf.h"
#include "files/json.h"
#include "fuzz_support.h"
#include "model/arch.h"

using namespace temper;

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  return fuzz::run([&] {
    if (fuzz::text(data, size).starts_with("GGUF")) {
      model::arch_from_gguf(files::GgufFile::parse(fuzz::bytes(data, size), "fuzz"));
    } else {
      model::arch_from_hf_config(files::parse_json(fuzz::text(data, size), "fuzz", {.max_bytes = 1 << 20}), "fuzz");
    }
  });
}
