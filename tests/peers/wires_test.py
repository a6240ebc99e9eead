"""SmolLM2 quantized to compressed-tensors, bitsandbytes, GPTQ and AWQ, and read by the packages: the same weights bit for bit, the
same loss."""
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "support"))

import shutil
import subprocess
import unittest
import unittest.mock

import bitsandbytes
import torch
import transformers
from safetensors.torch import load_file

from rounding_noise import ACTIVATIONS_NLL, BF16_NLL, ROWS
from temper_cli import model, ok, program, say, word_problems, write_jsonl
from wire_folders import WireFolders

COMPRESSED = {"w4a16": BF16_NLL, "w4a16-asym-g32": None, "w8a16-g64": BF16_NLL, "w8a8": ACTIVATIONS_NLL, "fp8-dynamic": ACTIVATIONS_NLL,
              "nvfp4a16": BF16_NLL, "mxfp4a16": BF16_NLL, "mxfp8-ct": ACTIVATIONS_NLL}
# The same with activations in static ranges, measured on other rows, and what transformers computes in: codes of whole rows are found in
# f32, as vLLM does, and transformers where everything is f32.
STATIC = {"w8a8-static-asym": torch.float32, "fp8-static": torch.float32, "nvfp4-w4a4": torch.bfloat16}


def rounded_by_token(linear, x):
    """The product of Linear8bitLt of one token at a time, by bitsandbytes' own rounding, multiplied in f32."""
    if linear.weight.CB is not None:
        linear.init_8bit_state()
    rows = x.reshape(-1, x.shape[-1])
    rounded = []
    for row in rows.split(1):
        codes, absmax, outliers = bitsandbytes.functional.int8_vectorwise_quant(row.to(torch.float16), threshold=linear.state.threshold)
        values = torch.ops.bitsandbytes.int8_vectorwise_dequant(codes, absmax)
        values[:, outliers] = row[:, outliers]
        rounded.append(values)
    weight = linear.state.CB * (linear.state.SCB.unsqueeze(1) * (1.0 / 127.0))
    return (torch.cat(rounded) @ weight.T).reshape(*x.shape[:-1], -1)


