"""SmolLM2 quantized to compressed-tensors, bitsandbytes, GPTQ and AWQ, and read by the packages: the same weights bit for bit, the
same loss."""
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "support"))

import json
import shutil
import unittest

import bitsandbytes
import numpy as np
import torch
import transformers
from compressed_tensors.compressors import BaseCompressor
from compressed_tensors.quantization import QuantizationScheme
from safetensors import safe_open
from safetensors.torch import load_file

import llama_cpp
from temper_cli import TemperTest, model, ok, ok_json, say, shown_ids, word_problems, write_jsonl

ROWS = 4
LINEARS = 210
# The peer multiplies in bf16, temper in f32 from the same weights: products of 30 layers, each rounded to 8 bits.
BF16_NLL = 0.02
# With activations in 8 bits a value at a midpoint goes one way here and another way there.
ACTIVATIONS_NLL = 0.03
COMPRESSED = {"w4a16": BF16_NLL, "w4a16-asym-g32": None, "w8a16-g64": BF16_NLL, "w8a8": ACTIVATIONS_NLL, "fp8-dynamic": ACTIVATIONS_NLL,
              "nvfp4a16": BF16_NLL, "mxfp4a16": BF16_NLL, "mxfp8-ct": ACTIVATIONS_NLL}
# The same with activations in static ranges, measured on other rows.
STATIC = {"w8a8-static-asym": ACTIVATIONS_NLL, "fp8-static": ACTIVATIONS_NLL, "nvfp4-w4a4": 2 * ACTIVATIONS_NLL}


