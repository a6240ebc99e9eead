#!/usr/bin/env python3
"""Makes src/quant/iq_grids.cpp from the gguf package, and tests/data/quant/ggml_iq.bin: blocks of the IQ formats with what ggml decodes
them to (ggml's own to_float inside xllamacpp; see make_quant_goldens.py for the file's form)."""
import ctypes as C
import os

import numpy as np
from gguf import quants

import make_quant_goldens as base

SOURCE = os.path.join(base.HERE, "..", "..", "src", "quant", "iq_grids.cpp")
GRIDS = {"kIq2XxsGrid": quants.IQ2_XXS, "kIq2XsGrid": quants.IQ2_XS, "kIq2SGrid": quants.IQ2_S, "kIq3XxsGrid": quants.IQ3_XXS,
         "kIq3SGrid": quants.IQ3_S, "kIq1Grid": quants.IQ1_S}
TYPES = {"iq2_xxs": (16, 66, [0]), "iq2_xs": (17, 74, [0]), "iq3_xxs": (18, 98, [0]), "iq1_s": (19, 50, [0]), "iq3_s": (21, 110, [0]),
         "iq2_s": (22, 82, [0]), "iq1_m": (29, 56, [])}


def write_grids():
    with open(SOURCE, "w") as f:
        f.write("// Grids of the IQ formats, made by tools/oracles/make_iq_grids.py from the gguf package; see iq_grids.h.\n"
                '#include "quant/iq_grids.h"\n\nnamespace temper::quant {\n\n// clang-format off\n')
        for name, source in GRIDS.items():
            source.init_grid()
            grid = source.grid.reshape(source.grid_shape).astype(int)
            bits = 2 if len(source.grid_map) == 3 else 3
            index = {value: i for i, value in enumerate(source.grid_map)}
            packed = [sum(index[v] << bits * i for i, v in enumerate(row)) for row in grid]
            f.write(f"const std::uint16_t {name}[{len(packed)}] = {{\n")
            for i in range(0, len(packed), 17): f.write("    " + " ".join(f"{p}," for p in packed[i:i + 17]) + "\n")
            f.write("};\n")
        f.write("// clang-format on\n\n}  // namespace temper::quant\n")


def main():
    write_grids()
    lib = base.load_ggml()
    g = np.random.default_rng(40)
    out = {}
    for name, (type_id, size, halves) in TYPES.items():
        traits = lib.ggml_get_type_traits(type_id).contents
        assert (traits.blck, traits.size) == (256, size), name
        q = g.integers(0, 256, (4, size), dtype=np.uint8)
        for at in halves:
            half = q[:, at:at + 2].copy().view(np.uint16)
            half[(half & 0x7C00) == 0x7C00] &= 0x83FF
            q[:, at:at + 2] = half.view(np.uint8)
        if name == "iq1_m": q[:, -1] &= 0xBF  # the top of the f16 scale: finite
        dq = np.empty((4, 256), np.float32)
        for i in range(4): traits.to_float(q[i].ctypes.data, dq[i].ctypes.data_as(C.POINTER(C.c_float)), 256)
        assert np.isfinite(dq).all(), name
        out[name + ".q"], out[name + ".dq"] = np.ascontiguousarray(q), dq
    base.write("ggml_iq.bin", out)


main()
