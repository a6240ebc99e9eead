// Gate functions of gated linear units.
#pragma once

namespace temper::ops {

/// What a gated linear unit passes its gate through (Shazeer 2020): SiLU, or GELU in its tanh form.
enum class Gate { Silu, GeluTanh };

}  // namespace temper::ops
