#!/usr/bin/env python3
"""Makes tests/data/quant/ggml_encode.bin: rows in every GGUF format as ggml encodes them, without and with importance weights.

    make_ggml_encode_goldens.py [ROWS [FOLDER]]     more random rows, elsewhere: for a longer check by hand

ggml's own ggml_quantize_chunk is called by ctypes inside the PyPI package xllamacpp. The file's form is that of make_quant_goldens.py:
x [rows, 512] f32, importance [1, 512] f32; per type T.q and T.dq, and T.im.q where importance changes the bytes.
"""
import ctypes as C
import os
import sys

import numpy as np

import make_quant_goldens as base

COLS = 512
TYPES = {"q4_0": 2, "q4_1": 3, "q5_0": 6, "q5_1": 7, "q2_k": 10, "q3_k": 11, "q4_k": 12, "q5_k": 13, "q6_k": 14, "iq4_nl": 20, "iq4_xs": 23,
         "tq1_0": 34, "tq2_0": 35, "mxfp4": 39, "nvfp4": 40}
UNWEIGHTED = ("tq1_0", "tq2_0", "mxfp4", "nvfp4")


def rows(extra):
    g = np.random.default_rng(30)
    r = []
    add = lambda x: r.append(np.asarray(np.broadcast_to(x, (COLS,)), np.float32).copy())
    add(g.standard_normal(COLS) * 0.02)
    add(base.bf16((g.standard_normal(COLS) * 0.5).astype(np.float32)))
    add(np.abs(g.standard_normal(COLS)) * 3); add(-np.abs(g.standard_normal(COLS)))  # one-sided
    add(0.0)
    add(np.where(np.arange(COLS) < 300, 0.0, g.standard_normal(COLS)))  # groups of zeros beside others
    add(np.repeat(g.standard_normal(COLS // 16), 16))  # constant groups
    add(g.standard_normal(COLS) * np.repeat(10.0 ** g.uniform(-6, 2, COLS // 16), 16))  # groups too small for the shared scale
    add(g.standard_normal(COLS) * 1e-9); add(g.standard_normal(COLS) * 1e-16); add(g.standard_normal(COLS) * 3e-39)
    add(g.standard_normal(COLS) * 2e3); add(g.standard_normal(COLS) * 1e6)
    add(g.integers(-8, 8, COLS) / 8.0)  # ties
    add(g.integers(0, 14, COLS) * 0.013 - 0.08)  # few values, as an already quantized model has
    t = g.standard_normal(COLS) * 0.01; t[g.integers(0, COLS, 9)] = 3; add(t)  # outliers
    for _ in range(extra):
        kind = g.integers(0, 5)
        t = g.standard_normal(COLS) * 10.0 ** g.uniform(-4, 1)
        if kind == 1: t *= np.repeat(10.0 ** g.uniform(-2, 1, COLS // 16), 16)
        if kind == 2: t = np.round(t / np.abs(t).max() * 20) / 20
        if kind == 3: t = base.bf16(t.astype(np.float32))
        if kind == 4: t = g.standard_t(2, COLS) * 0.02
        add(t)
    return np.stack(r)


def main():
    extra = int(sys.argv[1]) if len(sys.argv) > 1 else 0
    if len(sys.argv) > 2: base.OUT = sys.argv[2]
    lib = base.load_ggml()
    x = rows(extra)
    importance = (np.random.default_rng(31).gamma(0.6, 2.0, (1, COLS)) + 1e-4).astype(np.float32)
    importance[0, 64:80] = 0.0  # columns that calibration never saw
    out = {"x": x, "importance": importance}
    for name, type_id in TYPES.items():
        traits = lib.ggml_get_type_traits(type_id).contents
        for suffix, weights in (("", None), (".im", importance.ctypes.data)):
            if weights and name in UNWEIGHTED: continue
            q = np.zeros((x.shape[0], COLS // traits.blck * traits.size), np.uint8)
            lib.ggml_quantize_chunk(type_id, x.ctypes.data, q.ctypes.data, 0, x.shape[0], COLS, weights)
            out[name + suffix + ".q"] = q
    write = {key: value for key, value in out.items()}
    for name in ("q2_k", "q3_k", "iq4_nl", "iq4_xs", "tq1_0", "tq2_0", "mxfp4", "nvfp4"):  # decoding of the others is in ggml.bin
        traits, q = lib.ggml_get_type_traits(TYPES[name]).contents, out[name + ".q"]
        dq = np.empty((4, COLS), np.float32)
        for i in range(4):
            traits.to_float(q[i].ctypes.data, dq[i].ctypes.data_as(C.POINTER(C.c_float)), COLS)
        write[name + ".dq"] = dq
    base.write("ggml_encode.bin", write)


if __name__ == "__main__":
    main()
