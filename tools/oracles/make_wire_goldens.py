#!/usr/bin/env python3
"""Makes tests/data/wires/*.safetensors: linears as the packages that define the wires store them.

    make_wire_goldens.py compressed-tensors | compressed-tensors-static | bitsandbytes | gptq | awq ...

Each needs its package (CPU): compressed-tensors 0.20.0, bitsandbytes 0.50.2, auto-gptq 0.7.1 and gptqmodel 7.7.0, autoawq 0.2.9; all of
them torch 2.15. Of auto-gptq and autoawq only the module that packs is loaded (unpacked wheels on PYTHONPATH do), as their
packages want older transformers.

A case NAME is the module NAME: its stored tensors, the values that the package decodes ("NAME.decoded", its first rows, in the dtype it
gives), and in the metadata NAME, JSON of rows, cols and config (the part of quantization_config that readers go by).
In compressed_tensors.safetensors "w" and "tall" are what was quantized, in bf16: the first `rows` of them.
"""
import importlib.util
import json
import os
import sys
import types

import numpy as np
import torch
from safetensors.torch import save_file

OUT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "tests", "data", "wires")


class Cases:
    def __init__(self): self.tensors, self.metadata = {}, {"format": "pt"}

    def add(self, name, stored, decoded, rows, cols, config, keep=4):
        for key, value in stored.items(): self.tensors[f"{name}.{key}"] = value.contiguous().clone()
        if decoded is not None: self.tensors[name + ".decoded"] = decoded[:keep].contiguous().clone()
        self.metadata[name] = json.dumps({"rows": rows, "cols": cols, "config": config})

    def save(self, file):
        save_file(self.tensors, os.path.join(OUT, file), self.metadata)
        print(file, list(self.metadata), os.path.getsize(os.path.join(OUT, file)))


def weights(rows, cols, seed):
    g = torch.Generator().manual_seed(seed)
    w = torch.randn(rows, cols, generator=g) * 0.05
    w[1] = w[1].abs(); w[2] = -w[2].abs(); w[3] = 0; w[5, ::37] *= 40
    return w.to(torch.bfloat16)


def add_compressed(cases, name, scheme, state):
    """A case: the weight in state compressed with the parameters there, and what the package decompresses."""
    from compressed_tensors.compressors import BaseCompressor
    from compressed_tensors.compressors.format import infer_module_format

    format = infer_module_format(torch.nn.Linear, scheme)
    compressor = BaseCompressor.get_value_from_registry(format.value)
    stored = compressor.compress(dict(state), scheme)
    decoded = compressor.decompress(dict(stored), scheme)["weight"]
    group = {"format": format.value, "targets": ["Linear"]}
    for key in ("weights", "input_activations", "output_activations"):
        value = getattr(scheme, key)
        group[key] = value and {k: v for k, v in json.loads(value.model_dump_json()).items()}
    cases.add(name, stored, decoded, *state["weight"].shape,
              {"quant_method": "compressed-tensors", "format": format.value, "config_groups": {"group_0": group}, "ignore": ["lm_head"]})


