"""Checkpoints of torchao, as transformers saves them: tests/data/wires/torchao/.

    pip install torch==2.15.0 torchao==0.18.0 transformers==5.23.0
    python3 tools/oracles/make_torchao_checkpoints.py

base.safetensors is a Llama of one block; NAME.safetensors and NAME.json (config.json) are what `save_pretrained` wrote of it
in each configuration. What a CPU cannot quantize is made by lifting torchao's checks of the hardware, and, for Int4Tensor,
whose quantizer lives in a package of its own (mslk), by that quantizer's formulas written out here; the rest of the path,
layout, attributes and names, is torchao's.
"""
import importlib
import os
import shutil
import sys
import tempfile
from pathlib import Path

import torch
import torchao.prototype.mx_formats.inference_workflow as mx
import torchao.quantization as q
import torchao.quantization.quant_api as quant_api
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM, TorchAoConfig

OUT = Path(__file__).resolve().parents[2] / "tests/data/wires/torchao"


def int4_row_quantize_zp(w, group):
    x = w.float().view(w.shape[0], -1, group)
    low, high = x.amin(-1, keepdim=True), x.amax(-1, keepdim=True)
    scale = (high - low).clamp(min=1e-6) / 15
    codes = ((x - low) / scale).round().clamp(0, 15) - 8
    zero = low + scale * 8
    return codes.view(w.shape).to(torch.int8), scale[..., 0].t().contiguous(), zero[..., 0].t().contiguous()


def int4_row_quantize(w, group):
    x = w.float().view(w.shape[0], -1, group)
    scale = x.abs().amax(-1, keepdim=True).clamp(min=1e-6) / 8
    codes = (x / scale).round().clamp(-8, 7)
    return codes.view(w.shape).to(torch.int8), scale[..., 0].t().contiguous()


def pack_int4(codes):
    return (codes[:, ::2] & 15) | (codes[:, 1::2] << 4)


def lift_checks():
    # A function of the package hides its folder of the same name from `import a.b as c`.
    int4 = importlib.import_module("torchao.quantization.quantize_.workflows.int4.int4_tensor")
    quant_api._check_hardware_support = lambda *_: None
    mx.is_sm_at_least_100 = lambda: True
    int4.int4_row_quantize_zp, int4.int4_row_quantize, int4.pack_int4 = int4_row_quantize_zp, int4_row_quantize, pack_int4


def configurations():
    rows, group = q.PerAxis(0), q.PerGroup(32)
    int8_int4 = q.Int8DynamicActivationIntxWeightConfig(weight_dtype=torch.int4, weight_granularity=group)
    embedding = q.IntxWeightOnlyConfig(weight_dtype=torch.int8, granularity=rows)
    linears = [f"model.layers.0.{m}" for m in ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj",
                                               "mlp.gate_proj", "mlp.up_proj", "mlp.down_proj")]
    every = {f"{name}.weight": int8_int4 for name in [*linears, "lm_head"]} | {"model.embed_tokens.weight": embedding}
    yield "int8-int4-linears", int8_int4, {}
    yield "int8-int4", q.FqnToConfig(every), dict(include_input_output_embeddings=True, modules_to_not_convert=[])
    yield "int8", embedding, {}
    yield "cactus", q.IntxWeightOnlyConfig(weight_dtype=torch.int8, granularity=group), {}
    yield "int3-asym-g32", q.IntxWeightOnlyConfig(weight_dtype=torch.int3, granularity=group,
                                                  mapping_type=q.MappingType.ASYMMETRIC), {}
    yield "int8-int8", q.Int8DynamicActivationInt8WeightConfig(version=2), {}
    yield "int8-symeps", q.Int8WeightOnlyConfig(version=2), {}
    yield "fp8", q.Float8WeightOnlyConfig(), {}
    yield "fp8-fp8", q.Float8DynamicActivationFloat8WeightConfig(granularity=q.PerRow()), {}
    yield "int4-g32", q.Int4WeightOnlyConfig(group_size=32), {}
    # Groups of 128 alone: the rows of down_proj.
    yield "fp8-int4", q.Float8DynamicActivationInt4WeightConfig(int4_packing_format="plain"), dict(
        modules_to_not_convert=["lm_head", *linears[:-1]])
    yield "nvfp4", mx.NVFP4WeightOnlyConfig(), {}
    yield "nvfp4-nvfp4", mx.NVFP4DynamicActivationNVFP4WeightConfig(use_triton_kernel=False), {}
    yield "mxfp8", mx.MXDynamicActivationMXWeightConfig(), {}
    yield "mxfp4", mx.MXDynamicActivationMXWeightConfig(activation_dtype=torch.float4_e2m1fn_x2,
                                                        weight_dtype=torch.float4_e2m1fn_x2), {}


def main():
    lift_checks()
    torch.manual_seed(5)
    shutil.rmtree(OUT, ignore_errors=True)
    OUT.mkdir(parents=True)
    with tempfile.TemporaryDirectory() as scratch:
        base = Path(scratch) / "base"
        model = LlamaForCausalLM(LlamaConfig(vocab_size=16, hidden_size=64, intermediate_size=128, num_hidden_layers=1,
                                             num_attention_heads=2, num_key_value_heads=1, max_position_embeddings=64,
                                             head_dim=16, tie_word_embeddings=False, bos_token_id=1, eos_token_id=2))
        model.to(torch.bfloat16).save_pretrained(base)
        shutil.copy(base / "model.safetensors", OUT / "base.safetensors")
        for name, config, options in configurations():
            try:
                loaded = AutoModelForCausalLM.from_pretrained(base, dtype=torch.bfloat16,
                                                              quantization_config=TorchAoConfig(config, **options))
                loaded.save_pretrained(Path(scratch) / name)
            except Exception as error:  # the script's reader wants all that fail, not the first
                print(name, "FAILED", type(error).__name__, error, file=sys.stderr)
                continue
            shutil.copy(Path(scratch) / name / "model.safetensors", OUT / f"{name}.safetensors")
            shutil.copy(Path(scratch) / name / "config.json", OUT / f"{name}.json")
            print(name, os.path.getsize(OUT / f"{name}.safetensors"))


if __name__ == "__main__":
    main()
