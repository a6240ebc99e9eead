// The wires, one function each: what the registry is made of.
#pragma once

#include "wires/wire.h"

namespace temper::wires {

// Each in a file of its own, and in the table of registry.cpp.
const Wire& torchao_wire();

}  // namespace temper::wires