def compressed_tensors():
    from compressed_tensors.quantization import QuantizationArgs, QuantizationScheme, preset_name_to_scheme
    from compressed_tensors.quantization.utils.helpers import calculate_qparams, generate_gparam

    def custom(bits, group, symmetric=True, act=None):
        args = QuantizationArgs(num_bits=bits, type="int", strategy="group" if group else "channel", group_size=group, symmetric=symmetric)
        inputs = {"int": QuantizationArgs(num_bits=8, type="int", strategy="token", symmetric=False, dynamic=True),
                  "fp8": QuantizationArgs(num_bits=8, type="float", strategy="token", symmetric=True, dynamic=True)}
        return QuantizationScheme(targets=["Linear"], weights=args, input_activations=inputs.get(act))

    cases = Cases()
    w, tall = weights(24, 256, 1), weights(130, 128, 2)
    cases.tensors["w"], cases.tensors["tall"] = w, tall
    names = ["W4A16", "W4A16_ASYM", "W8A16", "W8A8", "FP8_DYNAMIC", "FP8_BLOCK", "NVFP4A16", "MXFP4A16", "MXFP4", "MXFP6A16", "MXFP8A16", "MXFP8",
             "W4AFP8"]
    jobs = [(name, preset_name_to_scheme(name, ["Linear"]), 24) for name in names]
    jobs += [("int3_g32", custom(3, 32), 24), ("int4_channel_asym", custom(4, None, False), 20), ("int2_g64_asym", custom(2, 64, False), 20),
             ("int4_g128_int8", custom(4, 128, act="int"), 24), ("int5_g32_asym", custom(5, 32, False), 20), ("int6_g32", custom(6, 32), 24)]
    for name, scheme, rows in jobs:
        args, x = scheme.weights, w[:rows]
        if args.group_size is None and args.strategy == "group": args.group_size = 128
        if args.strategy == "block":
            x = tall
            tiles = torch.nn.functional.pad(x, (0, 0, 0, -x.shape[0] % 128)).reshape(-1, 128, x.shape[1] // 128, 128)
            low, high = tiles.amin((1, 3)), tiles.amax((1, 3))
        else:
            tiles = x.reshape(x.shape[0], -1, args.group_size or x.shape[1])
            low, high = tiles.amin(-1), tiles.amax(-1)
        gparam = generate_gparam(x.min(), x.max()) if args.strategy == "tensor_group" else None
        scale, zero = calculate_qparams(low, high, args, global_scale=gparam)
        state = {"weight": x, "weight_scale": scale, "weight_zero_point": zero}
        if gparam is not None: state["weight_global_scale"] = gparam
        add_compressed(cases, name, scheme, state)
    cases.save("compressed_tensors.safetensors")


def compressed_tensors_static():
    """Activations with static scales: "x" in bf16 and, as the package rounds it, "x.rounded.NAME" in bf16."""
    from compressed_tensors.quantization import QuantizationArgs, QuantizationScheme, preset_name_to_scheme
    from compressed_tensors.quantization.lifecycle.forward import fake_quantize
    from compressed_tensors.quantization.utils.helpers import calculate_qparams, compute_dynamic_scales_and_zp, generate_gparam

    def static(symmetric=True): return QuantizationArgs(num_bits=8, type="int", strategy="tensor", symmetric=symmetric, dynamic=False)
    def scheme(inputs, outputs=None):
        weights = QuantizationArgs(num_bits=8, type="int", strategy="channel", symmetric=True, dynamic=False)
        return QuantizationScheme(targets=["Linear"], weights=weights, input_activations=inputs, output_activations=outputs)

    cases = Cases()
    w = weights(24, 256, 1)
    cases.tensors["w"] = w
    g = torch.Generator().manual_seed(5)
    x = (torch.randn(6, 256, generator=g) + 0.4).to(torch.bfloat16)
    cases.tensors["x"] = x
    jobs = [("int8_sym", scheme(static())), ("int8_asym", scheme(static(False))), ("FP8", preset_name_to_scheme("FP8", ["Linear"])),
            ("NVFP4", preset_name_to_scheme("NVFP4", ["Linear"])), ("int8_outputs", scheme(static(), static(False)))]
    for name, scheme in jobs:
        args, inputs, outputs = scheme.weights, scheme.input_activations, scheme.output_activations
        group = args.strategy == "tensor_group"
        tiles = w.reshape(w.shape[0], -1, args.group_size or w.shape[1])
        low, high = (tiles.amin(-1), tiles.amax(-1)) if args.strategy != "tensor" else (w.min().reshape(1), w.max().reshape(1))
        gparam = generate_gparam(w.min(), w.max()) if group else None
        scale, zero = calculate_qparams(low, high, args, global_scale=gparam)
        state = {"weight": w, "weight_scale": scale, "weight_zero_point": zero}
        if gparam is not None: state["weight_global_scale"] = gparam
        # Calibrated on half of the range, so that some values are clipped.
        ends = x.min().reshape(1) / 2, x.max().reshape(1) / 2
        if group:
            state["input_global_scale"] = generate_gparam(*ends)
            s, z = compute_dynamic_scales_and_zp(x, inputs, torch.nn.Linear(256, 24), global_scale=state["input_global_scale"])
            rounded = fake_quantize(x, s, z, inputs, global_scale=state["input_global_scale"])
        else:
            s, z = calculate_qparams(*ends, inputs)
            state["input_scale"], state["input_zero_point"] = s, z.to(inputs.zp_dtype)
            rounded = fake_quantize(x.float(), s.float(), z, inputs)  # in f32, as vLLM's kernels do
        if outputs is not None:
            s, z = calculate_qparams(torch.tensor([-1.25], dtype=torch.bfloat16), torch.tensor([2.5], dtype=torch.bfloat16), outputs)
            state["output_scale"], state["output_zero_point"] = s, z.to(outputs.zp_dtype)
        add_compressed(cases, name, scheme, state)
        cases.tensors["x.rounded." + name] = rounded.to(torch.bfloat16)
    cases.save("compressed_tensors_static.safetensors")


def bitsandbytes():
    import bitsandbytes as bnb

    cases = Cases()
    for name, kind, double, dtype, rows in (("nf4", "nf4", False, torch.bfloat16, 8), ("fp4", "fp4", False, torch.float16, 8),
                                            ("nf4_dq", "nf4", True, torch.bfloat16, 40), ("fp4_dq", "fp4", True, torch.bfloat16, 8)):
        w = weights(rows, 576, 3).to(dtype)
        linear = bnb.nn.Linear4bit(576, rows, bias=False, compute_dtype=dtype, compress_statistics=double, quant_type=kind)
        linear.weight = bnb.nn.Params4bit(w, requires_grad=False, compress_statistics=double, quant_type=kind)
        linear = linear.to("cpu")
        stored = dict(linear.state_dict())
        decoded = bnb.functional.dequantize_4bit(linear.weight.data, linear.weight.quant_state)
        cases.add(name, stored, decoded, rows, 576, {"quant_method": "bitsandbytes", "load_in_4bit": True, "bnb_4bit_quant_type": kind,
                                                   "bnb_4bit_use_double_quant": double}, keep=rows)
    w = weights(8, 96, 4)
    linear = bnb.nn.Linear4bit(96, 8, bias=False, quant_type="nf4", compress_statistics=False)
    linear.weight = bnb.nn.Params4bit(w, requires_grad=False, quant_type="nf4", compress_statistics=False)
    cases.add("crossing", dict(linear.to("cpu").state_dict()), None, 8, 96, {"quant_method": "bitsandbytes", "load_in_4bit": True})
    linear = bnb.nn.Linear8bitLt(96, 8, bias=False, has_fp16_weights=False)
    linear.weight = bnb.nn.Int8Params(w.half(), requires_grad=False, has_fp16_weights=False)
    linear = linear.to("cpu")
    if linear.weight.dtype != torch.int8: linear.weight.data, linear.weight.SCB, _ = bnb.functional.int8_vectorwise_quant(w.half())
    linear.init_8bit_state()
    stored = dict(linear.state_dict())
    decoded = stored["weight"] * stored["SCB"].view(-1, 1) * 7.874015718698502e-3
    cases.add("int8", stored, decoded, 8, 96, {"quant_method": "bitsandbytes", "load_in_8bit": True})
    cases.save("bitsandbytes.safetensors")


def integers(bits, rows, cols, group, symmetric, lowest_zero, seed):
    """Codes, zero points [rows, groups], f16 scales, and the f32 weights that these stand for."""
    g = torch.Generator().manual_seed(seed)
    groups = cols // (group if group > 0 else cols)
    codes = torch.randint(0, 2**bits, (rows, cols), generator=g)
    zeros = torch.full((rows, groups), 2 ** (bits - 1)) if symmetric else torch.randint(lowest_zero, 2**bits, (rows, groups), generator=g)
    scales = (torch.rand(rows, groups, generator=g) * 0.05 + 0.01).half()
    each = cols // groups
    w = (codes - zeros.repeat_interleave(each, 1)).float() * scales.float().repeat_interleave(each, 1)
    return codes, zeros, scales, w


def linear_of(w):
    linear = torch.nn.Linear(w.shape[1], w.shape[0], bias=False)
    linear.weight.data = w
    return linear


def load_module(name, *path):
    """A package's file as a module, without the package."""
    for entry in sys.path:
        file = os.path.join(entry, *path)
        if os.path.exists(file):
            spec = importlib.util.spec_from_file_location(name, file)
            module = sys.modules[name] = importlib.util.module_from_spec(spec)
            spec.loader.exec_module(module)
            return module
    raise SystemExit(f"{os.path.join(*path)} is nowhere on PYTHONPATH")


def gptq():
    os.environ["GPTQMODEL_DISABLE_PACK_EXT"] = "1"  # pack by its Python: the extension takes minutes to compile
    cases = Cases()
    old = load_module("qlinear_cuda_old", "auto_gptq", "nn_modules", "qlinear", "qlinear_cuda_old.py")
    for name, bits, group, symmetric in (("v1_4_g32", 4, 32, True), ("v1_4_row", 4, -1, True), ("v1_2_g64", 2, 64, True), ("v1_3_g32", 3, 32, True),
                                         ("v1_8_g128", 8, 128, True), ("v1_4_asym", 4, 32, False), ("v1_3_asym", 3, 32, False)):
        codes, zeros, scales, w = integers(bits, 64, 128, group, symmetric, 1, 10)
        packed = old.QuantLinear(bits, group, 128, 64, False, weight_dtype=torch.float16)
        packed.pack(linear_of(w), scales.float(), zeros.float(), None)
        packed.scales = packed.scales.half()
        cases.add(name, dict(packed.state_dict()), w, 64, 128,
                  {"quant_method": "gptq", "bits": bits, "group_size": group, "desc_act": False, "sym": symmetric})
    from gptqmodel.nn_modules.qlinear.torch import TorchLinear
    for name, bits, group, symmetric in (("v2_4_g32", 4, 32, False), ("v2_4_sym", 4, 64, True), ("v2_3_row", 3, -1, False), ("v2_2_g32", 2, 32, False),
                                         ("v2_8_g128", 8, 128, False)):
        codes, zeros, scales, w = integers(bits, 64, 128, group, symmetric, 0, 11)
        packed = TorchLinear(bits=bits, group_size=group, sym=symmetric, desc_act=False, in_features=128, out_features=64, bias=False)
        each = 128 // zeros.shape[1]
        packed.pack(linear_of(w), scales.float(), zeros.float(), torch.arange(128, dtype=torch.int32) // each)
        stored = {k: v for k, v in packed.state_dict().items() if k in ("qweight", "qzeros", "scales", "g_idx")}
        decoded = packed.dequantize_weight().T
        assert torch.equal(decoded.half(), w.half()), (name, (decoded - w).abs().max())
        cases.add(name, stored, w, 64, 128, {"quant_method": "gptq", "checkpoint_format": "gptq_v2", "bits": bits, "group_size": group,
                                             "desc_act": False, "sym": symmetric})
    cases.save("gptq.safetensors")


def awq():
    for package in ("awq", "awq.utils", "awq.modules", "awq.modules.linear"):
        sys.modules[package] = types.ModuleType(package)
        sys.modules[package].__path__ = []
    load_module("awq.utils.module", "awq", "utils", "module.py")
    load_module("awq.utils.utils", "awq", "utils", "utils.py")
    packing = load_module("awq.utils.packing_utils", "awq", "utils", "packing_utils.py")
    gemm = load_module("awq.modules.linear.gemm", "awq", "modules", "linear", "gemm.py")
    cases = Cases()
    for name, group, symmetric in (("g32", 32, False), ("g64", 64, False), ("row", -1, False), ("sym", 128, True)):
        codes, zeros, scales, w = integers(4, 32, 128, group, symmetric, 0, 12)
        packed = gemm.WQLinear_GEMM.from_linear(linear_of(w), 4, group if group > 0 else 128, scales=scales.float().T.contiguous(), zeros=zeros.float().T.contiguous())
        decoded = packing.dequantize_gemm(packed.qweight, packed.qzeros, packed.scales, 4, packed.group_size).T
        assert torch.equal(decoded, w.half()), (decoded - w).abs().max()
        cases.add(name, dict(packed.state_dict()), w, 32, 128,
                  {"quant_method": "awq", "bits": 4, "group_size": group, "zero_point": True, "version": "gemm"})
    cases.save("awq.safetensors")


if __name__ == "__main__":
    os.makedirs(OUT, exist_ok=True)
    makers = {"compressed-tensors": compressed_tensors, "compressed-tensors-static": compressed_tensors_static, "bitsandbytes": bitsandbytes,
              "gptq": gptq, "awq": awq}
    for wire in sys.argv[1:]: makers[wire]()
