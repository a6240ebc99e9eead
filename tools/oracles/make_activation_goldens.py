#!/usr/bin/env python3
"""Makes tests/data/quant/activations.bin: activations as torchao 0.18 rounds them, row by row.

    make_activation_goldens.py FAKE_QUANTIZERS.safetensors

x            rows of f32: those of the file given (X), ordinary ones, corners, and one of zeros.
<name>.f32, <name>.bf16   x, and x rounded to bf16, through torchao: int8-asym by IntxFakeQuantizer (per token), fp8-e4m3 by
             Float8FakeQuantizer (per row), int8-symeps by Int8Tensor (per row), mxfp8-e4m3 and mxfp4 by MXTensor (RCEIL), nvfp4 and
             nvfp4-local by NVFP4Tensor with the tensor scale of each row alone, and without one. A row of zeros is NaN in torchao's
             fp8 and in nvfp4; it is stored as torchao gives it. The first rows of int8-asym and fp8-e4m3 are checked against the file.
"""
import os
import struct
import sys

import numpy as np
import torch
from safetensors.torch import load_file
from torchao.prototype.mx_formats.config import ScaleCalculationMode
from torchao.prototype.mx_formats.mx_tensor import MXTensor
from torchao.prototype.mx_formats.nvfp4_tensor import NVFP4Tensor, per_tensor_amax_to_scale
from torchao.quantization import PerRow
from torchao.quantization.qat.fake_quantize_config import Float8FakeQuantizeConfig, IntxFakeQuantizeConfig
from torchao.quantization.qat.fake_quantizer import FakeQuantizerBase
from torchao.quantization.quantize_.workflows import Int8Tensor

OUT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "tests", "data", "quant", "activations.bin")


def rows(given):
    g = torch.Generator().manual_seed(31)
    n = lambda s: torch.randn(256, generator=g) * s
    spike = n(1.0)
    spike[77] = 900.0
    ties = torch.randint(-255, 256, (256,), generator=g) / 2.0
    ties[0], ties[1] = 127.5, -127.5
    return torch.stack([*given.reshape(-1, 256), n(0.02), n(30.0), spike, n(1.0).abs(), -n(1.0).abs(), ties,
                        torch.full((256,), 0.7), n(1e-6), torch.zeros(256)])


def by_rows(fn):
    return lambda x: torch.cat([fn(row[None]) for row in x])


def nvfp4(x):
    scale = per_tensor_amax_to_scale(x.float().abs().max())
    return NVFP4Tensor.to_nvfp4(x, per_tensor_scale=scale).dequantize(x.dtype)


def mx(element):
    return lambda x: MXTensor.to_mx(x, element, 32, ScaleCalculationMode.RCEIL).dequantize(x.dtype)


def main():
    given = load_file(sys.argv[1])
    x = rows(given["X"])
    asym = FakeQuantizerBase.from_config(IntxFakeQuantizeConfig(torch.int8, "per_token", is_symmetric=False, scale_precision=None))
    fp8 = FakeQuantizerBase.from_config(Float8FakeQuantizeConfig(granularity=PerRow()))
    formats = {
        "int8-asym": asym, "fp8-e4m3": fp8,
        "int8-symeps": lambda v: Int8Tensor.from_hp(v, granularity=PerRow()).dequantize(),
        "mxfp8-e4m3": mx(torch.float8_e4m3fn), "mxfp4": mx(torch.float4_e2m1fn_x2),
        "nvfp4": by_rows(nvfp4), "nvfp4-local": lambda v: NVFP4Tensor.to_nvfp4(v).dequantize(v.dtype),
    }
    arrays = {"x": x}
    for name, fn in formats.items():
        for dtype, suffix in ((torch.float32, "f32"), (torch.bfloat16, "bf16")):
            out = fn(x.to(dtype)).detach()
            assert out.dtype == dtype, (name, out.dtype)
            arrays[f"{name}.{suffix}"] = out.view(torch.int16) if dtype == torch.bfloat16 else out
            key = {"int8-asym": "int8_int4_g32", "fp8-e4m3": "fp8_fp8_perrow"}.get(name)
            if key:
                known = given[f"{key}.{suffix}.x_fq"].reshape(-1, 256)
                assert torch.equal(known.nan_to_num(), out[: len(known)].nan_to_num()), name
    with open(OUT, "wb") as f:
        for name, a in arrays.items():
            a = np.ascontiguousarray(a.numpy())
            f.write(struct.pack("<I", len(name)) + name.encode() + struct.pack("<QQ", a.shape[0], a.nbytes) + a.tobytes())


if __name__ == "__main__":
    main()
