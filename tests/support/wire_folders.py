"""A model quantized to Hugging Face folders, and what the packages that define the wires decode of them."""
import json

import bitsandbytes
import numpy as np
import torch
import transformers
from compressed_tensors.compressors import BaseCompressor
from compressed_tensors.quantization import QuantizationScheme
from safetensors import safe_open
from safetensors.torch import load_file

import llama_cpp
from temper_cli import TemperTest, ok, ok_json, say, shown_ids, write_jsonl

AWQ_PLACES = [0, 4, 1, 5, 2, 6, 3, 7]  # of output i among a word's fields


def fields(words, bits, axis):
    """Codes of a stream of `bits` along an axis of 32-bit words, lowest bits first."""
    words = np.moveaxis(words.numpy().view(np.uint32), axis, -1)
    stream = np.unpackbits(np.ascontiguousarray(words).view(np.uint8), axis=-1, bitorder="little")
    codes = (stream.reshape(*words.shape[:-1], -1, bits) << np.arange(bits)).sum(-1)
    return np.moveaxis(codes, -1, axis)


class WireFolders(TemperTest):
    """Tests set `linears`, how many matrices a folder holds quantized, and call begin with the model's folder and rows of data."""

    @classmethod
    def begin(cls, base, held_out, calibration):
        cls.base = base
        cls.held_out = write_jsonl(cls.folder / "test.jsonl", held_out)
        cls.calibration = write_jsonl(cls.folder / "calibration.jsonl", calibration)
        cls.rows = [shown_ids(base, cls.held_out, row) for row in range(1, len(held_out) + 1)]

    def read(self, folder):
        """The weights that temper reads from a folder, in bf16."""
        ok("export", "--model", folder, "--to", "hf", "--out", self.folder / f"{folder.name}-16")
        return load_file(self.folder / f"{folder.name}-16" / "model.safetensors")

    def quantized(self, scheme, wire, static=False):
        """A folder in the wire, its weights as temper reads them and its configuration."""
        folder = self.folder / f"{self._testMethodName}-{scheme}-{wire}".replace("/", "-")
        calibration = ["--calibration", self.calibration, "--calibration-tokens", 1024] if static else []
        ok("quantize", "--model", self.base, "--scheme", scheme, "--to", wire, "--out", folder, *calibration)
        return folder, self.read(folder), json.loads((folder / "config.json").read_text())["quantization_config"]

    def compare_weights(self, what, decoded, ours):
        """`decoded`: module and weight, as the package or the layout's description gives it."""
        count = 0
        for module, weight in decoded:
            self.assertTrue(torch.equal(weight.to(torch.bfloat16), ours[f"{module}.weight"]), f"{what}: {module}")
            count += 1
        self.assertEqual(count, self.linears, what)

    @torch.no_grad()
    def compare_loss(self, what, folder, bound, dtype=torch.bfloat16):
        """Of the folder in transformers, computed in that dtype, and in temper."""
        loaded = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16, device_map="cpu").eval()
        if dtype != torch.bfloat16:  # scales, too, which it leaves in the folder's dtype if it is asked for another
            loaded.to(dtype)
        total, count = 0.0, 0
        for ids, learnt in self.rows:
            logits = loaded(input_ids=torch.tensor([ids])).logits[0].float().numpy()
            values = llama_cpp.nll(logits[:-1], ids[1:])[np.array(learnt[1:])]
            total, count = total + values.sum(), count + len(values)
        found = ok_json("eval", "--model", folder, "--data", self.held_out)["nll"]
        self.assertAlmostEqual(found, total / count, delta=bound, msg=what)
        say(f"{what}: weights equal bit for bit in {self.linears} linears; answer NLL temper {found:.5f}, transformers {total / count:.5f}")
        return loaded

    @staticmethod
    def stored(folder):
        """module → name of a part → tensor."""
        modules = {}
        with safe_open(folder / "model.safetensors", "pt") as file:
            for name in file.keys():
                if ".layers." in name and "_proj" in name:
                    module, part = name.split("_proj.", 1)
                    modules.setdefault(module + "_proj", {})[part] = file.get_tensor(name)
        return modules

    def decompressed(self, folder, config):
        """Module and weight of each, by the config group that it belongs to: the only one, or the one that names it."""
        groups = list(config["config_groups"].values())
        for module, parts in self.stored(folder).items():
            (group,) = groups if len(groups) == 1 else (g for g in groups if module in g["targets"])
            compressor = BaseCompressor.get_value_from_registry(group["format"])
            yield module, compressor.decompress(dict(parts), QuantizationScheme(**group))["weight"]

    def dequantized(self, folder):
        """The same of bitsandbytes' 4-bit formats."""
        for module, parts in self.stored(folder).items():
            stats = {f"weight.{key.removeprefix('weight.')}": value for key, value in parts.items() if key != "weight"}
            state = bitsandbytes.functional.QuantState.from_dict(stats, "cpu")
            yield module, bitsandbytes.functional.dequantize_4bit(parts["weight"], state)

    def unpacked_gptq(self, folder, config):
        """The same of GPTQ's layout, by its description."""
        bits = config["bits"]
        for module, parts in self.stored(folder).items():
            codes, zeros = fields(parts["qweight"], bits, 0), fields(parts["qzeros"], bits, 1)
            if config["checkpoint_format"] == "gptq":
                zeros = zeros + 1 & 2**bits - 1
            groups = parts["g_idx"].numpy()
            yield module, torch.tensor((codes - zeros[groups]) * parts["scales"].numpy()[groups].astype(np.float32)).T

    def unpacked_awq(self, folder, config):
        """The same of AWQ's."""
        for module, parts in self.stored(folder).items():
            codes, zeros = (fields(parts[p], 4, 1).reshape(len(parts[p]), -1, 8)[..., AWQ_PLACES].reshape(len(parts[p]), -1)
                            for p in ("qweight", "qzeros"))
            each = config["group_size"]
            scales = parts["scales"].numpy().astype(np.float32)
            yield module, torch.tensor((codes - zeros.repeat(each, 0)) * scales.repeat(each, 0)).T
