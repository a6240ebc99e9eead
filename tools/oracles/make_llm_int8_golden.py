#!/usr/bin/env python3
"""Makes tests/data/quant/llm_int8.bin: activations as bitsandbytes 0.50.2 rounds them for LLM.int8, each row a batch of one token.

x, x.bf16            rows of f32: ordinary ones, ones with outliers, corners (the threshold itself and its neighbours in f16, beyond f16,
                     f16's subnormals, ties, only outliers, zeros); the same rounded to bf16.
<of>.codes, .absmax  of int8_vectorwise_quant(row as f16, threshold 6), as MatMul8bitLt calls it; <of> is f32 or bf16.
<of>.values          int8_vectorwise_dequant of these in the dtype of x, outliers as they are: the operand of the two products that
                     int8_mixed_scaled_mm adds up.
batch.codes          of the first BATCH rows of f32 at once, where bitsandbytes exempts every column that has an outlier in some row.
"""
import os
import struct

import numpy as np
import torch
from bitsandbytes import functional as F

OUT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "tests", "data", "quant", "llm_int8.bin")
COLS, THRESHOLD, BATCH = 256, 6.0, 9


def rows():
    g = torch.Generator().manual_seed(41)
    n = lambda s: torch.randn(COLS, generator=g) * s
    few, beside, ties = n(1.0), n(1.0), torch.randint(-127, 127, (COLS,), generator=g) / 64.0 + 1 / 128
    few[[3, 77, 200]] = torch.tensor([40.0, -6.5, 900.0])
    # 5.998046875 is halfway to 6 in f16 (even), 5.9980 below it; -65520 is an infinity there, and so an outlier.
    beside[:8] = torch.tensor([6.0, -6.0, 5.998046875, 5.9980, -5.998047, 5.99609375, -65520.0, 3e38])
    ties[0] = 127 / 64
    zeros_but_outliers = torch.zeros(COLS)
    zeros_but_outliers[[9, 100]] = torch.tensor([7.0, -8.0])
    return torch.stack([n(1.0), n(0.02), n(1.5), n(5.0), few, beside, ties, n(1e-6), n(3e-8), n(1.0).sign() * 9.0 + n(0.5),
                        zeros_but_outliers, torch.zeros(COLS)])


def rounded(x):
    """Codes, absmax and values of each row alone."""
    all_codes, all_absmax, all_values = [], [], []
    for row in x:
        codes, absmax, outliers = F.int8_vectorwise_quant(row[None].to(torch.float16), threshold=THRESHOLD)
        values = torch.ops.bitsandbytes.int8_vectorwise_dequant(codes, absmax).to(x.dtype)
        values[:, outliers] = row[None][:, outliers]
        all_codes.append(codes), all_absmax.append(absmax), all_values.append(values)
    return torch.cat(all_codes), torch.cat(all_absmax)[:, None], torch.cat(all_values)


def main():
    x = rows()
    arrays = {"x": x, "x.bf16": x.to(torch.bfloat16)}
    for name, values in (("f32", x), ("bf16", arrays["x.bf16"])):
        for part, array in zip(("codes", "absmax", "values"), rounded(values)):
            arrays[f"{name}.{part}"] = array
    batch, absmax, outliers = F.int8_vectorwise_quant(x[:BATCH].to(torch.float16), threshold=THRESHOLD)
    # What docs/schemes.md says: a batch differs from its tokens alone in whole columns, and in nothing else.
    others = torch.ones(COLS, dtype=torch.bool)
    others[outliers] = False
    assert 100 < others.sum() < COLS and not batch[:, outliers].any()
    assert torch.equal(batch[:, others], arrays["f32.codes"][:BATCH, others])
    assert torch.equal(absmax[:, None], arrays["f32.absmax"][:BATCH])
    arrays["batch.codes"] = batch
    with open(OUT, "wb") as f:
        for name, a in arrays.items():
            a = np.ascontiguousarray((a.view(torch.int16) if a.dtype == torch.bfloat16 else a).numpy())
            f.write(struct.pack("<I", len(name)) + name.encode() + struct.pack("<QQ", a.shape[0], a.nbytes) + a.tobytes())


if __name__ == "__main__":
    main()
