"""LoRA's options on a tiny model, through the program: peft reads the adapters that it exports, computes the same NLL with them,
and merges them to the same weights; a run continues an adapter that peft made."""
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "support"))

import inspect
import json
import shutil
import unittest

import bitsandbytes as bnb
import numpy as np
import peft
import torch
import transformers
from peft.utils import loftq_utils
from safetensors.torch import load_file

import llama_cpp
import tiny_model
from temper_cli import TemperTest, ok, ok_json, say, shown_ids, write_jsonl

VARIANTS = {
    "patterns": ["--lora-rank-pattern", "q_proj=2,model.layers.1.mlp.down_proj=8", "--lora-alpha-pattern", "up_proj=3", "--lora-layers", "1-2",
                 "--rslora"],
    "dora": ["--dora"],
    "dora-qat": ["--dora", "--scheme", "int4-sym-g32"],
    "dropout": ["--lora-dropout", "0.2"],
}
# f32 sums of at most 256 products in another order, through four blocks.
F32_NLL = 1e-4


def rows(count, first=0):
    return [{"messages": [{"role": "user", "content": f"what is {i % 7} + {i % 5}?"},
                          {"role": "assistant", "content": f"it is {i % 7 + i % 5}."}]} for i in range(first, first + count)]


class PeftOptions(TemperTest):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.base = tiny_model.write_random(cls.folder / "base")
        cls.data = write_jsonl(cls.folder / "train.jsonl", rows(40))
        cls.held_out = write_jsonl(cls.folder / "test.jsonl", rows(4, first=100))
        cls.ids = [shown_ids(cls.base, cls.held_out, row) for row in range(1, 5)]
        for name, options in VARIANTS.items():
            cls.train(name, *options)

    @classmethod
    def train(cls, name, *options, steps=6, lr="1e-2", adapter=True):
        ok("train", "--model", cls.base, "--data", cls.data, "--steps", steps, "--batch-size", 2, "--seq-len", 64, "--lora-r", 4, "--lr", lr,
           "--out", cls.folder / name, *options)
        if adapter:
            ok("export", "--run", cls.folder / name, "--to", "adapter", "--out", cls.folder / f"{name}-adapter")

    def load(self):
        return transformers.AutoModelForCausalLM.from_pretrained(self.base, dtype=torch.float32).eval()

    @torch.no_grad()
    def nll(self, loaded):
        values = [llama_cpp.nll(loaded(input_ids=torch.tensor([ids])).logits[0].numpy()[:-1], ids[1:])[np.array(learnt[1:])]
                  for ids, learnt in self.ids]
        return np.concatenate(values).mean()

    def found(self, *arguments):
        return ok_json("eval", *arguments, "--data", self.held_out, "--compute", "f32")["nll"]

    def test_side_by_side(self):
        before = self.nll(self.load())
        for name in ("patterns", "dora", "dropout"):
            expected = self.nll(peft.PeftModel.from_pretrained(self.load(), self.folder / f"{name}-adapter").eval())
            found = self.found("--run", self.folder / name)
            say(f"{name}: answer NLL temper {found:.6f}, peft {expected:.6f}, base {before:.6f}")
            self.assertAlmostEqual(found, expected, delta=F32_NLL, msg=name)
            self.assertGreater(abs(before - expected), 100 * F32_NLL, name)  # it has learnt something to compare

    def test_merged(self):
        """peft's own merge is ours but for the order of a sum of r + 1 terms, and of the squares of DoRA's norms."""
        for name in VARIANTS:
            ok("export", "--run", self.folder / name, "--to", "hf", "--out", self.folder / f"{name}-hf")
            ours = load_file(self.folder / f"{name}-hf" / "model.safetensors")
            theirs = peft.PeftModel.from_pretrained(self.load(), self.folder / f"{name}-adapter").merge_and_unload().state_dict()
            worst = max(float((ours[key] - theirs[key]).abs().max() / theirs[key].abs().max()) for key in ours)
            say(f"{name}: merged weights differ by {worst:.1e} of the largest")
            self.assertLess(worst, 2e-6, name)

    def test_continues_what_peft_made(self):
        torch.manual_seed(1)
        model = peft.get_peft_model(self.load(), peft.LoraConfig(
            r=4, lora_alpha=6, target_modules=["q_proj", "down_proj"], rank_pattern={"down_proj": 3}, use_dora=True, lora_dropout=0.1,
            layers_to_transform=[0, 3], task_type="CAUSAL_LM")).eval()
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.data += 0.05 * torch.randn_like(parameter)
        model.save_pretrained(self.folder / "theirs")
        for name, scheme in (("continued", "none"), ("continued-qat", "q4_0")):
            ok("train", "--model", self.base, "--data", self.data, "--lora-adapter", self.folder / "theirs", "--scheme", scheme, "--steps", 1,
               "--batch-size", 2, "--lr", "1e-9", "--out", self.folder / name)
            ok("export", "--run", self.folder / name, "--to", "adapter", "--out", self.folder / f"{name}-adapter")
            back = peft.PeftModel.from_pretrained(self.load(), self.folder / f"{name}-adapter").eval()
            for (key, ours), theirs in zip(sorted(back.state_dict().items()), (v for _, v in sorted(model.state_dict().items()))):
                self.assertLess(float((ours - theirs).abs().max()), 1e-6, key)
        found, expected = self.found("--run", self.folder / "continued"), self.nll(model)
        say(f"continued from peft's: answer NLL temper {found:.6f}, peft {expected:.6f}")
        self.assertAlmostEqual(found, expected, delta=F32_NLL)

    def test_loftq(self):
        """What adapters begin with holds as much of NF4's error as peft's decomposition of it (its replace_lora_weights_loftq), with
        bitsandbytes' rounding; the singular values of noise lie close, so vectors may differ, and the distance is what counts."""
        self.train("loftq", "--base-format", "nf4", "--lora-init", "loftq", "--lora-alpha", 12, steps=1, lr="1e-9")
        base, adapter = load_file(self.base / "model.safetensors"), load_file(self.folder / "loftq-adapter" / "adapter_model.safetensors")
        worst, share = 0.0, []
        for name in [key for key in base if key.endswith("_proj.weight")]:
            weight = base[name].float()
            codes, state = bnb.functional.quantize_4bit(weight, blocksize=64, quant_type="nf4")
            lost = weight - bnb.functional.dequantize_4bit(codes, state)
            factors = loftq_utils._low_rank_decomposition(lost, reduced_rank=4)
            stem = "base_model.model." + name.removesuffix(".weight")
            ours = lost - 3 * adapter[f"{stem}.lora_B.weight"] @ adapter[f"{stem}.lora_A.weight"]
            theirs = lost - factors["L"] @ factors["R"]
            worst = max(worst, float(ours.norm() / theirs.norm()) - 1)
            share.append(1 - float(ours.norm() ** 2 / lost.norm() ** 2))
        say(f"LoftQ: adapters of rank 4 hold {100 * np.mean(share):.1f} % of NF4's squared error; at most {worst:.1e} further than peft's")
        self.assertLess(worst, 1e-3)

    def test_loftq_iterations(self):
        """As peft's loftq_init, whose own code runs here with its device changed: it asks for a GPU. Both alternate between the
        same rounding and decompositions that differ in their last bits or, of ours, by 1e-4 in squares (model/low_rank_approximation.h),
        so that some codes differ from then on; what counts is how far base and adapter are from the weights."""
        source = inspect.getsource(loftq_utils.loftq_init)
        self.assertIn('"cuda"', source)
        on_cpu = vars(loftq_utils) | {"clear_device_cache": lambda: None}
        exec("from __future__ import annotations\n" + source.replace('"cuda"', '"cpu"'), on_cpu)
        base = load_file(self.base / "model.safetensors")
        left = {}
        for iterations in (1, 2, 5):
            name = f"loftq-{iterations}"
            self.train(name, "--base-format", "nf4", "--lora-init", "loftq", "--loftq-iterations", iterations, "--lora-alpha", 12, steps=1,
                       lr="1e-9", adapter=iterations == 1)
            ok("export", "--run", self.folder / name, "--to", "hf", "--out", self.folder / f"{name}-hf")
            merged = load_file(self.folder / f"{name}-hf" / "model.safetensors")
            for key in [key for key in base if key.endswith("_proj.weight")]:
                rounded, a, b = on_cpu["loftq_init"](base[key], num_bits=4, reduced_rank=4, num_iter=iterations)
                left.setdefault(iterations, []).append((float((base[key] - merged[key]).norm()),
                                                        float((base[key] - rounded - b @ a).norm()), float(base[key].norm())))
            ours, theirs, norm = np.array(left[iterations]).T
            say(f"LoftQ, {iterations} iterations: {100 * np.mean(ours / norm):.3f} % from the weights, peft {100 * np.mean(theirs / norm):.3f} %; "
                f"at most {np.max(ours / theirs) - 1:.1e} further than peft's")
            self.assertLess(np.max(ours / theirs) - 1, 1e-4 * iterations)
            self.assertLessEqual(np.max(ours / np.array(left[1])[:, 0]), 1)

    def start(self, name):
        return load_file(self.folder / name / "start" / "adapter_model.safetensors")

    def test_pissa_begins_as_peft(self):
        """W − s·B·A is as far from zero as with peft's pissa_init, which decomposes in f32, and A and B share the singular values alike."""
        self.train("pissa", "--base-format", "nf4", "--lora-init", "pissa", "--lora-alpha", 12)
        theirs = peft.get_peft_model(self.load(), peft.LoraConfig(r=4, lora_alpha=12, init_lora_weights="pissa", task_type="CAUSAL_LM",
                                                                  target_modules="all-linear")).state_dict()
        base, ours = load_file(self.base / "model.safetensors"), self.start("pissa")
        further = apart = 0.0
        for key in [key for key in base if key.endswith("_proj.weight")]:
            stem = "base_model.model." + key.removesuffix(".weight")
            a, b = (ours[f"{stem}.lora_{which}.weight"] for which in "AB")
            rest = (base[key] - 3 * b @ a).norm()
            further = max(further, float(rest / theirs[f"{stem}.base_layer.weight"].norm()) - 1)
            for mine, which, axis in ((a, "A", 1), (b, "B", 0)):
                lengths = theirs[f"{stem}.lora_{which}.default.weight"].norm(dim=axis)
                apart = max(apart, float(((mine.norm(dim=axis) - lengths).abs() / lengths).max()))
        say(f"PiSSA: the rest of the weights is at most {further:.1e} larger than peft's; lengths of A's rows and B's columns differ by {apart:.1e}")
        self.assertLess(further, 1e-4)
        self.assertLess(apart, 1e-4)

    def test_pissa_exports(self):
        """Merged: bitsandbytes' rounding of W − s·B₀·A₀, plus s·B·A. The adapter is what peft's own conversion makes of the two, and on the
        file's weights differs from the merged model by what rounding the rest has lost, and by nothing else."""
        self.train("pissa-run", "--base-format", "nf4", "--lora-init", "pissa", "--lora-alpha", 12)
        ok("export", "--run", self.folder / "pissa-run", "--to", "hf", "--out", self.folder / "pissa-run-hf")
        merged = load_file(self.folder / "pissa-run-hf" / "model.safetensors")
        base, start = load_file(self.base / "model.safetensors"), self.start("pissa-run")
        now = load_file(self.folder / "pissa-run" / "adapter" / "adapter_model.safetensors")
        applied = peft.PeftModel.from_pretrained(self.load(), self.folder / "pissa-run-adapter").merge_and_unload().state_dict()
        worst = worst_applied = learnt = 0.0
        for key in [key for key in base if key.endswith("_proj.weight")]:
            stem = "base_model.model." + key.removesuffix(".weight")
            a0, b0, a, b = (tensors[f"{stem}.lora_{which}.weight"] for tensors in (start, now) for which in "AB")
            part = torch.zeros_like(base[key])
            for r in range(4):  # in the order of ops::merge_lora, so that ties round alike
                part += b0[:, r:r + 1] * a0[r:r + 1]
            rest = base[key] - 3 * part
            codes, state = bnb.functional.quantize_4bit(rest, blocksize=64, quant_type="nf4")
            held = bnb.functional.dequantize_4bit(codes, state)
            size = base[key].abs().max()
            worst = max(worst, float((merged[key] - held - 3 * b @ a).abs().max() / size))
            worst_applied = max(worst_applied, float((applied[key] - merged[key] - (rest - held)).abs().max() / size))
            learnt = max(learnt, float((3 * b @ a - 3 * b0 @ a0).abs().max() / size))
        say(f"PiSSA: merged weights differ by {worst:.1e} of the largest, with the adapter on the file's by {worst_applied:.1e}; "
            f"training moved them by up to {learnt:.1e}")
        self.assertLess(worst, 2e-6)
        self.assertLess(worst_applied, 2e-6)
        self.assertGreater(learnt, 1e-2)
        found = self.found("--run", self.folder / "pissa-run")
        reloaded = transformers.AutoModelForCausalLM.from_pretrained(self.folder / "pissa-run-hf", dtype=torch.float32).eval()
        self.assertAlmostEqual(found, self.nll(reloaded), delta=F32_NLL)

        model = peft.PeftModel.from_pretrained(self.load(), self.folder / "pissa-run" / "adapter").eval()
        model.peft_config["default"].init_lora_weights = "pissa"
        model.save_pretrained(self.folder / "converted", path_initial_model_for_weight_conversion=self.copied("pissa-run", "start"))
        theirs, ours = (load_file(self.folder / name / "adapter_model.safetensors") for name in ("converted", "pissa-run-adapter"))
        self.assertEqual(set(theirs), set(ours))
        for key in ours:
            self.assertTrue(torch.equal(ours[key], theirs[key]), key)
        configs = [json.loads((self.folder / name / "adapter_config.json").read_text()) for name in ("converted", "pissa-run-adapter")]
        for key in ("r", "lora_alpha", "use_rslora", "init_lora_weights"):
            self.assertEqual(configs[0][key], configs[1][key], key)

    def copied(self, run, part):
        """peft writes its config into the folder that it reads the first values from."""
        copy = self.folder / f"{run}-{part}"
        shutil.copytree(self.folder / run / part, copy)
        return str(copy)


