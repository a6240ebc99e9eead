"""A tiny random Phi-3, whose checkpoints hold q, k, v and gate, up in one matrix each, in the wires: written by temper and read by the
packages, written by the packages and read by temper, the same weights bit for bit and the same loss; and what training may ship."""
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "support"))

import json
import shutil
import unittest

import torch
import torchao.prototype.mx_formats.inference_workflow as mx
import torchao.quantization as q
import transformers

import tiny_model
from temper_cli import ok, ok_json, run, say, write_jsonl
from torchao_test import decoded
from wire_folders import WireFolders

# The peer multiplies in bf16, temper in f32 from the same weights.
BF16_NLL, ACTIVATIONS_NLL = 0.02, 0.03
COMPRESSED = {"w4a16": BF16_NLL, "w4a16-asym-g32": None, "w8a8": ACTIVATIONS_NLL, "fp8-dynamic": ACTIVATIONS_NLL,
              "nvfp4a16": BF16_NLL, "fp8-e4m3-ct-tensor-bf16": BF16_NLL}
# With activations in static ranges and methods that calibrate.
STATIC = {"w8a8-static-asym": ACTIVATIONS_NLL, "fp8-static": ACTIVATIONS_NLL, "nvfp4-w4a4": 2 * ACTIVATIONS_NLL}
TORCHAO = {"int8-int4": ACTIVATIONS_NLL, "int4-sym-g32-bf16": BF16_NLL, "fp8-fp8": ACTIVATIONS_NLL, "int4-g32": None, "nvfp4": None}


def rows(count, first=0):
    return [{"messages": [{"role": "user", "content": f"what is {i % 7} + {i % 5}?"},
                          {"role": "assistant", "content": f"it is {i % 7 + i % 5}."}]} for i in range(first, first + count)]


def write_phi3(folder, tied=False):
    """Parts differ in size, so that what belongs to all of a matrix is not what belongs to one of them."""
    tiny_model.write(folder)
    vocabulary = json.loads((folder / "config.json").read_text())["vocab_size"]
    torch.manual_seed(1)
    model = transformers.Phi3ForCausalLM(transformers.Phi3Config(
        vocab_size=vocabulary, hidden_size=128, intermediate_size=320, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
        max_position_embeddings=256, original_max_position_embeddings=256, tie_word_embeddings=tied, bos_token_id=1, eos_token_id=2,
        pad_token_id=0, initializer_range=0.09))
    for block in model.model.layers:
        block.self_attn.qkv_proj.weight.data[128:] *= 2
        block.mlp.gate_up_proj.weight.data[320:] *= 0.25
    model.to(torch.bfloat16).save_pretrained(folder)
    return folder


