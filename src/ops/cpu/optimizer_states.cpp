#include "ops/cpu/optimizer_states.h"

#include <array>
#include <cstring>

#include "base/parallel.h"
#include "quant/dynamic_map.h"

namespace temper::ops::cpu {
namespace {

const quant::DynamicMap& map_of(const StatePart& part) {
  return part.is_signed ? quant::signed_dynamic_map() : quant::unsigned_dynamic_map();
}

void widen(const StatePart& part, Index begin, Index n, float* out) {
  const auto size = static_cast<std::size_t>(n);
  switch (part.state.values.dtype) {
    case DType::BF16: {
      const bf16* in = part.state.values.as<bf16>() + begin;
      for (std::size_t i = 0; i < size; ++i) out[i] = to_float(in[i]);
      break;
    }
    case DType::U8:
      quant::decode_block(map_of(part), {part.state.values.as<std::uint8_t>() + begin, size},
                          part.state.absmax.as<float>()[begin / kStateBlock], {out, size});
      break;
    default: std::memcpy(out, part.state.values.as<float>() + begin, size * sizeof(float));
  }
}

void narrow(const Kernels& kernels, const StatePart& part, Index begin, Index n, const float* in, std::uint64_t stream,
            const StateDraws& draws) {
  const auto size = static_cast<std::size_t>(n);
  switch (part.state.values.dtype) {
    case DType::BF16:
      kernels.stochastic_bf16(in, reinterpret_cast<std::uint16_t*>(part.state.values.as<bf16>() + begin), n, draws.seed,
                              stream, draws.first + static_cast<std::uint64_t>(begin / 8));
      break;
    case DType::U8:
      part.state.absmax.as<float>()[begin / kStateBlock] =
          quant::encode_block(map_of(part), {in, size}, {part.state.values.as<std::uint8_t>() + begin, size});
      break;
    default: std::memcpy(part.state.values.as<float>() + begin, in, size * sizeof(float));
  }
}

}  // namespace

void step_blocks(const Kernels& kernels, Index parameters, std::initializer_list<StatePart> states, std::int64_t step_number,
                 const StateDraws& draws, const std::function<void(Index, Index, float* const*)>& step) {
  const Index blocks = (parameters + kStateBlock - 1) / kStateBlock;
  parallel_for(blocks, 64, [&](Index first, Index last) {
    std::array<std::array<float, kStateBlock>, 2> values;
    float* const widened[] = {values[0].data(), values[1].data()};
    for (Index block = first; block < last; ++block) {
      const Index begin = block * kStateBlock, n = std::min(kStateBlock, parameters - begin);
      std::size_t s = 0;
      for (const StatePart& part : states) widen(part, begin, n, widened[s++]);
      step(begin, n, widened);
      s = 0;
      for (const StatePart& part : states) {
        narrow(kernels, part, begin, n, widened[s], 2 * static_cast<std::uint64_t>(step_number) + s, draws);
        ++s;
      }
    }
  });
}

}  // namespace temper::ops::cpu
