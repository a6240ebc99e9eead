// Arbitrary bytes as a safetensors file: what is accepted lies within the bytes and covers them once.
#include "files/safetensors.h"
#include "fuzz_support.h"

using namespace temper;

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  return fuzz::run([&] {
    const auto file = files::SafetensorsFile::parse(fuzz::bytes(data, size), "fuzz");
    std::size_t total = 0;
    for (const auto& tensor : file.tensors()) {
      fuzz::require(tensor.data.size() == static_cast<std::size_t>(tensor.shape.numel()) * dtype_size(tensor.dtype));
      fuzz::require(file.find(tensor.name) == &tensor);
      total += fuzz::touch(tensor.data);
    }
    fuzz::require(total <= size);
  });
}
