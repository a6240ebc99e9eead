#!/usr/bin/env python3
"""What peft trains beside adapters: tests/data/peft/beside.

usage: make_peft_beside_golden.py BASE OUT        (BASE: tests/data/hf/family_qwen2)

An adapter with bias "all" and a tied table in modules_to_save, its values random, as peft 0.21 saves it, and parity.safetensors: input_ids
[1, T], labels, loss, and grad.NAME of every trained parameter in f32, under its name in adapter_model.safetensors.
"""
import sys
from pathlib import Path

import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM


def main():
    base, out = map(Path, sys.argv[1:3])
    torch.manual_seed(3)
    model = get_peft_model(
        AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32, attn_implementation="eager"),
        LoraConfig(r=4, lora_alpha=8, target_modules=["q_proj", "k_proj", "down_proj"], bias="all", modules_to_save=["embed_tokens"],
                   ensure_weight_tying=True, task_type="CAUSAL_LM"))
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
        stem = name.replace(".modules_to_save.default", "").replace(".default", "")
        assert torch.equal(saved[stem], parameter), stem
        parity["grad." + stem] = parameter.grad.contiguous()
    save_file(parity, out / "parity.safetensors")


if __name__ == "__main__":
    main()
