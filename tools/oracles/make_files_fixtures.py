#!/usr/bin/env python3
"""Makes tests/data/files: small safetensors and GGUF files as the formats' own packages write them, and what is in them.

Needs: numpy, gguf, safetensors. Run from anywhere; the output is committed next to the tests that read it.
"""

import json
import pathlib

import gguf
import numpy as np
from safetensors.numpy import save_file

OUT = pathlib.Path(__file__).resolve().parents[2] / "tests" / "data" / "files"


def ramp(shape, dtype):
    """Values that tell every element of a tensor from every other, exact in 16-bit floats."""
    n = int(np.prod(shape))
    return (np.arange(n) - n // 2).reshape(shape).astype(dtype)


def make_safetensors():
    tensors = {
        "model.embed.weight": ramp((5, 4), np.float32),
        "model.half": ramp((2, 3), np.float16),
        "model.scalar": np.array(7.5, np.float64),
        "model.empty": np.zeros((0, 4), np.float32),
        "flags": np.array([True, False, True]),
        "ids": ramp((3,), np.int64),
        "bytes": ramp((7,), np.int8),
    }
    save_file(tensors, OUT / "mixed.safetensors", metadata={"note": "ünï"})


def make_gguf():
    writer = gguf.GGUFWriter(OUT / "mixed.gguf", "llama")
    writer.add_uint8("t.u8", 200)
    writer.add_int8("t.i8", -100)
    writer.add_uint16("t.u16", 60000)
    writer.add_int16("t.i16", -30000)
    writer.add_uint32("t.u32", 4000000000)
    writer.add_int32("t.i32", -2000000000)
    writer.add_uint64("t.u64", 1 << 63)
    writer.add_int64("t.i64", -(1 << 62))
    writer.add_float32("t.f32", 0.1)
    writer.add_float64("t.f64", 0.1)
    writer.add_bool("t.bool", True)
    writer.add_string("t.string", "grüße")
    writer.add_array("t.strings", ["a", "", "ĠĠ", "z" * 40])
    writer.add_array("t.ints", [1, -2, 3])
    writer.add_array("t.floats", [0.5, -1.5])
    writer.add_array("t.bools", [True, False, True])
    writer.add_tensor("f32", ramp((3, 5), np.float32))
    writer.add_tensor("f16", ramp((2, 2, 3), np.float16))
    writer.add_tensor("i32", ramp((4,), np.int32))
    for kind in ("Q8_0", "Q4_0"):
        raw = gguf.quants.quantize(ramp((3, 64), np.float32), gguf.GGMLQuantizationType[kind])
        writer.add_tensor(kind.lower(), raw, raw_dtype=gguf.GGMLQuantizationType[kind])
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def make_type_table():
    """Block sizes of every type that the gguf package knows."""
    table = {t.name: [int(t), elements, size] for t, (elements, size) in gguf.GGML_QUANT_SIZES.items()}
    (OUT / "ggml_types.json").write_text(json.dumps(table, indent=1) + "\n")


if __name__ == "__main__":
    OUT.mkdir(parents=True, exist_ok=True)
    make_safetensors()
    make_gguf()
    make_type_table()