class Wires(WireFolders):
    linears = 210

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        ok("export", "--model", model(), "--to", "hf", "--out", cls.folder / "base")
        cls.begin(cls.folder / "base", word_problems(ROWS, first=100), word_problems(16))

    def test_compressed_tensors(self):
        for scheme, bound in {**COMPRESSED, **dict.fromkeys(STATIC, ACTIVATIONS_NLL)}.items():
            with self.subTest(scheme):
                folder, ours, config = self.quantized(scheme, "compressed-tensors", scheme in STATIC)
                self.compare_weights(scheme, self.decompressed(folder, config), ours)
                if bound is None:  # transformers 5.23 expects the zero points unpacked
                    say(f"{scheme}: weights equal bit for bit in {self.linears} linears; transformers does not load it")
                else:
                    self.compare_loss(scheme, folder, bound, STATIC.get(scheme, torch.bfloat16))

    def test_smaller_groups(self):
        """Rows that no group of 128 divides (576) take one of 64, and say so; those that it divides (1536) keep it."""
        for scheme in ("w4a16", "w4a16-asym", "w8a16", "w4a8"):
            folder, ours, config = self.quantized(scheme, "compressed-tensors")
            sizes = {group["weights"]["group_size"]: set(group["targets"]) for group in config["config_groups"].values()}
            self.assertEqual(sorted(sizes), [64, 128], scheme)
            for module, parts in self.stored(folder).items():
                rows, cols = ours[f"{module}.weight"].shape
                group = 128 if cols % 128 == 0 else 64
                self.assertIn(module, sizes[group], scheme)
                self.assertEqual(parts["weight_scale"].shape, (rows, cols // group), f"{scheme}: {module}")
            self.compare_weights(scheme, self.decompressed(folder, config), ours)
            say(f"{scheme}: groups of 64 in {len(sizes[64])} linears and of 128 in {len(sizes[128])}, decompressed bit for bit")

    def test_bitsandbytes(self):
        for scheme in ("nf4", "nf4-dq", "fp4", "fp4-dq"):
            folder, ours, _ = self.quantized(scheme, "bitsandbytes")
            self.compare_weights(scheme, self.dequantized(folder), ours)
            self.compare_loss(scheme, folder, BF16_NLL)

    def test_llm_int8(self):
        """A folder that transformers saved with load_in_8bit: its weights, its loss, and a step of training on it as it is."""
        folder, plain = self.folder / "llm-int8", self.folder / "llm-int8-16"
        config = transformers.BitsAndBytesConfig(load_in_8bit=True)
        loaded = transformers.AutoModelForCausalLM.from_pretrained(self.base, dtype=torch.bfloat16, device_map="cpu",
                                                                   quantization_config=config)
        loaded.save_pretrained(folder)
        for name in ("tokenizer.json", "tokenizer_config.json"):
            shutil.copy(self.base / name, folder)
        ok("export", "--model", folder, "--to", "hf", "--out", plain)
        stored = self.stored(folder)
        # As the backward pass of MatMul8bitLt has them.
        decoded = ((module, parts["weight"] * (parts["SCB"].unsqueeze(1) * (1.0 / 127.0))) for module, parts in stored.items())
        self.compare_weights("LLM.int8", decoded, load_file(plain / "model.safetensors"))
        # bitsandbytes exempts the columns in which some token of the row has an outlier, temper the outliers.
        self.compare_loss("LLM.int8", folder, ACTIVATIONS_NLL)
        data = write_jsonl(self.folder / "train.jsonl", word_problems(8))
        ok("train", "--model", folder, "--data", data, "--steps", 1, "--batch-size", 1, "--seq-len", 128, "--lora-r", 4,
           "--out", self.folder / "llm-int8-run")

    @torch.no_grad()
    def test_llm_int8_by_token(self):
        """One token a call, where the columns that bitsandbytes exempts are that token's own: the same logits, in f32, of a small
        model whose norms make outliers."""
        torch.manual_seed(3)
        plain, folder = self.folder / "tiny", self.folder / "tiny-llm-int8"
        small = transformers.LlamaForCausalLM(transformers.LlamaConfig(
            vocab_size=256, hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2))
        for values in small.parameters():
            if values.dim() == 1:
                values[5::16] *= 8
            else:
                values.normal_(0, values.shape[1] ** -0.5)
        small.save_pretrained(plain)
        loaded = transformers.AutoModelForCausalLM.from_pretrained(
            plain, dtype=torch.float32, device_map="cpu", quantization_config=transformers.BitsAndBytesConfig(load_in_8bit=True)).eval()
        loaded.save_pretrained(folder)
        for name in ("tokenizer.json", "tokenizer_config.json"):
            shutil.copy(self.folder / "base" / name, folder)
        for module, parts in self.stored(folder).items():
            small.get_submodule(module).weight.copy_(parts["weight"] * (parts["SCB"].unsqueeze(1) * (1.0 / 127.0)))
        ids = torch.randint(0, 256, (1, 32))
        alone, cache = [], None
        for token in ids[0]:
            output = loaded(input_ids=token.reshape(1, 1), past_key_values=cache, use_cache=True)
            alone.append(output.logits[0, 0])
            cache = output.past_key_values
        alone, together = torch.stack(alone), loaded(input_ids=ids).logits[0]
        ours, inputs_in_16 = self.logits(folder, ids[0].tolist()), small(input_ids=ids).logits[0]
        with unittest.mock.patch.object(bitsandbytes.nn.Linear8bitLt, "forward", rounded_by_token):
            exact = (ours - loaded(input_ids=ids).logits[0]).abs().mean().item()
        error, batch, rounding = ((x - alone).abs().mean().item() for x in (ours, together, inputs_in_16))
        self.assertLess(exact, 2e-5)  # logits of size 1 to 10, printed in six digits
        # bitsandbytes takes 1/127² as 6.200124e-05, 1.8e-5 too much: a value of some 40 steps moves by 1e-3 of a step, and one in
        # a thousand goes to another code; that is a noise of sqrt(12 · 1e-3) = 0.1 of the rounding's in each product.
        self.assertLess(error, 0.3 * rounding)
        self.assertLess(error, 0.3 * batch)
        say(f"LLM.int8 by token: logits of a small model {exact:.1e} on average from bitsandbytes' rounding multiplied in f32, {error:.1e} "
            f"from its own product; a batch of bitsandbytes is {batch:.1e} "
            f"from its tokens, inputs in 16 bits {rounding:.1e}")

    def logits(self, folder, ids):
        tool = Path(program()).parent / "tests" / "logits"
        lines = subprocess.run([tool, folder, *map(str, ids)], check=True, capture_output=True, text=True).stdout.splitlines()
        return torch.tensor([[float(x) for x in line.split()] for line in lines])

    def test_gptq(self):
        for scheme, wire, bits in (("int4-gptq-g64", "gptq", 4), ("int4-awq-g32", "gptq-v2", 4), ("int3-ctsym-g32-f16", "gptq", 3)):
            folder, ours, config = self.quantized(scheme, wire)
            self.assertEqual(config["bits"], bits)
            self.compare_weights(scheme, self.unpacked_gptq(folder, config), ours)
            say(f"{scheme} as {wire}: weights equal bit for bit in {self.linears} linears, unpacked by the layout's description")

    def test_awq(self):
        folder, ours, config = self.quantized("int4-awq-g64", "awq")
        self.compare_weights("awq", self.unpacked_awq(folder, config), ours)
        say(f"int4-awq-g64 as awq: weights equal bit for bit in {self.linears} linears, unpacked by the layout's description")


if __name__ == "__main__":
    unittest.main()
