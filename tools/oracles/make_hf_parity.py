#!/usr/bin/env python3
"""Tiny random models with transformers' logits, loss and gradients in f32: tests/data/hf/odd_*.

usage: make_hf_parity.py OUT

Sizes are awkward on purpose: nothing is a multiple of a vector's width, heads × head_dim is not hidden_size, query heads share
key heads 2:1 and 4:1. The cases called packed hold two documents in one sequence: positions begin anew (`position_ids`) and
no document sees another (an explicit mask, independent of how transformers would derive one from the positions).

Each folder has config.json, model.safetensors (bf16) and parity.safetensors: input_ids, labels, logits, loss, `grad.<name>`
and, where packed, position_ids. Needs torch, transformers and safetensors.
"""
import shutil
import sys
from pathlib import Path

import torch
import transformers
from safetensors.torch import save_file

SEED = 20240607
MASKED = -100
COMMON = dict(vocab_size=83, hidden_size=72, intermediate_size=52, head_dim=18, max_position_embeddings=64, pad_token_id=0,
              bos_token_id=1, eos_token_id=2, attn_implementation="eager")
# name: class, what differs, lengths of the documents of each row
CASES = {
    "odd_untied": ("Llama", dict(num_hidden_layers=2, num_attention_heads=6, num_key_value_heads=3), [[19], [19]]),
    "odd_tied": ("Llama", dict(num_hidden_layers=1, num_attention_heads=4, num_key_value_heads=1, tie_word_embeddings=True),
                 [[23]]),
    "odd_packed": ("Llama", dict(num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=1, tie_word_embeddings=True),
                   [[17, 14]]),
    "odd_packed_swa": ("Mistral", dict(num_hidden_layers=1, num_attention_heads=6, num_key_value_heads=3, sliding_window=5),
                       [[13, 22]]),
}


def make_model(family, settings, generator):
    """Weights of a size that makes logits differ visibly; all are bf16 values, so that the file holds them exactly."""
    config = getattr(transformers, family + "Config")(**COMMON, **{"tie_word_embeddings": False, **settings})
    model = getattr(transformers, family + "ForCausalLM")(config).float().eval()
    with torch.no_grad():
        for name, weight in model.named_parameters():
            noise = torch.randn(weight.shape, generator=generator)
            if weight.ndim == 1:
                value = 1 + 0.1 * noise
            else:
                value = noise * (0.2 if "embed" in name or "lm_head" in name else 0.6 / weight.shape[1] ** 0.5)
            weight.copy_(value.bfloat16().float())
    return model


def document_mask(lengths, window):
    """[1, 1, T, T] to add to the scores: 0 where a query may look, else -inf."""
    document = torch.repeat_interleave(torch.arange(len(lengths)), torch.tensor(lengths))
    at = torch.arange(len(document))
    distance = at[:, None] - at[None, :]
    seen = (document[:, None] == document[None, :]) & (distance >= 0)
    if window:
        seen &= distance < window
    return torch.zeros(seen.shape).masked_fill(~seen, float("-inf"))[None, None]


def make_case(folder, family, settings, rows):
    generator = torch.Generator().manual_seed(SEED)
    model = make_model(family, settings, generator)
    length = sum(rows[0])
    ids = torch.randint(3, COMMON["vocab_size"], (len(rows), length), generator=generator)
    labels = ids.clone()
    labels[torch.rand(labels.shape, generator=generator) < 0.2] = MASKED
    inputs, tensors = {}, {}
    if any(len(row) > 1 for row in rows):
        assert len(rows) == 1, "packed: one row"
        position_ids = torch.cat([torch.arange(n) for n in rows[0]])[None]
        labels[position_ids == 0] = MASKED  # the last token of a document does not predict the next one's first
        inputs = {"position_ids": position_ids, "attention_mask": document_mask(rows[0], settings.get("sliding_window"))}
        tensors["position_ids"] = position_ids
    out = model(input_ids=ids, use_cache=False, **inputs)
    loss = torch.nn.functional.cross_entropy(out.logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten(), ignore_index=MASKED)
    loss.backward()
    tensors |= {"input_ids": ids, "labels": labels, "logits": out.logits.detach().contiguous(),
                "loss": loss.detach().reshape(1)}
    tensors |= {"grad." + name: weight.grad.contiguous() for name, weight in model.named_parameters()}
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    model.config.architectures = [family + "ForCausalLM"]
    model.config.save_pretrained(folder)
    save_file({name: weight.detach().bfloat16().contiguous() for name, weight in model.named_parameters()},
              folder / "model.safetensors", metadata={"format": "pt"})
    save_file(tensors, folder / "parity.safetensors",
              metadata={"torch": torch.__version__, "transformers": transformers.__version__, "dtype": "float32"})
    return loss.item(), out.logits.detach(), ids


def check_packed(folder, family, settings, rows, logits, ids):
    """Each document alone, without any mask of ours, must give the same logits: else the mask was not obeyed."""
    model = make_model(family, settings, torch.Generator().manual_seed(SEED))
    begin = 0
    for n in rows[0]:
        alone = model(input_ids=ids[:, begin:begin + n], use_cache=False).logits.detach()
        error = (alone - logits[:, begin:begin + n]).abs().max().item()
        assert error < 1e-5, f"{folder}: document at {begin}: {error}"
        begin += n


def main():
    torch.set_num_threads(1)
    for name, (family, settings, rows) in CASES.items():
        folder = Path(sys.argv[1]) / name
        loss, logits, ids = make_case(folder, family, settings, rows)
        if len(rows[0]) > 1:
            check_packed(folder, family, settings, rows, logits, ids)
        print(name, "loss", loss, {f.name: f.stat().st_size for f in sorted(folder.iterdir())})


if __name__ == "__main__":
    main()
