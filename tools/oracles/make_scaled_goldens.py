#!/usr/bin/env python3
"""Makes tests/data/quant/scaled.bin: integers and small floats as torchao, bitsandbytes and compressed-tensors store them.

    make_scaled_goldens.py

Needs torch 2.15, torchao 0.18.0, bitsandbytes 0.50.2 and compressed-tensors 0.20.0 (CPU). Everything is made by the packages from the
bf16 weights "w" (f32 for formats without a 16-bit scale), but for tinygemm in bf16 and mslk, whose quantizer (MSLK) has no wheel: there
the package's fake quantizer is asserted to agree with the formula, and the formula stores.

Arrays, as in make_quant_goldens.py; for a format NAME: NAME.codes (two's complement, or the code of a float; a byte each, or for formats
of up to 4 bits a nibble each, low ones first), NAME.scales (f32, or the byte that is stored), NAME.zeros (i8, or f32), NAME.tensor (f32),
NAME.dq (f32; the first row). In bf16: "w" [13, 256], "tall" [130, 128] for blocks of 128 x 128, "many" [40, 576] for double quantization.
Formats with f16 scales were given w in f16.
"""
import os
import struct

import numpy as np
import torch
from bitsandbytes import functional as bnb
from bitsandbytes.backends.default import ops as bnb_default  # noqa: F401  the definition that the GPU kernels share
from compressed_tensors.compressors import BaseCompressor
from compressed_tensors.compressors.mxfp6.helpers import unpack_fp6_from_uint8
from compressed_tensors.compressors.pack_quantized.helpers import unpack_from_int32
from compressed_tensors.quantization import QuantizationArgs, QuantizationScheme, preset_name_to_scheme
from compressed_tensors.quantization.utils.helpers import calculate_qparams, generate_gparam
from torchao.prototype.mx_formats.config import ScaleCalculationMode
from torchao.prototype.mx_formats.constants import DTYPE_FP6_E2M3, DTYPE_FP6_E3M2
from torchao.prototype.mx_formats.kernels import f4_unpacked_to_f32, f6_e2m3_unpacked_to_f32, f6_e3m2_unpacked_to_f32, unpack_uint4
from torchao.prototype.mx_formats.mx_tensor import to_dtype, to_mx
from torchao.prototype.mx_formats.nvfp4_tensor import nvfp4_quantize, per_tensor_amax_to_scale
from torchao.quantization.granularity import PerBlock, PerRow, PerTensor
from torchao.quantization.qat.fake_quantize_config import Int4WeightFakeQuantizeConfig
from torchao.quantization.qat.fake_quantizer import Int4WeightFakeQuantizer
from torchao.quantization.quant_primitives import MappingType
from torchao.quantization.quantize_.workflows.float8.float8_tensor import Float8Tensor
from torchao.quantization.quantize_.workflows.int8.int8_tensor import Int8Tensor
from torchao.quantization.quantize_.workflows.intx.intx_unpacked_to_int8_tensor import IntxUnpackedToInt8Tensor

OUT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "tests", "data", "quant", "scaled.bin")
DTYPES = {"": torch.float32, "-bf16": torch.bfloat16, "-f16": torch.float16}
DQ_ROWS = 1
arrays = {}


def weights():
    g = torch.Generator().manual_seed(30)
    rand = lambda *s: torch.randn(*s, generator=g)
    w = rand(13, 256) * 0.05
    w[1] = w[1].abs(); w[2] = -w[2].abs(); w[3, :128] = 0; w[4] = 0; w[5, ::37] *= 40; w[6] = 0.37; w[6, 1::2] *= 1e-3
    w[7] = torch.randint(-15, 16, (256,), generator=g) / 4.0; w[7, ::16] = 7.5  # ties of codes
    w[8] = torch.randint(-24, 25, (256,), generator=g) / 4.0; w[8, ::16] = 6.0
    w[9, :128] *= 1e-3; w[9, 128:] *= 300; w[10] = w[10].abs() + 1; w[11, :128] *= 1e-6; w[11, 128:] = torch.where(rand(128) > 0, 0.25, -0.25)
    w[12] = torch.randint(-255, 256, (256,), generator=g) / 2.0; w[12, ::32] = 127.5
    tall = rand(130, 128) * 0.05; tall[128, ::3] = 0; tall[3, 3] = 2
    return [x.to(torch.bfloat16).float() for x in (w, tall, rand(40, 576) * 0.05 * (1 + torch.arange(40)[:, None] / 8))]