class Wires(TemperTest):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.held_out = write_jsonl(cls.folder / "test.jsonl", word_problems(ROWS, first=100))
        cls.calibration = write_jsonl(cls.folder / "calibration.jsonl", word_problems(16))
        ok("export", "--model", model(), "--to", "hf", "--out", cls.folder / "base")
        cls.rows = [shown_ids(cls.folder / "base", cls.held_out, row) for row in range(1, ROWS + 1)]

    def quantized(self, scheme, wire):
        """A folder in the wire, and the weights that temper reads from it, in bf16."""
        folder = self.folder / f"{scheme}-{wire}"
        calibration = ["--calibration", self.calibration, "--calibration-tokens", 1024] if scheme in STATIC else []
        ok("quantize", "--model", self.folder / "base", "--scheme", scheme, "--to", wire, "--out", folder, *calibration)
        ok("export", "--model", folder, "--to", "hf", "--out", self.folder / f"{folder.name}-16")
        self.config = json.loads((folder / "config.json").read_text())["quantization_config"]
        return folder, load_file(self.folder / f"{folder.name}-16" / "model.safetensors")

    def compare_weights(self, what, decoded, ours):
        """`decoded`: module and weight, as the package or the layout's description gives it."""
        count = 0
        for module, weight in decoded:
            self.assertTrue(torch.equal(weight.to(torch.bfloat16), ours[f"{module}.weight"]), f"{what}: {module}")
            count += 1
        self.assertEqual(count, LINEARS)

    @torch.no_grad()
    def compare_loss(self, what, folder, bound, stored=None):
        """Of the folder in transformers, and in temper of it or of the one that `stored` names."""
        loaded = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16, device_map="cpu").eval()
        total, count = 0.0, 0
        for ids, learnt in self.rows:
            logits = loaded(input_ids=torch.tensor([ids])).logits[0].float().numpy()
            values = llama_cpp.nll(logits[:-1], ids[1:])[np.array(learnt[1:])]
            total, count = total + values.sum(), count + len(values)
        found = ok_json("eval", "--model", stored or folder, "--data", self.held_out)["nll"]
        self.assertAlmostEqual(found, total / count, delta=bound, msg=what)
        say(f"{what}: weights equal bit for bit in {LINEARS} linears; answer NLL temper {found:.5f}, transformers {total / count:.5f}")

    def stored(self, folder):
        """module → name of a part → tensor."""
        modules = {}
        with safe_open(folder / "model.safetensors", "pt") as file:
            for name in file.keys():
                if ".layers." in name and "_proj" in name:
                    module, part = name.split("_proj.", 1)
                    modules.setdefault(module + "_proj", {})[part] = file.get_tensor(name)
        return modules

    def decompressed(self, folder):
        """Module and weight of each, by the config group that it belongs to: the only one, or the one that names it."""
        groups = list(self.config["config_groups"].values())
        for module, parts in self.stored(folder).items():
            (group,) = groups if len(groups) == 1 else (g for g in groups if module in g["targets"])
            compressor = BaseCompressor.get_value_from_registry(group["format"])
            yield module, compressor.decompress(dict(parts), QuantizationScheme(**group))["weight"]

    def test_compressed_tensors(self):
        for scheme, bound in {**COMPRESSED, **STATIC}.items():
            folder, ours = self.quantized(scheme, "compressed-tensors")
            self.compare_weights(scheme, self.decompressed(folder), ours)
            if bound is None:  # transformers 5.23 expects the zero points unpacked
                say(f"{scheme}: weights equal bit for bit in {LINEARS} linears; transformers does not load it")
            else:
                self.compare_loss(scheme, folder, bound)

    def test_smaller_groups(self):
        """Rows that no group of 128 divides (576) take one of 64, and say so; those that it divides (1536) keep it."""
        for scheme in ("w4a16", "w4a16-asym", "w8a16", "w4a8"):
            folder, ours = self.quantized(scheme, "compressed-tensors")
            sizes = {group["weights"]["group_size"]: set(group["targets"]) for group in self.config["config_groups"].values()}
            self.assertEqual(sorted(sizes), [64, 128], scheme)
            for module, parts in self.stored(folder).items():
                rows, cols = ours[f"{module}.weight"].shape
                group = 128 if cols % 128 == 0 else 64
                self.assertIn(module, sizes[group], scheme)
                self.assertEqual(parts["weight_scale"].shape, (rows, cols // group), f"{scheme}: {module}")
            self.compare_weights(scheme, self.decompressed(folder), ours)
            say(f"{scheme}: groups of 64 in {len(sizes[64])} linears and of 128 in {len(sizes[128])}, decompressed bit for bit")

    def test_bitsandbytes(self):
        for scheme in ("nf4", "nf4-dq", "fp4", "fp4-dq"):
            folder, ours = self.quantized(scheme, "bitsandbytes")

            def decoded():
                for module, parts in self.stored(folder).items():
                    stats = {f"weight.{key.removeprefix('weight.')}": value for key, value in parts.items() if key != "weight"}
                    state = bitsandbytes.functional.QuantState.from_dict(stats, "cpu")
                    yield module, bitsandbytes.functional.dequantize_4bit(parts["weight"], state)

            self.compare_weights(scheme, decoded(), ours)
            self.compare_loss(scheme, folder, BF16_NLL)

    def test_llm_int8(self):
        """A folder that transformers saved with load_in_8bit: its weights, its loss, and a step of training on it as it is."""
        folder, plain = self.folder / "llm-int8", self.folder / "llm-int8-16"
        config = transformers.BitsAndBytesConfig(load_in_8bit=True)
        loaded = transformers.AutoModelForCausalLM.from_pretrained(self.folder / "base", dtype=torch.bfloat16, device_map="cpu",
                                                                   quantization_config=config)
        loaded.save_pretrained(folder)
        for name in ("tokenizer.json", "tokenizer_config.json"):
            shutil.copy(self.folder / "base" / name, folder)
        ok("export", "--model", folder, "--to", "hf", "--out", plain)
        stored = self.stored(folder)
        # As the backward pass of MatMul8bitLt has them.
        decoded = ((module, parts["weight"] * (parts["SCB"].unsqueeze(1) * (1.0 / 127.0))) for module, parts in stored.items())
        self.compare_weights("LLM.int8", decoded, load_file(plain / "model.safetensors"))
        # Not bitsandbytes' own product: it rounds inputs to 8 bits, but for columns of outliers; temper leaves them in 16.
        self.compare_loss("LLM.int8, inputs in 16 bits", plain, BF16_NLL, stored=folder)
        data = write_jsonl(self.folder / "train.jsonl", word_problems(8))
        ok("train", "--model", folder, "--data", data, "--steps", 1, "--batch-size", 1, "--seq-len", 128, "--lora-r", 4,
           "--out", self.folder / "llm-int8-run")

    def fields(self, words, bits, axis):
        """Codes of a stream of `bits` along an axis of 32-bit words, lowest bits first."""
        words = np.moveaxis(words.numpy().view(np.uint32), axis, -1)
        stream = np.unpackbits(np.ascontiguousarray(words).view(np.uint8), axis=-1, bitorder="little")
        codes = (stream.reshape(*words.shape[:-1], -1, bits) << np.arange(bits)).sum(-1)
        return np.moveaxis(codes, -1, axis)

    def test_gptq(self):
        for scheme, wire, bits in (("int4-gptq-g64", "gptq", 4), ("int4-awq-g32", "gptq-v2", 4), ("int3-ctsym-g32-f16", "gptq", 3)):
            folder, ours = self.quantized(scheme, wire)
            self.assertEqual(self.config["bits"], bits)

            def decoded():
                for module, parts in self.stored(folder).items():
                    codes, zeros = self.fields(parts["qweight"], bits, 0), self.fields(parts["qzeros"], bits, 1)
                    if self.config["checkpoint_format"] == "gptq":
                        zeros = zeros + 1 & 2**bits - 1
                    groups = parts["g_idx"].numpy()
                    yield module, torch.tensor((codes - zeros[groups]) * parts["scales"].numpy()[groups].astype(np.float32)).T

            self.compare_weights(scheme, decoded(), ours)
            say(f"{scheme} as {wire}: weights equal bit for bit in {LINEARS} linears, unpacked by the layout's description")

    def test_awq(self):
        folder, ours = self.quantized("int4-awq-g64", "awq")
        places = [0, 4, 1, 5, 2, 6, 3, 7]  # of output i among a word's fields

        def decoded():
            for module, parts in self.stored(folder).items():
                codes, zeros = (self.fields(parts[p], 4, 1).reshape(len(parts[p]), -1, 8)[..., places].reshape(len(parts[p]), -1)
                                for p in ("qweight", "qzeros"))
                each = self.config["group_size"]
                scales = parts["scales"].numpy().astype(np.float32)
                yield module, torch.tensor((codes - zeros.repeat(each, 0)) * scales.repeat(each, 0)).T

        self.compare_weights("awq", decoded(), ours)
        say(f"int4-awq-g64 as awq: weights equal bit for bit in {LINEARS} linears, unpacked by the layout's description")


if __name__ == "__main__":
    unittest.main()