class FusedMatrices(TemperTest):
    """Phi-3, whose q, k and v are one matrix to peft, as are gate and up: both ways, logits of the same adapter agree."""

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.base = tiny_model.write(cls.folder / "base", "family_phi3")
        cls.data = write_jsonl(cls.folder / "rows.jsonl", [{"text": f"a bad cafe of {name} is in a bin"} for name in "abcdefgh"])

    def load(self):
        return transformers.AutoModelForCausalLM.from_pretrained(self.base, dtype=torch.float32).eval()

    def train(self, name, *options):
        ok("train", "--model", self.base, "--data", self.data, "--steps", 4, "--batch-size", 2, "--seq-len", 32, "--lora-r", 3, "--lr", "2e-2",
           "--compute", "f32", "--out", self.folder / name, *options)
        ok("export", "--run", self.folder / name, "--to", "adapter", "--out", self.folder / f"{name}-adapter")
        return ok_json("eval", "--run", self.folder / name, "--data", self.data, "--compute", "f32")["nll"]

    @torch.no_grad()
    def nll(self, loaded):
        values = []
        for row in range(1, 9):
            ids, learnt = shown_ids(self.base, self.data, row)
            values.append(llama_cpp.nll(loaded(input_ids=torch.tensor([ids])).logits[0].numpy()[:-1], ids[1:])[np.array(learnt[1:])])
        return np.concatenate(values).mean()

    def test_peft_reads_ours(self):
        for name, options in (("all", ()), ("some", ("--lora-target-modules", "q_proj,v_proj,up_proj,o_proj", "--rslora")), ("dora", ("--dora",))):
            found = self.train(name, *options)
            expected = self.nll(peft.PeftModel.from_pretrained(self.load(), self.folder / f"{name}-adapter").eval())
            say(f"{name}: answer NLL temper {found:.6f}, peft {expected:.6f}, base {self.nll(self.load()):.6f}")
            self.assertAlmostEqual(found, expected, delta=F32_NLL, msg=name)
            self.assertGreater(abs(expected - self.nll(self.load())), 100 * F32_NLL)

    def test_we_continue_peft_s(self):
        torch.manual_seed(2)
        model = peft.get_peft_model(self.load(), peft.LoraConfig(r=3, lora_alpha=6, target_modules=["qkv_proj", "gate_up_proj", "down_proj"],
                                                                 task_type="CAUSAL_LM")).eval()
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.data += 0.3 * torch.randn_like(parameter)
        model.save_pretrained(self.folder / "theirs")
        ok("train", "--model", self.base, "--data", self.data, "--lora-adapter", self.folder / "theirs", "--steps", 1, "--batch-size", 2,
           "--seq-len", 32, "--lr", "1e-9", "--compute", "f32", "--out", self.folder / "continued")
        found = ok_json("eval", "--run", self.folder / "continued", "--data", self.data, "--compute", "f32")["nll"]
        self.assertAlmostEqual(found, self.nll(model), delta=F32_NLL)
        self.assertGreater(abs(found - self.nll(self.load())), 100 * F32_NLL)


if __name__ == "__main__":
    unittest.main()
