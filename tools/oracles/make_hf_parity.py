#!/usr/bin/env python3
"""Tiny random models with transformers' logits, loss and gradients in f32: tests/data/hf/odd_* and family_*.

usage: make_hf_parity.py OUT [NAME…]

Sizes are awkward on purpose: nothing is a multiple of a vector's width, heads × head_dim is not hidden_size, query heads share
key heads 2:1 and 4:1. The cases called packed hold two documents in one sequence: positions begin anew (`position_ids`) and
no document sees another (an explicit mask, independent of how transformers would derive one from the positions). Those called
family_* have one architecture each, with every part in which it differs from Llama at work within the few tokens.

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
SMALL = dict(vocab_size=45, hidden_size=36, intermediate_size=28, head_dim=12, num_attention_heads=4, num_key_value_heads=2)
ROWS = [[21]]
GEMMA = dict(SMALL, tie_word_embeddings=True, sliding_window=5, query_pre_attn_scalar=20)
YARN = dict(rope_type="yarn", rope_theta=10000.0, factor=4.0, original_max_position_embeddings=16)
LONGROPE = dict(rope_type="longrope", rope_theta=10000.0, original_max_position_embeddings=16, partial_rotary_factor=0.5,
                short_factor=[1.0, 1.5, 2.0], long_factor=[1.0, 3.0, 9.0])
PHI = dict(SMALL, hidden_size=48, rope_parameters=LONGROPE, original_max_position_embeddings=16)
CASES |= {
    "family_qwen2": ("Qwen2", dict(SMALL, num_hidden_layers=2, tie_word_embeddings=True, use_sliding_window=True, sliding_window=6,
                                   max_window_layers=1), ROWS),
    "family_qwen3": ("Qwen3", dict(SMALL, num_hidden_layers=1), ROWS),
    "family_gemma2": ("Gemma2", dict(GEMMA, num_hidden_layers=2, attn_logit_softcapping=2.0, final_logit_softcapping=3.0), ROWS),
    "family_gemma3": ("Gemma3", dict(GEMMA, num_hidden_layers=2, layer_types=["sliding_attention", "full_attention"]), ROWS),
    "family_smollm3": ("SmolLM3", dict(SMALL, num_hidden_layers=2, tie_word_embeddings=True, no_rope_layers=[1, 0]), ROWS),
    "family_ministral": ("Ministral", dict(SMALL, num_hidden_layers=2, sliding_window=6,
                                           layer_types=["sliding_attention", "full_attention"]), ROWS),
    "family_yarn": ("Llama", dict(SMALL, num_hidden_layers=1, rope_parameters=YARN), ROWS),
    "family_phi3": ("Phi3", dict(PHI, num_hidden_layers=1), ROWS),
    "family_phi3_short": ("Phi3", dict(PHI, num_hidden_layers=1, sliding_window=5), [[13]]),
}


def make_model(family, settings, generator):
    """Weights of a size that makes logits differ visibly; all are bf16 values, so that the file holds them exactly."""
    config_class = "Gemma3TextConfig" if family == "Gemma3" else family + "Config"
    config = getattr(transformers, config_class)(**{**COMMON, "tie_word_embeddings": False, **settings})
    model = getattr(transformers, family + "ForCausalLM")(config).float().eval()
    with torch.no_grad():
        for name, weight in model.named_parameters():
            noise = torch.randn(weight.shape, generator=generator)
            if weight.ndim == 1:
                # Gemma's norms multiply by 1 + w; biases lie around 0.
                value = 0.1 * noise + (0 if "Gemma" in family or name.endswith("bias") else 1)
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
    ids = torch.randint(3, settings.get("vocab_size", COMMON["vocab_size"]), (len(rows), length), generator=generator)
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
        if sys.argv[2:] and name not in sys.argv[2:]:
            continue
        folder = Path(sys.argv[1]) / name
        loss, logits, ids = make_case(folder, family, settings, rows)
        if len(rows[0]) > 1:
            check_packed(folder, family, settings, rows, logits, ids)
        print(name, "loss", loss, {f.name: f.stat().st_size for f in sorted(folder.iterdir())})


if __name__ == "__main__":
    main()
