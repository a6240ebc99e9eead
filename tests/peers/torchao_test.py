"""SmolLM2 quantized to torchao's layouts and read by transformers with torchao: the same weights bit for bit, the same loss."""
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "support"))

import json
import unittest

import numpy as np
import torch
import transformers
from safetensors.torch import load_file

import llama_cpp
from temper_cli import TemperTest, model, ok, ok_json, say, shown_ids, word_problems, write_jsonl

ROWS = 40
LINEARS = 210
# The peer multiplies in bf16, temper in f32 from the same weights: products of 30 layers, each rounded to 8 bits.
BF16_NLL = 0.02
# With activations in 8 bits a value at a midpoint goes one way here and another way there, and every later layer with it: what
# that rounding does to a row's NLL is noise. torchao's own forward in int8-int4 moves by as much when its inputs
# move by half a step of bf16 (1.376 to 1.418 on these rows), or when the same rounding is computed in f32 (1.397; on 100 rows 1.358 in
# bf16, 1.385 in f32). So the means may differ by this many standard errors of it.
STANDARD_ERRORS = 3
# Schemes whose forward pass torchao has on a CPU, and those of which it only reads the fields there. SmolLM2's rows of 576
# are no multiple of 128: int4, fp8-int4 and int4-sym-g128 hold them in groups of 64 and the rows of 1536 in groups of 128.
ROUNDED_INPUTS = ["int8-int4", "int8-int8", "fp8-fp8"]
RUN = [*ROUNDED_INPUTS, "int8", "cactus", "int4-sym-g128-bf16"]
READ = ["int4", "fp8-int4", "int4-g32", "nvfp4", "mxfp8"]


def decoded(weight):
    """What a tensor of torchao stands for, in bf16; by the layout's formula where the class has no dequantize."""
    if type(weight).__name__ == "Int4Tensor":
        packed = weight.qdata.to(torch.int16)
        codes = torch.stack([(packed << 12 >> 12), packed >> 4], -1).reshape(packed.shape[0], -1).float()
        group = weight.block_size[-1]
        scale, zero = (x.float().t().repeat_interleave(group, 1) for x in (weight.scale, weight.zero_point))
        return (codes * scale + zero).to(torch.bfloat16)
    if hasattr(weight, "dequantize"):
        try:
            return weight.dequantize(torch.bfloat16)
        except TypeError:
            return weight.dequantize().to(torch.bfloat16)
    return weight.to(torch.bfloat16)


class Torchao(TemperTest):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.held_out = write_jsonl(cls.folder / "test.jsonl", word_problems(ROWS, first=100))
        ok("export", "--model", model(), "--to", "hf", "--out", cls.folder / "base")
        cls.rows = [shown_ids(cls.folder / "base", cls.held_out, row) for row in range(1, ROWS + 1)]

    def load(self, scheme):
        """transformers' model of a scheme, its folder, and the weights that temper reads from it, in bf16."""
        folder = self.folder / scheme
        ok("quantize", "--model", self.folder / "base", "--scheme", scheme, "--to", "torchao", "--out", folder)
        ok("export", "--model", folder, "--to", "hf", "--out", self.folder / f"{scheme}-16")
        loaded = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16, device_map="cpu").eval()
        return loaded, folder, load_file(self.folder / f"{scheme}-16" / "model.safetensors")

    def compare_weights(self, scheme, loaded, ours):
        count = 0
        for name, weight in loaded.state_dict().items():
            if type(weight) is torch.Tensor and type(weight.data) is torch.Tensor:
                continue
            self.assertTrue(torch.equal(decoded(weight), ours[name]), f"{scheme}: {name} ({type(weight).__name__})")
            count += 1
        self.assertGreaterEqual(count, LINEARS)
        return count

    @torch.no_grad()
    def values(self, loaded):
        """The NLL of each row's learnt tokens."""
        found = []
        for ids, learnt in self.rows:
            logits = loaded(input_ids=torch.tensor([ids])).logits[0].float().numpy()
            found.append(llama_cpp.nll(logits[:-1], ids[1:])[np.array(learnt[1:])])
        return found

    def noise(self, scheme, values):
        """Standard error of the difference of two means that each hold the noise of rounded inputs: what these values differ by
        from those of the same weights with inputs as they are. By rows, since a row's first tokens move all of it."""
        plain = transformers.AutoModelForCausalLM.from_pretrained(self.folder / f"{scheme}-16", dtype=torch.float32).eval()
        rows = [(rounded - as_is).sum() for rounded, as_is in zip(values, self.values(plain))]
        return np.sqrt(2 * np.sum(np.square(rows))) / sum(map(len, values))

    def test_run(self):
        for scheme in RUN:
            with self.subTest(scheme):
                loaded, folder, ours = self.load(scheme)
                count = self.compare_weights(scheme, loaded, ours)
                values = self.values(loaded)
                bound = STANDARD_ERRORS * self.noise(scheme, values) if scheme in ROUNDED_INPUTS else BF16_NLL
                found, theirs = ok_json("eval", "--model", folder, "--data", self.held_out)["nll"], np.concatenate(values).mean()
                say(f"{scheme}: {count} weights equal bit for bit; answer NLL temper {found:.5f}, torchao {theirs:.5f}, bound {bound:.5f}")
                self.assertAlmostEqual(found, theirs, delta=bound)

    def test_read(self):
        for scheme in READ:
            with self.subTest(scheme):
                loaded, _, ours = self.load(scheme)
                say(f"{scheme}: {self.compare_weights(scheme, loaded, ours)} weights equal bit for bit")

    def test_trained_codes_ship(self):
        data = write_jsonl(self.folder / "train.jsonl", word_problems(24))
        run = self.folder / "run"
        ok("train", "--model", self.folder / "base", "--data", data, "--scheme", "int8-int4", "--to", "torchao", "--steps", 3,
           "--batch-size", 1, "--seq-len", 128, "--lora-r", 4, "--lr", "3e-3", "--out", run)
        report = json.loads(ok("export", "--run", run, "--to", "torchao", "--out", self.folder / "shipped", "--json"))
        self.assertTrue(report["as_trained"])
        self.assertLess(report["kld"], 1e-6)


if __name__ == "__main__":
    unittest.main()