def put(name, codes, scales, zeros=None, tensor=None, dq=None):
    codes = codes.contiguous().view(torch.uint8).numpy().reshape(codes.shape[0], -1)
    small = name.replace("ct.", "").startswith(("int2", "int3", "int4", "mxfp4", "nvfp4", "nf4", "fp4"))
    arrays[name + ".codes"] = codes[:, ::2] & 15 | codes[:, 1::2] << 4 if small else codes
    scales = scales if scales.dtype == torch.uint8 else scales.float()
    arrays[name + ".scales"] = scales.reshape(-1, scales.shape[-1]).numpy()
    if zeros is not None: arrays[name + ".zeros"] = zeros.numpy()
    if tensor is not None: arrays[name + ".tensor"] = tensor.float().reshape(1, 1).numpy()
    if dq is not None: arrays[name + ".dq"] = dq[:DQ_ROWS].float().numpy()


def torchao_ints(w):
    for bits in (2, 3, 4, 5, 6, 8):
        for suffix, dtype in DTYPES.items():
            if suffix == "-f16" and bits > 4: continue
            for rule, mapping in (("sym", MappingType.SYMMETRIC), ("asym", MappingType.ASYMMETRIC)):
                for group in (32,) if bits != 4 or suffix else (32, 64, 128, 256):
                    t = IntxUnpackedToInt8Tensor.from_hp(w.to(dtype), (1, group), getattr(torch, f"int{bits}"), mapping_type=mapping)
                    put(f"int{bits}-{rule}-g{group}{suffix}", t.qdata, t.scale, t.zero_point if rule == "asym" else None,
                        dq=t.dequantize() if bits in (3, 4) else None)
    for suffix, dtype in (("", torch.float32), ("-bf16", torch.bfloat16)):
        t = IntxUnpackedToInt8Tensor.from_hp(w.to(dtype), (1, 256), torch.int8)
        put("int8-sym" + suffix, t.qdata, t.scale)
        t = Int8Tensor.from_hp(w.to(dtype), PerRow())
        put("int8-symeps" + suffix, t.qdata, t.scale, dq=t.dequantize())


def int4_tensors(w):
    """Int4Tensor for bf16 activations (2.3 of MSLK's int4_row_quantize_zp) and fp8 ones (int4_row_quantize)."""
    g = w.reshape(w.shape[0], -1, 128)
    low, high = g.amin(-1, keepdim=True), g.amax(-1, keepdim=True)
    s = (high - low).clamp(min=1e-6) / 15
    z = low + s * 8
    q = ((g - low) / s).round().clamp(0, 15) - 8
    fake = Int4WeightFakeQuantizer(Int4WeightFakeQuantizeConfig(group_size=128, activation_dtype=torch.bfloat16))(w)
    assert torch.equal((q * s + z).reshape(w.shape), fake)
    codes = q.to(torch.int8).reshape(w.shape)
    put("int4-tinygemm-g128", codes, s.squeeze(-1), z.squeeze(-1), dq=fake)
    put("int4-tinygemm-g128-bf16", codes, s.squeeze(-1).bfloat16(), z.squeeze(-1).bfloat16().float())
    s = g.abs().amax(-1, keepdim=True).clamp(min=1e-6) / 8
    q = g.div(s).round().clamp(-8, 7)
    put("int4-mslk-g128-bf16", q.to(torch.int8).reshape(w.shape), s.squeeze(-1).bfloat16())
    # The fake quantizer rounds to fp8 first; what follows is symfull.
    for suffix, dtype in (("", torch.float32), ("-bf16", torch.bfloat16)):
        nonzero = torch.where(w == 0, 0.01, w).to(dtype)
        w8 = Float8Tensor.from_hp(nonzero, granularity=PerRow()).dequantize()
        fake = Int4WeightFakeQuantizer(Int4WeightFakeQuantizeConfig(group_size=128, activation_dtype=torch.float8_e4m3fn))(nonzero)
        arrays[f"int4-symfull-g128{suffix}.in"] = w8[:6].float().numpy()
        arrays[f"int4-symfull-g128{suffix}.fq"] = fake[:6].float().numpy()


