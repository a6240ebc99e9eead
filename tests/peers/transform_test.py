"""Transformed models in transformers: plain Llamas that answer as before."""
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "support"))

import json
import unittest

import torch
import transformers

from temper_cli import TemperTest, model, ok, ok_json, word_problems, write_jsonl

PROMPTS = ["The capital of France is", "Once upon a time there was a small", "def add(a, b):\n    return"]
# Changed weights are rounded to bf16 again, 2^-9 of each: the same order as the rounding that made the base bf16.
KLD = 2e-3


class Transform(TemperTest):
    @torch.no_grad()
    def test_rotated_and_scaled_models_are_plain_llamas(self):
        ok("export", "--model", model(), "--to", "hf", "--out", self.folder / "base")
        data = write_jsonl(self.folder / "rows.jsonl", word_problems(24))
        calibration = ["--calibration", data, "--calibration-tokens", 1024]
        tokenizer = transformers.AutoTokenizer.from_pretrained(self.folder / "base")
        ids = [tokenizer(p, return_tensors="pt").input_ids for p in PROMPTS]
        load = lambda name: transformers.AutoModelForCausalLM.from_pretrained(self.folder / name, dtype=torch.float32).eval()
        base = load("base")
        expected = [torch.log_softmax(base(i).logits[0], -1) for i in ids]
        for name, flags in (("rotate", []), ("awq", ["--scheme", "int4-sym-g32", *calibration]), ("smoothquant", calibration)):
            report = ok_json("transform", "--model", self.folder / "base", "--transform", name, *flags, "--out", self.folder / name)
            self.assertLess(report["kld"], KLD, name)
            changed = load(name)
            self.assertEqual(json.loads((self.folder / name / "config.json").read_text())["tie_word_embeddings"], name != "rotate")
            for i, before in zip(ids, expected):
                after = torch.log_softmax(changed(i).logits[0], -1)
                kld = (before.exp() * (before - after)).sum(-1).mean().item()
                self.assertLess(kld, KLD, name)
            weights = changed.model.layers[0].self_attn.q_proj.weight
            self.assertFalse(torch.equal(weights, base.model.layers[0].self_attn.q_proj.weight), name)


if __name__ == "__main__":
    unittest.main()
