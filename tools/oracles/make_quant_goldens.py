#!/usr/bin/env python3
"""Makes tests/data/quant/*.bin: number formats as the real packages encode and decode them.

    make_quant_goldens.py [TORCHAO_VECTORS.safetensors]

ggml.bin     rows through ggml's own ggml_quantize_chunk and to_float, called by ctypes inside the PyPI package xllamacpp.
int_sym.bin  the same rows (x of ggml.bin) through torchao's symmetric rule written out in numpy f32: scales and codes.
torchao.bin  weights and fake-quantized weights of torchao 0.18 itself (IntxFakeQuantizer, f32), copied from a vectors file with keys W
             and <scheme>.f32.{w_fq,w_scale}; kept as it is without the argument.

A file is a sequence of arrays, little endian: u32 length of name, name, u64 rows, u64 bytes, bytes.
"""
import ctypes as C
import glob
import importlib.util
import os
import struct
import sys

import numpy as np

HERE = os.path.dirname(os.path.abspath(__file__))
OUT = os.path.join(HERE, "..", "..", "tests", "data", "quant")
COLS = 256
TYPES = {"q4_0": (2, 32, 18), "q4_1": (3, 32, 20), "q5_0": (6, 32, 22), "q5_1": (7, 32, 24), "q8_0": (8, 32, 34),
         "q4_k": (12, 256, 144), "q5_k": (13, 256, 176), "q6_k": (14, 256, 210)}
# Offsets of the f16 fields of a block, which random blocks need finite.
HALVES = {"q4_0": [0], "q4_1": [0, 2], "q5_0": [0], "q5_1": [0, 2], "q8_0": [0], "q4_k": [0, 2], "q5_k": [0, 2], "q6_k": [208]}


def write(name, arrays):
    with open(os.path.join(OUT, name), "wb") as f:
        for key, a in arrays.items():
            a = np.ascontiguousarray(a)
            f.write(struct.pack("<I", len(key)) + key.encode() + struct.pack("<QQ", a.shape[0], a.nbytes) + a.tobytes())


def bf16(x):
    u = np.asarray(x, np.float32).view(np.uint32).astype(np.uint64)
    return ((((u + 0x7FFF + ((u >> 16) & 1)) >> 16) << 16).astype(np.uint32)).view(np.float32)


def rows():
    """Rows of 256: ordinary ones and every corner. All finite."""
    g = np.random.default_rng(20)
    r = []
    add = lambda x: r.append(np.asarray(np.broadcast_to(x, (COLS,)), np.float32).copy())
    for s in (0.02, 1.0, 300.0): add(g.standard_normal(COLS) * s)
    for s in (0.02, 0.5): add(bf16((g.standard_normal(COLS) * s).astype(np.float32)))
    add(0.0); add(-0.0); add(np.where(np.arange(COLS) % 2, -0.0, 0.0))
    for c in (0.7, -0.7, 1e-20, -3e-39, 1e-45, 3e38, -3.4028235e38): add(c)
    add(np.abs(g.standard_normal(COLS))); add(-np.abs(g.standard_normal(COLS)))
    add(np.clip(g.standard_normal(COLS) * 1e38, -3e38, 3e38)); add(g.standard_normal(COLS) * 1e36)
    for s in (1e-36, 1e-37, 2e-38, 1e-38, 3e-39, 1e-40, 1e-44, 1e-6, 1e-8): add((g.standard_normal(COLS) * s).astype(np.float32))
    add(g.integers(-8, 9, COLS)); add(g.integers(-127, 128, COLS)); add(g.integers(-255, 256, COLS) / 2)  # ties of codes
    add(g.integers(-15, 16, COLS) / 2); add(g.integers(-1, 2, COLS)); add(np.where(g.random(COLS) < 0.5, -1.0, 1.0))
    t = g.integers(-14, 15, COLS) / 2.0; t[::32] = -8; add(t)  # q4_0: x/d at the halves
    t = g.integers(-253, 254, COLS) / 2.0; t[::32] = 127; add(t)  # q8_0: x/d at the halves
    t = g.integers(-14, 15, COLS) / 2.0; t[::32] = 7.5; add(t)  # int4-sym: w/s at the halves
    t = g.integers(-254, 255, COLS) / 2.0; t[::32] = 127.5; add(t)  # int8-sym
    t = np.nextafter(np.float32(0.5) + g.integers(-126, 126, COLS).astype(np.float32), np.float32(0)); t[::32] = 127; add(t)
    t = g.standard_normal(COLS); t[::32] = 1e4; add(t)
    t = np.zeros(COLS); t[5::32] = -1; t[9::32] = 1; add(t); add(-t)
    for _ in range(10):  # bit patterns
        u = g.integers(0, 2**32, COLS, dtype=np.uint32)
        u[(u & 0x7F800000) == 0x7F800000] &= 0x807FFFFF
        add(u.view(np.float32))
    for _ in range(6):  # patterns of near magnitudes, with ties
        u = (g.integers(0, 4, COLS, dtype=np.uint32) << 21) + np.uint32(0x3E000000) + (g.integers(0, 2, COLS, dtype=np.uint32) << 31)
        add(u.view(np.float32))
    return np.stack(r)


