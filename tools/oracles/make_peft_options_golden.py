#!/usr/bin/env python3
"""LoRA's options as peft computes them: tests/data/peft/patterns and tests/data/peft/dora.

usage: make_peft_options_golden.py BASE OUT        (BASE: tests/data/hf/family_qwen2; OUT: tests/data/peft)

For each variant an adapter, its values random, as peft 0.21 saves it, and parity.safetensors: input_ids [1, T], labels, loss, and grad.NAME of
every trained parameter in f32, under its name in adapter_model.safetensors.
"""
import sys
from pathlib import Path

import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

VARIANTS = {
    "patterns": dict(r=4, lora_alpha=8, use_rslora=True, target_modules=["q_proj", "v_proj", "up_proj", "down_proj"],
                     rank_pattern={"up_proj": 2, "model.layers.1.self_attn.q_proj": 6}, alpha_pattern={"down_proj": 5, "self_attn.v_proj": 3},
                     layers_to_transform=[1]),
    "dora": dict(r=4, lora_alpha=8, use_dora=True, target_modules=["q_proj", "k_proj", "o_proj", "gate_proj", "down_proj"]),
}


def write(base, out, options):
    torch.manual_seed(3)
    model = get_peft_model(
        AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32, attn_implementation="eager"), LoraConfig(task_type="CAUSAL_LM", **options))
    for name, parameter in model.named_parameters():
        if parameter.requires_grad and "lora_A" not in name:
            parameter.data += 0.05 * torch.randn_like(parameter)
    ids = torch.randint(3, model.config.vocab_size, (1, 17))
    labels = ids.clone()
    labels[0, :5] = -100
    loss = model(input_ids=ids, labels=labels).loss
    loss.backward()
    model.save_pretrained(out)
    (out / "README.md").unlink(missing_ok=True)
    saved = load_file(out / "adapter_model.safetensors")
    parity = {"input_ids": ids, "labels": labels, "loss": loss.detach().reshape(1)}
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        stem = name.replace(".default.weight", ".weight").replace("lora_magnitude_vector.weight", "lora_magnitude_vector")
        assert torch.equal(saved[stem], parameter), stem
        parity["grad." + stem] = parameter.grad.contiguous()
    save_file(parity, out / "parity.safetensors")


def main():
    base, out = map(Path, sys.argv[1:3])
    for name, options in VARIANTS.items():
        write(base, out / name, options)


if __name__ == "__main__":
    main()
