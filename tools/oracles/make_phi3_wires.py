#!/usr/bin/env python3
"""Makes tests/data/wires/phi3: a random Phi-3 of one block, whose checkpoints hold q, k, v and gate, up in one matrix each, as the
packages that define the wires quantize it.

    pip install torch==2.15.0 torchao==0.18.0 transformers==5.23.0 compressed-tensors==0.20.0 bitsandbytes==0.50.2
    python3 tools/oracles/make_phi3_wires.py

base is the model in bf16; NAME.safetensors and NAME.json (config.json) are what transformers saved of it with TorchAoConfig or
BitsAndBytesConfig; of compressed-tensors, whose quantizer is a program of its own (llm-compressor), the linears as the package computes
their parameters and compresses them. Extents are such that blocks cross from part to part: of 256 absmaxes (nf4-dq), of 128 rows of
scales in tiles (nvfp4).
"""
import json
import shutil
import tempfile
from pathlib import Path

import bitsandbytes.functional as bnb
import torch
import torchao.prototype.mx_formats.inference_workflow as mx
import torchao.quantization as q
from compressed_tensors.compressors import BaseCompressor
from compressed_tensors.compressors.format import infer_module_format
from compressed_tensors.quantization import QuantizationArgs, QuantizationScheme
from compressed_tensors.quantization.utils.helpers import calculate_qparams
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, BitsAndBytesConfig, Phi3Config, Phi3ForCausalLM, TorchAoConfig

OUT = Path(__file__).resolve().parents[2] / "tests/data/wires/phi3"


def quantize_blockwise(x, blocksize):
    """bitsandbytes' as its GPU kernel has it: the nearest value. The library for CPUs searches in a table and is off by one now and then."""
    values = bnb.create_dynamic_map()
    blocks = torch.nn.functional.pad(x.float(), (0, -x.numel() % blocksize)).reshape(-1, blocksize)
    top = blocks.abs().amax(-1)
    codes = torch.bucketize((blocks * (1 / top)[:, None]).clamp(-1, 1), (values[:-1] + values[1:]) / 2, out_int32=True).to(torch.uint8)
    return codes.reshape(-1)[: x.numel()], bnb.QuantState(absmax=top, code=values, blocksize=blocksize, dtype=x.dtype)


def by_transformers():
    yield "torchao-int8-int4", TorchAoConfig(q.Int8DynamicActivationIntxWeightConfig(weight_dtype=torch.int4, weight_granularity=q.PerGroup(32)))
    yield "torchao-nvfp4", TorchAoConfig(mx.NVFP4WeightOnlyConfig())
    yield "bitsandbytes-nf4-dq", BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True)


def by_compressed_tensors():
    def scheme(**args): return QuantizationScheme(targets=["Linear"], weights=QuantizationArgs(**args))
    yield "compressed-tensors-int4-asym", scheme(num_bits=4, type="int", strategy="group", group_size=32, symmetric=False)
    yield "compressed-tensors-fp8", scheme(num_bits=8, type="float", strategy="tensor", symmetric=True)


def compress(tensors, scheme):
    """Tensors and quantization_config."""
    args, format = scheme.weights, infer_module_format(torch.nn.Linear, scheme)
    stored = {}
    for name, w in tensors.items():
        if "_proj" not in name:
            stored[name] = w
            continue
        tiles = w.reshape(w.shape[0], -1, args.group_size) if args.group_size else w.reshape(1, -1)
        scale, zero = calculate_qparams(tiles.amin(-1), tiles.amax(-1), args)
        state = {"weight": w, "weight_scale": scale, "weight_zero_point": zero}
        parts = BaseCompressor.get_value_from_registry(format.value).compress(state, scheme)
        stored |= {f"{name.removesuffix('weight')}{part}": value.contiguous() for part, value in parts.items()}
    group = {"format": format.value, "targets": ["Linear"], "weights": json.loads(args.model_dump_json()), "input_activations": None,
             "output_activations": None}
    return stored, {"quant_method": "compressed-tensors", "format": format.value, "quantization_status": "compressed",
                    "config_groups": {"group_0": group}, "ignore": ["lm_head"]}


def main():
    torch.manual_seed(3)
    bnb.quantize_blockwise = quantize_blockwise
    shutil.rmtree(OUT, ignore_errors=True)
    OUT.mkdir(parents=True)
    with tempfile.TemporaryDirectory() as scratch:
        base = Path(scratch) / "base"
        model = Phi3ForCausalLM(Phi3Config(vocab_size=16, hidden_size=64, intermediate_size=192, num_hidden_layers=1, num_attention_heads=4,
                                           num_key_value_heads=2, max_position_embeddings=64, original_max_position_embeddings=64,
                                           tie_word_embeddings=False, bos_token_id=1, eos_token_id=2, pad_token_id=0))
        # The parts differ in size, so that what belongs to all of a matrix is not what belongs to one of them.
        for block in model.model.layers:
            block.self_attn.qkv_proj.weight.data[64:] *= 2
            block.mlp.gate_up_proj.weight.data[192:] *= 0.25
        model.to(torch.bfloat16).save_pretrained(base)

        def keep(name, folder):
            shutil.copy(folder / "model.safetensors", OUT / f"{name}.safetensors")
            shutil.copy(folder / "config.json", OUT / f"{name}.json")
            print(name, (OUT / f"{name}.safetensors").stat().st_size)

        keep("base", base)
        for name, config in by_transformers():
            loaded = AutoModelForCausalLM.from_pretrained(base, dtype=torch.bfloat16, quantization_config=config, device_map="cpu")
            loaded.save_pretrained(Path(scratch) / name)
            keep(name, Path(scratch) / name)
        for name, scheme in by_compressed_tensors():
            stored, config = compress(load_file(base / "model.safetensors"), scheme)
            save_file(stored, base / "model.safetensors.new", {"format": "pt"})
            shutil.copytree(base, Path(scratch) / name)
            (Path(scratch) / name / "model.safetensors.new").replace(Path(scratch) / name / "model.safetensors")
            described = json.loads((base / "config.json").read_text()) | {"quantization_config": config}
            (Path(scratch) / name / "config.json").write_text(json.dumps(described, indent=2) + "\n")
            keep(name, Path(scratch) / name)


if __name__ == "__main__":
    main()
