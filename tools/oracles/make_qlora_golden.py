#!/usr/bin/env python3
"""A tiny Llama on a bitsandbytes NF4 base with peft's LoRA, in f32: tests/data/qlora.

usage: make_qlora_golden.py OUT

OUT gets base/ (config.json, model.safetensors: the 16-bit model), nf4/ (the same as bitsandbytes quantized it, with double
quantization, and transformers saved it), adapter/ (peft's layout, B not zero) and parity.safetensors: input_ids, labels,
logits, loss, and `grad.<projection>.lora_A` and `.lora_B`. Needs torch, transformers, peft, bitsandbytes and safetensors.
"""
import shutil
import sys
from pathlib import Path

import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM, BitsAndBytesConfig, LlamaConfig, LlamaForCausalLM

SEED = 7
MASKED = -100


def make_base(folder):
    torch.manual_seed(SEED)
    config = LlamaConfig(vocab_size=61, hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=4,
                         num_key_value_heads=2, max_position_embeddings=64, tie_word_embeddings=False, pad_token_id=0,
                         bos_token_id=1, eos_token_id=2)
    model = LlamaForCausalLM(config)
    with torch.no_grad():
        for weight in model.parameters():
            weight.copy_(1 + 0.1 * torch.randn_like(weight) if weight.ndim == 1 else 0.08 * torch.randn_like(weight))
    model.to(torch.bfloat16).save_pretrained(folder)


def main():
    out = Path(sys.argv[1])
    shutil.rmtree(out, ignore_errors=True)
    make_base(out / "base")
    quantization = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True,
                                      bnb_4bit_compute_dtype=torch.float32)
    model = AutoModelForCausalLM.from_pretrained(out / "base", quantization_config=quantization, dtype=torch.bfloat16,
                                                 attn_implementation="eager", device_map="cpu")
    model.save_pretrained(out / "nf4")
    for parameter in model.parameters():  # what is not quantized; the codes and their scales stay
        if parameter.is_floating_point():
            parameter.data = parameter.data.float()
    for module in model.modules():
        if hasattr(module, "weight") and hasattr(module.weight, "quant_state"):
            module.weight.quant_state.dtype = torch.float32  # decoded without rounding
    model = get_peft_model(model, LoraConfig(r=4, lora_alpha=8, lora_dropout=0.0, task_type="CAUSAL_LM", target_modules=[
        "q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]))
    model.train()  # in evaluation, bitsandbytes packs codes anew on a CPU and multiplies in bf16
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "lora_B" in name:
                weight.copy_(0.05 * torch.randn_like(weight))
    ids = torch.randint(3, 61, (1, 29))
    labels = ids.clone()
    labels[torch.rand(labels.shape) < 0.2] = MASKED
    result = model(input_ids=ids, use_cache=False)
    loss = torch.nn.functional.cross_entropy(result.logits[:, :-1].float().flatten(0, 1), labels[:, 1:].flatten(),
                                             ignore_index=MASKED)
    loss.backward()
    tensors = {"input_ids": ids, "labels": labels, "logits": result.logits.detach().float().contiguous(),
               "loss": loss.detach().reshape(1)}
    for name, weight in model.named_parameters():
        if "lora_" not in name:
            continue
        plain = name.removeprefix("base_model.model.").replace(".default.weight", "")
        tensors["grad." + plain] = weight.grad.float().contiguous()
    model.save_pretrained(out / "adapter")
    save_file(tensors, out / "parity.safetensors", metadata={"torch": torch.__version__})
    for extra in [*out.rglob("README.md"), *out.rglob("generation_config.json")]:
        extra.unlink()
    print("loss", loss.item(), {str(f.relative_to(out)): f.stat().st_size for f in sorted(out.rglob("*")) if f.is_file()})


if __name__ == "__main__":
    main()
