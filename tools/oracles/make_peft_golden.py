#!/usr/bin/env python3
"""Golden data of peft adapters: tests/data/peft.

usage: make_peft_golden.py ADAPTER BASE OUT

ADAPTER is a folder that peft 0.21 wrote (with parity.safetensors beside it: `merged.<name>` weights after merge_and_unload),
BASE the Hugging Face folder it adapts. Copies the adapter and writes, as F32, base and merged weight of the tensors that
parity.safetensors holds. Needs numpy, ml_dtypes and safetensors.
"""
import shutil
import sys
from pathlib import Path

import ml_dtypes  # noqa: F401  (numpy's bfloat16)
import numpy as np
from safetensors.numpy import load_file, save_file


def main():
    adapter, base, out = map(Path, sys.argv[1:4])
    out.mkdir(parents=True, exist_ok=True)
    for name in ("adapter_config.json", "adapter_model.safetensors"):
        shutil.copyfile(adapter / name, out / name)
    weights = load_file(base / "model.safetensors")
    tensors = {}
    for name, value in load_file(adapter / "parity.safetensors").items():
        if name.startswith("merged."):
            stem = name.removeprefix("merged.")
            tensors[name] = value.astype(np.float32)
            tensors["base." + stem] = weights[stem].astype(np.float32)
    save_file(tensors, out / "merged.safetensors")


if __name__ == "__main__":
    main()
