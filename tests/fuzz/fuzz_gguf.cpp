// Arbitrary bytes as a GGUF file: what is accepted lies within the bytes, and every getter answers or says why not.
#include "files/gguf.h"
#include "fuzz_support.h"

using namespace temper;

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  return fuzz::run([&] {
    const auto file = files::GgufFile::parse(fuzz::bytes(data, size), "fuzz");
    for (const auto& pair : file.values()) {
      const std::string_view key = pair.key;
      fuzz::run([&] { file.get_u32(key); });
      fuzz::run([&] { file.get_u64(key); });
      fuzz::run([&] { file.get_f32(key); });
      fuzz::run([&] { file.get_bool(key); });
      fuzz::run([&] { fuzz::require(file.get_string(key).size() <= size); });
      fuzz::run([&] { fuzz::require(file.get_string_array(key).size() <= size); });
      fuzz::run([&] { fuzz::require(file.get_int_array(key).size() <= size); });
      fuzz::run([&] { fuzz::require(file.get_f32_array(key).size() <= size); });
    }
    std::size_t total = 0;
    for (const auto& tensor : file.tensors()) {
      fuzz::require(file.find(tensor.name) == &tensor);
      total += fuzz::touch(tensor.data);
    }
    fuzz::require(total <= size);
  });
}
