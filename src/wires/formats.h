// The wires, one function each: what the registry is made of.
#pragma once

#include "wires/wire.h"

namespace temper::wires {

// Each in a file of its own, and in the table of registry.cpp.
const Wire& torchao_wire();
const Wire& compressed_tensors_wire();
const Wire& bitsandbytes_wire();
const Wire& gptq_wire();     ///< Zero points less one, as "gptq" stores them.
const Wire& gptq_v2_wire();  ///< Zero points as they are.
const Wire& awq_wire();

}  // namespace temper::wires