def torchao_floats(w, tall):
    for suffix, dtype in (("", torch.float32), ("-bf16", torch.bfloat16)):
        for kind, fp8 in (("e4m3", torch.float8_e4m3fn), ("e5m2", torch.float8_e5m2)):
            for name, granularity, x in (("", PerRow(), w), ("-tensor", PerTensor(), w), ("-b128", PerBlock([128, 128]), tall[:128])):
                if name and (kind == "e5m2" and name + suffix != "-tensor" or name + suffix == "-b128"): continue
                nonzero = x if name else torch.where((x == 0).all(-1, keepdim=True), 1.0, x)  # torchao: rows of zeros are NaN
                t = Float8Tensor.from_hp(nonzero.to(dtype), float8_dtype=fp8, granularity=granularity)
                put(f"fp8-{kind}{name}{suffix}", t.qdata, t.scale.reshape(-1, 1) if name == "-tensor" else t.scale, dq=t.dequantize())
    kinds = (("mxfp4", torch.float4_e2m1fn_x2), ("mxfp6-e2m3", DTYPE_FP6_E2M3), ("mxfp6-e3m2", DTYPE_FP6_E3M2),
             ("mxfp8-e4m3", torch.float8_e4m3fn), ("mxfp8-e5m2", torch.float8_e5m2))
    for name, kind in kinds:
        for suffix, mode in (("", ScaleCalculationMode.RCEIL), ("-floor", ScaleCalculationMode.FLOOR), ("-even", ScaleCalculationMode.EVEN)):
            scale, data = to_mx(w.bfloat16(), kind, 32, mode)
            dq = to_dtype(data, scale, kind, 32, torch.float32)
            codes = unpack_uint4(data) if name == "mxfp4" else data
            put(name + suffix, codes, scale.view(torch.uint8), dq=dq)
    for name, tensor in (("nvfp4", per_tensor_amax_to_scale(w.abs().max())), ("nvfp4-local", None)):
        scale, data = nvfp4_quantize(w.bfloat16(), 16, tensor)
        put(name, unpack_uint4(data), scale.view(torch.uint8), tensor=tensor)
    every = torch.arange(256, dtype=torch.int32).to(torch.uint8)
    arrays["e4m3.values"] = every.view(torch.float8_e4m3fn).float().reshape(1, -1).numpy()
    arrays["e5m2.values"] = every.view(torch.float8_e5m2).float().reshape(1, -1).numpy()
    arrays["e2m3.values"] = f6_e2m3_unpacked_to_f32(every[:64]).reshape(1, -1).numpy()
    arrays["e3m2.values"] = f6_e3m2_unpacked_to_f32(every[:64]).reshape(1, -1).numpy()
    arrays["e2m1.values"] = f4_unpacked_to_f32(every[:16]).reshape(1, -1).numpy()


