"""Full quantization-aware training ships what it trained: its GGUF's tensors are those that `temper quantize`, and gguf-py's own quantizer,
make of its 16-bit checkpoint; biases, embeddings and head beside adapters ship alike."""
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "support"))

import json
import unittest

import gguf
import numpy as np

import tiny_model
from temper_cli import TemperTest, ok, ok_json, run


def tensors(path):
    return {t.name: np.array(t.data) for t in gguf.GGUFReader(path).tensors}


def bf16_matrices(path):
    """Matrices of a safetensors file in BF16, as f32."""
    data = path.read_bytes()
    length = int.from_bytes(data[:8], "little")
    out = {}
    for name, info in json.loads(data[8:8 + length]).items():
        if name != "__metadata__" and info["dtype"] == "BF16":
            begin, end = (8 + length + offset for offset in info["data_offsets"])
            bits = np.frombuffer(data[begin:end], np.uint16).astype(np.uint32) << 16
            out[name] = bits.view(np.float32).reshape(info["shape"])
    return out


class FullRun(TemperTest):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        tiny_model.write_random(cls.folder / "f32")
        # The base in bf16, as most are.
        ok("export", "--model", cls.folder / "f32", "--to", "gguf:bf16", "--out", cls.folder / "base.gguf")
        rows = [{"prompt": f"what is {a}+{b}?", "completion": f"{a + b}."} for a in range(6) for b in range(6)]
        (cls.folder / "rows.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))

    def train(self, name, *options):
        ok("train", "--model", self.folder / "base.gguf", "--data", self.folder / "rows.jsonl", "--scheme", "q4_0", "--steps", 3,
           "--lr", 1e-3, "--batch-size", 2, "--out", self.folder / name, *options)

    def check_shipped(self, name):
        shipped, checkpoint, again = (self.folder / f"{name}{suffix}" for suffix in (".gguf", "-hf", "-again.gguf"))
        report = ok_json("export", "--run", self.folder / name, "--to", "gguf:q4_0", "--out", shipped)
        self.assertTrue(report["as_trained"])
        self.assertEqual(report["kld"], 0)
        ok("export", "--run", self.folder / name, "--to", "hf", "--out", checkpoint)
        ok("quantize", "--model", checkpoint, "--scheme", "q4_0", "--out", again)
        trained, made = tensors(shipped), tensors(again)
        self.assertEqual(trained.keys(), made.keys())
        for tensor in trained:
            np.testing.assert_array_equal(trained[tensor], made[tensor], err_msg=tensor)
        for tensor, values in bf16_matrices(checkpoint / "model.safetensors").items():
            if tensor.endswith(("v_proj.weight", "down_proj.weight")):  # rows in both files' order
                layer, which = tensor.split(".")[2], "attn_v" if "v_proj" in tensor else "ffn_down"
                packed = gguf.quants.quantize(values, gguf.GGMLQuantizationType.Q4_0)
                np.testing.assert_array_equal(trained[f"blk.{layer}.{which}.weight"], packed, err_msg=tensor)
        return bf16_matrices(checkpoint / "model.safetensors")

    def test_every_weight(self):
        self.train("full", "--mode", "full", "--optimizer-state", "8bit")
        self.check_shipped("full")
        self.assertTrue(ok("generate", "--run", self.folder / "full", "--prompt", "what is 1+2?", "--max-tokens", 4))
        refused = run("export", "--run", self.folder / "full", "--to", "adapter", "--out", self.folder / "adapter")
        self.assertNotEqual(refused.returncode, 0)
        self.assertIn("no adapter", refused.stderr)

    def test_head_beside_adapters(self):
        self.train("beside", "--lora-modules-to-save", "lm_head", "--lora-r", 4)
        shipped = self.check_shipped("beside")
        ok("export", "--model", self.folder / "base.gguf", "--to", "hf", "--out", self.folder / "base-hf")
        base = bf16_matrices(self.folder / "base-hf" / "model.safetensors")
        self.assertTrue((shipped["lm_head.weight"] != base["lm_head.weight"]).any())
        np.testing.assert_array_equal(shipped["model.embed_tokens.weight"], base["model.embed_tokens.weight"])


if __name__ == "__main__":
    unittest.main(verbosity=2)
