"""Exports of real runs in transformers and peft: the same token ids, the same NLL and logits' order, the same merged weights."""
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "support"))

import json
import unittest

import gguf
import numpy as np
import peft
import torch
import transformers
from safetensors.torch import load_file

import llama_cpp
from temper_cli import TemperTest, model, ok, ok_json, say, shown_ids, word_problems, write_jsonl

ROWS = 6
# Both compute in f32 from the same bf16 weights: a dot product of K = 1536 terms differs by up to about sqrt(K) * 2^-24 = 2e-6
# of its size with the order of its sum, 30 layers pass that on to logits of size 20.
F32_NLL = 2e-4
F32_LOGIT = 5e-3
PROMPTS = ["The capital of France is", "Once upon a time there was a small"]


class HuggingFace(TemperTest):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        torch.manual_seed(0)
        cls.data = write_jsonl(cls.folder / "train.jsonl", word_problems(24))
        cls.held_out = write_jsonl(cls.folder / "test.jsonl", word_problems(ROWS, first=100))
        ok("export", "--model", model(), "--to", "hf", "--out", cls.folder / "base")
        for name, scheme in (("tuned", "none"), ("qat", "q4_0")):
            run = cls.folder / name
            ok("train", "--model", cls.folder / "base", "--data", cls.data, "--scheme", scheme, "--steps", 3, "--batch-size", 1,
               "--seq-len", 128, "--lora-r", 4, "--lr", "3e-3", "--out", run)
            ok("export", "--run", run, "--to", "hf", "--out", cls.folder / f"{name}-hf")
            ok("export", "--run", run, "--to", "adapter", "--out", cls.folder / f"{name}-adapter")
        ok("export", "--run", cls.folder / "qat", "--to", "gguf:q4_0", "--out", cls.folder / "qat.gguf")
        ok("quantize", "--model", cls.folder / "qat-hf", "--scheme", "q4_0", "--out", cls.folder / "ptq.gguf")
        cls.rows = [shown_ids(cls.folder / "base", cls.held_out, row) for row in range(1, ROWS + 1)]

    def load(self, name, dtype=torch.float32):
        return transformers.AutoModelForCausalLM.from_pretrained(self.folder / name, dtype=dtype).eval()

    def adapted(self, name, dtype=torch.float32):
        return peft.PeftModel.from_pretrained(self.load("base", dtype), self.folder / f"{name}-adapter").eval()

    @torch.no_grad()
    def logits(self, loaded, ids):
        return loaded(input_ids=torch.tensor([ids])).logits[0].float().numpy()

    def mean_nll(self, loaded):
        total, count = 0.0, 0
        for ids, learnt in self.rows:
            values = llama_cpp.nll(self.logits(loaded, ids)[:-1], ids[1:])[np.array(learnt[1:])]
            total, count = total + values.sum(), count + len(values)
        return total / count

    def compare(self, what, arguments, loaded):
        """temper's answer NLL and greedy tokens against a loaded model's."""
        found = ok_json("eval", *arguments, "--data", self.held_out, "--compute", "f32")["nll"]
        expected = self.mean_nll(loaded)
        self.assertAlmostEqual(found, expected, delta=F32_NLL, msg=what)
        tokenizer = transformers.AutoTokenizer.from_pretrained(self.folder / "base")
        sure_count = count = 0
        for prompt in PROMPTS:
            start = tokenizer(prompt, add_special_tokens=False)["input_ids"]
            ids = ok_json("generate", *arguments, "--prompt", prompt, "--raw", "--temperature", 0, "--max-tokens", 24,
                          "--compute", "f32")["ids"]
            values = self.logits(loaded, start + ids)[len(start) - 1:-1]
            top = np.sort(values, axis=1)
            sure = top[:, -1] - top[:, -2] > 2 * F32_LOGIT
            self.assertTrue((values.argmax(axis=1) == np.array(ids))[sure].all(), f"{what}: {prompt!r}")
            sure_count, count = sure_count + int(sure.sum()), count + len(ids)
        say(f"{what}: answer NLL temper {found:.6f}, peer {expected:.6f}; top-1 equal at {sure_count} of {count} positions "
            f"(margin over {2 * F32_LOGIT})")
        return expected

    def test_tokens(self):
        """transformers' tokenizer and chat template, read from the export, make temper's ids."""
        for name in ("base", "tuned-hf", "qat-hf"):
            tokenizer = transformers.AutoTokenizer.from_pretrained(self.folder / name)
            for (ids, _), row in zip(self.rows, word_problems(ROWS, first=100)):
                self.assertEqual(list(tokenizer.apply_chat_template(row["messages"], return_dict=False)), ids)
            self.assertEqual(tokenizer.eos_token, "<|im_end|>")
        say(f"apply_chat_template gives temper's ids for {ROWS} rows, from 3 exported folders")

    def test_merged_checkpoint(self):
        for name in ("tuned-hf", "qat-hf"):
            self.compare(name, ["--model", self.folder / name], self.load(name))

    def test_adapter_on_base(self):
        """Without quantization the run is what peft computes: base and adapter side by side; its merged checkpoint differs by
        the rounding of weights to bf16 alone."""
        side_by_side = self.compare("adapter on base", ["--run", self.folder / "tuned"], self.adapted("tuned"))
        merged = self.mean_nll(self.load("tuned-hf"))
        base = self.mean_nll(self.load("base"))
        self.assertLess(side_by_side, base - 0.05, "training must have changed the model")
        # bf16 keeps 8 bits of each weight's own size; the base was rounded so, too.
        self.assertAlmostEqual(merged, side_by_side, delta=0.02)
        say(f"merged and rounded to bf16: {merged:.6f}; base: {base:.6f}")

    def merge_doubt(self):
        """name → bound of how far two f32 sums of W + s·B·A may lie apart: 2 (r + 2) steps of 2^-24 of the sum of sizes."""
        factors = load_file(self.folder / "qat-adapter" / "adapter_model.safetensors")
        settings = json.loads((self.folder / "qat-adapter" / "adapter_config.json").read_text())
        rank, scale = settings["r"], settings["lora_alpha"] / settings["r"]
        base = load_file(self.folder / "base" / "model.safetensors")
        doubt = {}
        for key, a in factors.items():
            if ".lora_A." in key:
                name = key.removeprefix("base_model.model.").replace(".lora_A.weight", ".weight")
                b = factors[key.replace(".lora_A.", ".lora_B.")]
                doubt[name] = 2 * (rank + 2) * 2**-24 * (base[name].float().abs() + scale * (b.abs() @ a.abs()))
        self.assertEqual(len(doubt), 210)
        return doubt

    def test_peft_merges_to_the_same_weights(self):
        """peft's own merge, in f32 and then rounded to bf16, is ours but for the order of a sum of r + 1 terms; ggml's quantizer
        makes the trained codes of it wherever it is equal."""
        merged = self.adapted("qat").merge_and_unload().state_dict()
        ours = load_file(self.folder / "qat-hf" / "model.safetensors")
        doubt = self.merge_doubt()
        different = total = 0
        for name, weight in ours.items():
            peer, weight = merged[name].to(torch.bfloat16).float(), weight.float()
            apart = (peer - weight).abs()
            # Rounding to bf16 can add one step, 2^-7 of the value at most.
            step = 2**-7 * torch.maximum(peer.abs(), weight.abs())
            self.assertTrue(bool((apart <= (step + doubt[name] if name in doubt else 0 * step)).all()), name)
            different, total = different + int((apart > 0).sum()), total + weight.numel()
        self.assertLess(different, total / 1000)
        trained = {t.name: t for t in gguf.GGUFReader(self.folder / "qat.gguf").tensors}
        blocks = unequal = 0
        for layer in (0, 15, 29):
            peer = merged[f"model.layers.{layer}.mlp.down_proj.weight"].to(torch.bfloat16).float().numpy()
            found = np.asarray(trained[f"blk.{layer}.ffn_down.weight"].data).view(np.uint8).reshape(-1, 18)
            expected = llama_cpp.quantize(peer, "Q4_0").reshape(-1, 18)
            blocks, unequal = blocks + len(found), unequal + int((found != expected).any(axis=1).sum())
        self.assertLess(unequal, blocks / 1000)
        say(f"peft's merge: {different} of {total} weights differ, by their rounding alone; of {blocks} blocks that ggml quantizes "
            f"from it {unequal} differ from the trained ones")

    def test_quantized_checkpoint_is_the_trained_file(self):
        trained, other = ({t.name: t for t in gguf.GGUFReader(self.folder / f).tensors} for f in ("qat.gguf", "ptq.gguf"))
        self.assertEqual(sorted(trained), sorted(other))
        for name, tensor in trained.items():
            self.assertTrue(np.array_equal(tensor.data, other[name].data), name)
        say(f"q4_0 of the merged checkpoint: all {len(trained)} tensors equal the trained ones")


if __name__ == "__main__":
    unittest.main(verbosity=2)
