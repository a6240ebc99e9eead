"""SmolLM2 quantized to torchao's layouts and read by transformers with torchao: the same weights bit for bit, the same loss."""
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "support"))

import json
import shutil
import unittest

import numpy as np
import torch
import transformers
from safetensors.torch import load_file, save_file
from torchao.quantization.quantize_.workflows.intx.intx_unpacked_to_int8_tensor import (
    _apply_int8_act_asym_per_token_quant_dequant as int8_per_token)

import llama_cpp
from rounding_noise import ACTIVATIONS_NLL, BF16_NLL, ROWS
from temper_cli import TemperTest, model, ok, ok_json, say, shown_ids, word_problems, write_jsonl

LINEARS = 210
SITES = [["q_proj", "k_proj", "v_proj"], ["o_proj"], ["gate_proj", "up_proj"], ["down_proj"]]
SITE_NLL = 5e-4
# Schemes whose forward pass torchao has on a CPU, and those of which it only reads the fields there. SmolLM2's rows of 576
# are no multiple of 128: int4, fp8-int4 and int4-sym-g128 hold them in groups of 64 and the rows of 1536 in groups of 128.
RUN = {"int8-int4": ACTIVATIONS_NLL, "int8": BF16_NLL, "cactus": BF16_NLL, "int8-int8": ACTIVATIONS_NLL,
       "fp8-fp8": ACTIVATIONS_NLL, "int4-sym-g128-bf16": BF16_NLL}
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
    def nll(self, loaded):
        found = []
        for ids, learnt in self.rows:
            logits = loaded(input_ids=torch.tensor([ids])).logits[0].float().numpy()
            found.append(llama_cpp.nll(logits[:-1], ids[1:])[np.array(learnt[1:])])
        return np.concatenate(found).mean()

    def test_run(self):
        for scheme, bound in RUN.items():
            with self.subTest(scheme):
                loaded, folder, ours = self.load(scheme)
                count = self.compare_weights(scheme, loaded, ours)
                theirs, found = self.nll(loaded), ok_json("eval", "--model", folder, "--data", self.held_out)["nll"]
                say(f"{scheme}: {count} weights equal bit for bit; answer NLL temper {found:.5f}, torchao {theirs:.5f}")
                self.assertAlmostEqual(found, theirs, delta=bound)

    def test_inputs(self):
        """Rounding the inputs of one kind of projection in a model of one block moves the loss as torchao's rounding moves it."""
        folder = self.first_block()
        plain = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
        for site in SITES:
            # Weights of 8 bits on either side, so that they drop out of the difference.
            scores = [ok_json("eval", "--model", folder, "--data", self.held_out, "--compute", "f32", "--scheme",
                              "none; " + "; ".join(f"{name}: int8-sym{activations}" for name in site))["nll"]
                      for activations in ("", "/int8-asym")]
            theirs = self.nll(plain)
            hooks = [module.register_forward_pre_hook(lambda _, inputs: (int8_per_token(inputs[0]),))
                     for name, module in plain.named_modules() if name.rsplit(".", 1)[-1] in site]
            moved, found = self.nll(plain) - theirs, scores[1] - scores[0]
            say(f"inputs of {', '.join(site)} rounded: answer NLL moves by {found:+.5f}, with torchao's rounding {moved:+.5f}")
            self.assertNotEqual(found, 0)
            self.assertAlmostEqual(found, moved, delta=SITE_NLL)
            for hook in hooks:
                hook.remove()

    def first_block(self):
        """The base's first block as a model."""
        folder = self.folder / "first"
        shutil.copytree(self.folder / "base", folder)
        config = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps({**config, "num_hidden_layers": 1}))
        weights = load_file(folder / "model.safetensors")
        save_file({name: tensor for name, tensor in weights.items() if not name.startswith("model.layers.") or ".layers.0." in name},
                  folder / "model.safetensors", metadata={"format": "pt"})
        return folder

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