class Phi3Wires(WireFolders):
    linears = 8

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.begin(write_phi3(cls.folder / "base"), rows(8, first=100), rows(16))

    def torchao_weights(self, loaded):
        for name, weight in loaded.state_dict().items():
            if "_proj" in name:  # not what is beside them: head and embedding
                yield name.removesuffix(".weight"), decoded(weight)

    def test_compressed_tensors(self):
        for scheme, bound in {**COMPRESSED, **STATIC}.items():
            with self.subTest(scheme):
                folder, ours, config = self.quantized(scheme, "compressed-tensors", scheme in STATIC)
                self.compare_weights(scheme, self.decompressed(folder, config), ours)
                if bound is not None:  # transformers 5.23 expects the zero points unpacked
                    self.compare_loss(scheme, folder, bound)

    def test_torchao(self):
        for scheme, bound in TORCHAO.items():
            with self.subTest(scheme):
                folder, ours, _ = self.quantized(scheme, "torchao")
                if bound is None:  # torchao has no forward pass for it on a CPU
                    loaded = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16, device_map="cpu")
                else:
                    loaded = self.compare_loss(scheme, folder, bound)
                self.compare_weights(scheme, self.torchao_weights(loaded), ours)

    def test_tied_table(self):
        """Phi-4-mini's: written as an embedding and a head."""
        base, folder = write_phi3(self.folder / "tied", tied=True), self.folder / "tied-int8-int4"
        ok("quantize", "--model", base, "--scheme", "int8-int4", "--to", "torchao", "--out", folder)
        self.compare_weights("tied", self.torchao_weights(self.compare_loss("tied", folder, ACTIVATIONS_NLL)), self.read(folder))

    def test_bitsandbytes(self):
        for scheme in ("nf4", "nf4-dq"):
            folder, ours, _ = self.quantized(scheme, "bitsandbytes")
            self.compare_weights(scheme, self.dequantized(folder), ours)
            self.compare_loss(scheme, folder, BF16_NLL)

    def test_gptq_and_awq(self):
        """By the layouts' description: their programs need a GPU."""
        for scheme, wire in (("int4-gptq-g64", "gptq"), ("int4-awq-g32", "gptq-v2"), ("int4-awq-g64", "awq")):
            folder, ours, config = self.quantized(scheme, wire)
            self.compare_weights(wire, self.unpacked_awq(folder, config) if wire == "awq" else self.unpacked_gptq(folder, config), ours)

    def test_what_packages_write(self):
        """Folders that transformers saved with torchao and bitsandbytes."""
        configs = {"int8-int4": (transformers.TorchAoConfig(q.Int8DynamicActivationIntxWeightConfig(
                       weight_dtype=torch.int4, weight_granularity=q.PerGroup(32))), ACTIVATIONS_NLL),
                   "nvfp4": (transformers.TorchAoConfig(mx.NVFP4WeightOnlyConfig()), None),
                   "nf4-dq": (transformers.BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True,
                                                              bnb_4bit_compute_dtype=torch.bfloat16), BF16_NLL)}
        for name, (config, bound) in configs.items():
            with self.subTest(name):
                folder = self.folder / f"package-{name}"
                loaded = transformers.AutoModelForCausalLM.from_pretrained(self.base, dtype=torch.bfloat16, device_map="cpu",
                                                                           quantization_config=config)
                loaded.save_pretrained(folder)
                for file in ("tokenizer.json", "tokenizer_config.json"):
                    shutil.copy(self.base / file, folder / file)
                theirs = self.dequantized(folder) if name == "nf4-dq" else self.torchao_weights(loaded)
                self.compare_weights(name, theirs, self.read(folder))
                if bound is not None:
                    self.compare_loss(f"{name} of the package's", folder, bound)

    def test_trained_codes_ship(self):
        data = write_jsonl(self.folder / "train.jsonl", rows(24))

        def train(scheme, wire, *options):
            return run("train", "--model", self.base, "--data", data, "--scheme", scheme, "--to", wire, "--steps", 3, "--batch-size", 2,
                       "--seq-len", 64, "--lora-r", 4, "--lr", "3e-3", "--out", self.folder / f"run-{scheme}", *options)

        for scheme, wire in (("int8-int4", "torchao"), ("w4a16-g32", "compressed-tensors"), ("nf4", "bitsandbytes")):
            done = train(scheme, wire)
            self.assertEqual(done.returncode, 0, done.stderr)
            report = ok_json("export", "--run", self.folder / f"run-{scheme}", "--to", wire, "--out", self.folder / f"shipped-{scheme}")
            self.assertTrue(report["as_trained"], scheme)
            self.assertLess(report["kld"], 1e-6, scheme)
            say(f"{scheme} as {wire}: trained codes ship, KL divergence {report['kld']:.2g}")
        for scheme, wire in (("nvfp4", "torchao"), ("fp8-static", "compressed-tensors"), ("nf4-dq", "bitsandbytes")):
            done = train(scheme, wire)
            self.assertEqual(done.returncode, 2, done.stderr)
            self.assertIn("qkv_proj", done.stderr)
            self.assertFalse((self.folder / f"run-{scheme}").exists(), "refused before any work")


if __name__ == "__main__":
    unittest.main()
