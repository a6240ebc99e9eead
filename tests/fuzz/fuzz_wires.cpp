// A quantized checkpoint from arbitrary bytes: a line of JSON (quantization_config) and a safetensors file. Every matrix
// that is described is unpacked, to rows of the length that its format has.
#include <nlohmann/json.hpp>

#include "files/json.h"
#include "files/safetensors.h"
#include "fuzz_support.h"
#include "wires/wire.h"

using namespace temper;

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  return fuzz::run([&] {
    const std::string_view text = fuzz::text(data, size);
    const std::size_t line = text.find('\n');
    if (line == std::string_view::npos) return;
    const files::Json config = files::parse_json(text.substr(0, line), "fuzz", {.max_bytes = 1 << 16});
    const auto file = files::SafetensorsFile::parse(fuzz::bytes(data + line + 1, size - line - 1), "fuzz");
    const wires::Wire& wire = wires::wire_of(config, "fuzz");
    const auto find = [&](std::string_view name) { return file.find(name); };
    for (const quant::Role role : {quant::Role::Linear, quant::Role::Embedding}) {
      wires::Matrix matrix{"m.weight", role, 8, 64};
      wire.describe(matrix, config, file.metadata(), find);
      if (!matrix.codec) continue;
      const std::vector<std::byte> encoded = wire.unpack(matrix, find);
      fuzz::require(encoded.size() == 8 * matrix.codec->row_bytes(64));
      std::vector<float> decoded(8 * 64);
      matrix.codec->decode_rows(encoded, TensorView(decoded.data(), DType::F32, {8, 64}));
    }
  });
}
