#!/usr/bin/env python3
"""Makes tests/data/quant/llama_mixes.txt: the types that llama.cpp's llama-quantize gives to each tensor.

    make_llama_mixes_golden.py PATH/TO/llama-quantize

Models of four shapes, with matrices of four rows, are written by the gguf package and go through llama-quantize --dry-run. Lines:
    types NAME...                                              letters a, b, … stand for these
    model NAME LAYERS HIDDEN INTERMEDIATE HEADS KV_HEADS TIED
    mix MODEL FILE_TYPE KIND LETTERS                           a letter for each layer; one for token_embd and output
"""
import os
import re
import subprocess
import sys
import tempfile

import gguf
import numpy as np

OUT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "tests", "data", "quant", "llama_mixes.txt")
FTYPES = ["Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "Q2_K", "Q3_K_S", "Q3_K_M", "Q3_K_L", "Q4_K_S", "Q4_K_M", "Q5_K_S", "Q5_K_M", "Q6_K",
          "IQ4_NL", "IQ4_XS", "TQ1_0", "TQ2_0"]
MODELS = {  # layers, hidden, intermediate, heads, heads of keys, tied; smollm2-135m's shape first
    "smollm2": (30, 576, 1536, 9, 3, True),
    "grouped": (32, 512, 768, 8, 2, False),
    "large": (80, 256, 512, 64, 8, False),
    "odd": (11, 80, 96, 5, 5, True),
}


def write(path, layers, hidden, intermediate, heads, kv_heads, tied):
    w = gguf.GGUFWriter(path, "llama")
    w.add_block_count(layers); w.add_context_length(128); w.add_embedding_length(hidden); w.add_feed_forward_length(intermediate)
    w.add_head_count(heads); w.add_head_count_kv(kv_heads); w.add_layer_norm_rms_eps(1e-5); w.add_vocab_size(4)
    w.add_tokenizer_model("none")
    matrix = lambda name, cols: w.add_tensor(name + ".weight", np.zeros((4, cols), np.float16))
    matrix("token_embd", hidden)
    if not tied: matrix("output", hidden)
    w.add_tensor("output_norm.weight", np.zeros(hidden, np.float32))
    for i in range(layers):
        for name in ("attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up"): matrix(f"blk.{i}.{name}", hidden)
        matrix(f"blk.{i}.ffn_down", intermediate)
    w.write_header_to_file(); w.write_kv_data_to_file(); w.write_tensors_to_file(); w.close()


def main():
    names, result = [], {}
    with tempfile.TemporaryDirectory() as folder:
        for model, shape in MODELS.items():
            path = os.path.join(folder, model + ".gguf")
            write(path, *shape)
            for ftype in FTYPES:
                run = subprocess.run([sys.argv[1], "--dry-run", path, ftype], capture_output=True, text=True)
                found = re.findall(r"(?:blk\.(\d+)\.)?(\w+)\.weight\s+- \[.*?type =\s+f16, size = .*?(?:\((\w+)\))?$", run.stdout + run.stderr, re.M)
                assert len(found) == shape[0] * 7 + 1 + (not shape[5]), (model, ftype, len(found), run.stderr[-2000:])
                kinds = result.setdefault(model, {}).setdefault(ftype.lower(), {})
                for layer, kind, name in sorted(found, key=lambda f: int(f[0] or -1)):
                    name = (name or "f16").lower()
                    if name not in names: names.append(name)
                    kinds[kind] = kinds.get(kind, "") + chr(ord("a") + names.index(name))
    with open(OUT, "w") as f:
        print("types", *names, file=f)
        for model, shape in MODELS.items(): print("model", model, *map(int, shape), file=f)
        for model, mixes in result.items():
            for ftype, kinds in mixes.items():
                for kind, letters in kinds.items(): print("mix", model, ftype, kind, letters, file=f)



main()
