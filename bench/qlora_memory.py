#!/usr/bin/env python3
"""Peak memory of QLoRA on a Llama of 7B's shape: random weights in bitsandbytes' NF4 layout, one step of 1 x 2048 tokens.

usage: qlora_memory.py FOLDER [--layers N] [--tokens N] [--keep]      (TEMPER names the program)

Writes the model to FOLDER (32 layers: 4.0 GB), streaming, trains adapters of rank 16 on seven linears with block recompute,
and prints the peak of resident memory, planned and measured by the program itself, beside the file's size. With fewer layers it takes a fraction of the time; what a layer
adds is the difference of two runs, since everything else stays. Needs numpy and safetensors.
"""
import argparse
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
from safetensors import safe_open

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests" / "support"))
import tiny_model  # noqa: E402

HIDDEN, INTERMEDIATE, VOCAB, HEADS = 4096, 11008, 32000, 32
SHAPES = {"self_attn.q_proj": (HIDDEN, HIDDEN), "self_attn.k_proj": (HIDDEN, HIDDEN), "self_attn.v_proj": (HIDDEN, HIDDEN),
          "self_attn.o_proj": (HIDDEN, HIDDEN), "mlp.gate_proj": (INTERMEDIATE, HIDDEN),
          "mlp.up_proj": (INTERMEDIATE, HIDDEN), "mlp.down_proj": (HIDDEN, INTERMEDIATE)}


def nf4_parts(name, rows, cols, maps):
    """(name, dtype, shape, bytes-maker) of a linear: random codes, absmaxes around 0.02."""
    blocks = rows * cols // 64
    nested = (blocks + 255) // 256
    state = {"quant_type": "nf4", "blocksize": 64, "dtype": "bfloat16", "shape": [rows, cols], "nested_blocksize": 256,
             "nested_dtype": "float32", "nested_offset": 0.02}
    text = json.dumps(state).encode()
    random = np.random.default_rng(abs(hash(name)) % 2**32)
    yield name, "U8", [rows * cols // 2, 1], lambda: random.bytes(rows * cols // 2)
    yield name + ".absmax", "U8", [blocks], lambda: random.bytes(blocks)
    yield name + ".quant_map", "F32", [16], maps["quant_map"].tobytes
    yield name + ".nested_absmax", "F32", [nested], np.full(nested, 0.005, np.float32).tobytes
    yield name + ".nested_quant_map", "F32", [256], maps["nested_quant_map"].tobytes
    yield name + ".quant_state.bitsandbytes__nf4", "U8", [len(text)], lambda: text


def bf16(shape, value):
    """value(n) F32 as bf16 bytes, truncated: random anyway."""
    n = int(np.prod(shape))
    return (value(n).astype(np.float32).view(np.uint32) >> 16).astype(np.uint16).tobytes()


def model_parts(layers, maps):
    random = np.random.default_rng(1)
    table = lambda: bf16((VOCAB, HIDDEN), lambda n: random.standard_normal(n, dtype=np.float32) * 0.02)  # noqa: E731
    ones = lambda: bf16((HIDDEN,), np.ones)  # noqa: E731
    yield "model.embed_tokens.weight", "BF16", [VOCAB, HIDDEN], table
    for layer in range(layers):
        prefix = f"model.layers.{layer}."
        for norm in ("input_layernorm", "post_attention_layernorm"):
            yield f"{prefix}{norm}.weight", "BF16", [HIDDEN], ones
        for linear, (rows, cols) in SHAPES.items():
            yield from nf4_parts(f"{prefix}{linear}.weight", rows, cols, maps)
    yield "model.norm.weight", "BF16", [HIDDEN], ones
    yield "lm_head.weight", "BF16", [VOCAB, HIDDEN], table


def write_model(folder, layers):
    tiny_model.write(folder)  # its tokenizer
    with safe_open(ROOT / "tests" / "data" / "qlora" / "nf4" / "model.safetensors", "numpy") as golden:
        maps = {kind: golden.get_tensor("model.layers.0.mlp.up_proj.weight." + kind)
                for kind in ("quant_map", "nested_quant_map")}
    config = json.loads((ROOT / "tests" / "data" / "qlora" / "nf4" / "config.json").read_text())
    config |= {"hidden_size": HIDDEN, "intermediate_size": INTERMEDIATE, "vocab_size": VOCAB, "num_hidden_layers": layers,
               "num_attention_heads": HEADS, "num_key_value_heads": HEADS, "head_dim": HIDDEN // HEADS,
               "max_position_embeddings": 4096, "tie_word_embeddings": False}
    (folder / "config.json").write_text(json.dumps(config))
    size = {"U8": 1, "F32": 4, "BF16": 2}
    # The widest first and after a padded header, as safetensors' own writer does: tensors lie aligned, to be used as they are mapped.
    parts = sorted(model_parts(layers, maps), key=lambda part: -size[part[1]])
    header, at = {}, 0
    for name, dtype, shape, _ in parts:
        end = at + int(np.prod(shape)) * size[dtype]
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [at, end]}
        at = end
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open(folder / "model.safetensors", "wb") as out:
        out.write(len(text).to_bytes(8, "little") + text)
        for _, _, _, make in parts:
            out.write(make())
    return at


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--layers", type=int, default=32)
    parser.add_argument("--tokens", type=int, default=2048)
    parser.add_argument("--keep", action="store_true")
    options = parser.parse_args()
    model, run = options.folder / "model", options.folder / "run"
    file_bytes = write_model(model, options.layers)
    rows = options.folder / "rows.jsonl"
    rows.write_text(json.dumps({"text": "the rain in a plain " * options.tokens}) + "\n")
    shutil.rmtree(run, ignore_errors=True)
    done = subprocess.run([os.environ["TEMPER"], "train", "--model", model, "--data", rows, "--steps", "1", "--batch-size", "1",
                           "--seq-len", str(options.tokens), "--recompute", "block", "--lora-r", "16", "--out", run, "--json"],
                          stdout=subprocess.PIPE, text=True, check=True)
    report = json.loads(done.stdout)
    peak, planned = report["peak_rss_bytes"], report["planned_bytes"]
    log = json.loads((run / "log.jsonl").read_text().splitlines()[-1])
    print(f"{options.layers} layers, {log['tokens']} tokens: file {file_bytes / 1e9:.2f} GB, peak {peak / 1e9:.2f} GB, planned {planned / 1e9:.2f} GB, "
          f"step {log['seconds']:.0f} s, loss {log['loss']:.2f}")
    if not options.keep:
        shutil.rmtree(model)


if __name__ == "__main__":
    main()
