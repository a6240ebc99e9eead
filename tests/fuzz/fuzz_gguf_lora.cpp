// Arbitrary bytes as a GGUF LoRA of a small model: what is accepted has every adapter finite in number and place.
#include "export/gguf_lora.h"
#include "fuzz_support.h"

using namespace temper;

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  static const model::TensorTable table = [] {
    model::ArchSpec arch;
    arch.hidden_size = 8;
    arch.intermediate_size = 12;
    arch.num_layers = 1;
    arch.num_heads = 2;
    arch.num_kv_heads = 1;
    arch.head_dim = 4;
    arch.vocab_size = 11;
    arch.tied = true;
    return model::TensorTable(arch);
  }();
  return fuzz::run([&] {
    const auto file = files::GgufFile::parse(fuzz::bytes(data, size), "fuzz");
    const model::Adapters adapters = exporter::read_gguf_lora(table, file);
    fuzz::require(2 * adapters.entries().size() == file.tensors().size());
  });
}