class Traits(C.Structure):
    _fields_ = [("name", C.c_char_p), ("blck", C.c_int64), ("inter", C.c_int64), ("size", C.c_size_t), ("quantized", C.c_bool),
                ("to_float", C.CFUNCTYPE(None, C.c_void_p, C.POINTER(C.c_float), C.c_int64)), ("from_float", C.c_void_p)]


def load_ggml():
    folder = importlib.util.find_spec("xllamacpp").submodule_search_locations[0]
    lib = C.PyDLL(glob.glob(os.path.join(folder, "xllamacpp*.so"))[0])
    lib.ggml_quantize_chunk.restype = C.c_size_t
    lib.ggml_quantize_chunk.argtypes = [C.c_int, C.c_void_p, C.c_void_p, C.c_int64, C.c_int64, C.c_int64, C.c_void_p]
    lib.ggml_get_type_traits.restype = C.POINTER(Traits)
    lib.ggml_get_type_traits.argtypes = [C.c_int]

    class Params(C.Structure):
        _fields_ = [("mem_size", C.c_size_t), ("mem_buffer", C.c_void_p), ("no_alloc", C.c_bool)]
    lib.ggml_init.argtypes = [Params]
    lib.ggml_init.restype = C.c_void_p
    lib.ggml_init(Params(1 << 20, None, False))
    return lib


def ggml_arrays(x):
    lib = load_ggml()
    g = np.random.default_rng(21)
    out = {"x": x}
    for name, (type_id, elements, size) in TYPES.items():
        traits = lib.ggml_get_type_traits(type_id).contents
        assert (traits.blck, traits.size) == (elements, size) and traits.name.decode().lower() == name, name

        def decoded(q):
            d = np.empty((q.shape[0], COLS), np.float32)
            for i in range(q.shape[0]):
                traits.to_float(q[i].ctypes.data, d[i].ctypes.data_as(C.POINTER(C.c_float)), COLS)
            return d
        source = x if name in ("q4_0", "q8_0") else x[:5]
        q = np.zeros((source.shape[0], COLS // elements * size), np.uint8)
        lib.ggml_quantize_chunk(type_id, source.ctypes.data, q.ctypes.data, 0, source.shape[0], COLS, None)
        out[name + ".q"], out[name + ".dq"] = q, decoded(q[:12])
        noise = g.integers(0, 256, (4, COLS // elements, size), dtype=np.uint8)
        for at in HALVES[name]:
            half = noise[:, :, at:at + 2].copy().view(np.uint16)
            half[(half & 0x7C00) == 0x7C00] &= 0x83FF
            noise[:, :, at:at + 2] = half.view(np.uint8)
        noise = np.ascontiguousarray(noise.reshape(4, -1))
        out[name + ".noise.q"], out[name + ".noise.dq"] = noise, decoded(noise)
    return out


def int_sym(x, bits, group):
    f = np.float32
    w = x.reshape(x.shape[0], -1, group)
    low, high = -(2 ** (bits - 1)), 2 ** (bits - 1) - 1
    largest = np.maximum(-np.minimum(w.min(-1), f(0)), np.maximum(w.max(-1), f(0)))
    s = np.maximum(largest / f((high - low) / 2), np.finfo(f).tiny)
    q = np.clip(np.rint(w * (f(1) / s)[..., None]), low, high)
    return s, q.astype(np.int8).reshape(x.shape)


def main():
    os.makedirs(OUT, exist_ok=True)
    x = rows()
    with np.errstate(all="ignore"):
        arrays = {}
        for name, bits, group in (("int4-sym-g32", 4, 32), ("int4-sym-g128", 4, 128), ("int8-sym", 8, COLS), ("int8-sym-g32", 8, 32)):
            arrays[name + ".scale"], arrays[name + ".codes"] = int_sym(x, bits, group)
    write("int_sym.bin", arrays)
    write("ggml.bin", ggml_arrays(x))
    if len(sys.argv) > 1:
        from safetensors import safe_open
        given = safe_open(sys.argv[1], "np").get_tensor
        arrays = {"W": given("W")}
        for name, key in (("int4-sym-g32", "int8_int4_g32"), ("int8-sym", "int8_peraxis"), ("int8-sym-g32", "cactus_int8_g32")):
            arrays[name + ".scale"], arrays[name + ".dq"] = given(key + ".f32.w_scale"), given(key + ".f32.w_fq")
        write("torchao.bin", arrays)


if __name__ == "__main__":
    main()