def bitsandbytes(w, many):
    for kind in ("nf4", "fp4"):
        packed, state = bnb.quantize_4bit(w, quant_type=kind)
        nibbles = torch.stack((packed.reshape(-1) >> 4, packed.reshape(-1) & 15), -1).reshape(w.shape)
        put(kind, nibbles, state.absmax.reshape(w.shape[0], -1), dq=bnb.dequantize_4bit(packed, state))
    packed, state = bnb.quantize_4bit(many, quant_type="nf4")
    absmax = state.absmax
    offset = absmax.double().mean().float()  # temper's mean; bitsandbytes' f32 sum goes by the machine
    assert abs(offset - absmax.mean()) <= 4e-7 * offset
    bounds = (bnb.create_dynamic_map()[:-1] + bnb.create_dynamic_map()[1:]) / 2
    nested = torch.nn.functional.pad(absmax - offset, (0, -absmax.numel() % 256)).reshape(-1, 256)
    top = nested.abs().amax(-1)
    codes = torch.bucketize((nested * (1 / top)[:, None]).clamp(-1, 1), bounds, out_int32=True).to(torch.uint8).reshape(-1)[:absmax.numel()]
    full = absmax.numel() // 256 * 256  # the package multiplies whole blocks by the inverse as its GPU kernel does all; it divides a last part
    out, found_top = torch.ops.bitsandbytes.quantize_blockwise.default((absmax - offset)[:full].to(torch.float64).float(), bnb.create_dynamic_map(), 256)
    assert torch.equal(found_top, top[: full // 256])
    assert (out.int() - codes[:full].int()).abs().max() <= 1  # its CPU search is off by one now and then
    arrays["nf4-dq.offset"], arrays["nf4-dq.nested"] = offset.reshape(1, 1).numpy(), top.reshape(1, -1).numpy()
    nibbles = torch.stack((packed.reshape(-1) >> 4, packed.reshape(-1) & 15), -1).reshape(many.shape)
    put("nf4-dq", nibbles, codes.reshape(many.shape[0], -1))
    arrays["dynamic"] = bnb.create_dynamic_map().reshape(1, -1).numpy()


def ct_scheme(name, bits=None, group=None, symmetric=True):
    if bits is None: return preset_name_to_scheme(name, ["Linear"])
    args = QuantizationArgs(num_bits=bits, type="int", strategy="group" if group else "channel", group_size=group, symmetric=symmetric)
    return QuantizationScheme(targets=["Linear"], weights=args, format="pack-quantized" if bits < 8 or group else "int-quantized")


def compressed_tensors(w, tall):
    formats = {"NVFP4A16": "nvfp4-pack-quantized", "MXFP4A16": "mxfp4-pack-quantized", "MXFP6A16": "mxfp6-pack-quantized",
               "MXFP8A16": "mxfp8-quantized", "FP8_DYNAMIC": "float-quantized", "FP8_BLOCK": "float-quantized"}
    jobs = [("fp8-e4m3-ct-bf16", "FP8_DYNAMIC", {}), ("fp8-e4m3-ct-b128-bf16", "FP8_BLOCK", {}), ("nvfp4-ct", "NVFP4A16", {}),
            ("mxfp4-even", "MXFP4A16", {}), ("mxfp6-e2m3-even", "MXFP6A16", {}), ("mxfp8-e4m3-ct", "MXFP8A16", {}),
            ("int8-ctsym-bf16", "int", dict(bits=8)), ("int4-ctsym-g128-bf16", "int", dict(bits=4, group=128)),
            ("int3-ctsym-g32-bf16", "int", dict(bits=3, group=32)), ("int8-ctsym-g128-bf16", "int", dict(bits=8, group=128)),
            ("int4-ctasym-g128-bf16", "int", dict(bits=4, group=128, symmetric=False)),
            ("int4-ctasym-g32-f16", "int", dict(bits=4, group=32, symmetric=False)), ("int4-ctsym-g32", "int", dict(bits=4, group=32))]
    for name, preset, options in jobs:
        scheme = ct_scheme(preset, **options)
        args = scheme.weights
        x = (tall if "b128" in name else w).to(torch.bfloat16 if "bf16" in name or not name.startswith("int") else DTYPES["-f16" if "f16" in name else ""])
        n, k = x.shape
        if "b128" in name:
            tiles = torch.nn.functional.pad(x, (0, 0, 0, -n % 128)).reshape(-1, 128, k // 128, 128)
            low, high = tiles.amin((1, 3)), tiles.amax((1, 3))
        else:
            tiles = x.reshape(n, -1, args.group_size if args.group_size else k)
            low, high = tiles.amin(-1), tiles.amax(-1)
        gparam = generate_gparam(x.min(), x.max()) if preset == "NVFP4A16" else None
        scale, zero = calculate_qparams(low, high, args, global_scale=gparam)
        state = {"weight": x, "weight_scale": scale}
        if not args.symmetric: state["weight_zero_point"] = zero
        if gparam is not None: state["weight_global_scale"] = gparam
        compressor = BaseCompressor.get_value_from_registry(scheme.format or formats[preset])
        done = compressor.compress(dict(state), scheme)
        if preset == "int" and "weight_packed" in done:
            codes = unpack_from_int32(done["weight_packed"], args.num_bits, x.shape)
        elif preset == "MXFP6A16":
            b = done["weight_packed"].reshape(n, k // 4, 3).int()
            word = b[..., 0] | b[..., 1] << 8 | b[..., 2] << 16
            codes = torch.stack([word >> s & 63 for s in (0, 6, 12, 18)], -1).reshape(n, k).to(torch.uint8)
        elif "weight_packed" in done:
            codes = torch.stack((done["weight_packed"] & 15, done["weight_packed"] >> 4), -1).reshape(n, k)
        else:
            codes = done["weight"]
        stored = done["weight_scale"]
        if stored.dtype == torch.float8_e4m3fn: stored = stored.view(torch.uint8)
        known = name + ".codes" in arrays  # made by torchao too
        put("ct." + name if known else name, codes, stored.reshape(stored.shape[0], -1), zero if not args.symmetric else None, gparam)


def main():
    w, tall, many = weights()
    for name, x in (("w", w), ("tall", tall), ("many", many)): arrays[name] = x.bfloat16().view(torch.int16).numpy()
    torchao_ints(w)
    int4_tensors(w)
    torchao_floats(w, tall)
    bitsandbytes(w, many)
    compressed_tensors(w, tall)
    with open(OUT, "wb") as f:
        for key, a in arrays.items():
            a = np.ascontiguousarray(a)
            f.write(struct.pack("<I", len(key)) + key.encode() + struct.pack("<QQ", a.shape[0], a.nbytes) + a.tobytes())
    print({k: (str(v.dtype), v.shape) for k, v in arrays.items()}, os.path.getsize(OUT))


main()
