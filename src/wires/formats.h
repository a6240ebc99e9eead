// The wires, one function each: what the registry is made of.
#pragma once

#include "wires/wire.h"

namespace temper::wires {

// const Wire& torchao(); … each in a file of its own, and in the table of registry.cpp.

}  // namespace temper::wires
