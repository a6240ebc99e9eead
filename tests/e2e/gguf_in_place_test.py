"""A quantized GGUF is fine-tuned and written back in its own layout: what was not trained stays byte for byte, metadata and
types stay, and llama.cpp answers with the file as the run does."""
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "support"))

import hashlib
import json
import unittest

import gguf

import llama_cpp
import tiny_model
from temper_cli import TemperTest, ok, ok_json, run

TRAINED = ["q_proj", "v_proj", "up_proj"]
NAMES = ["attn_q", "attn_v", "ffn_up"]


def tensors(path):
    """name: (type, checksum of the bytes), in the file's order."""
    return {t.name: (t.tensor_type.name, hashlib.sha256(t.data.tobytes()).hexdigest()) for t in gguf.GGUFReader(path).tensors}


def metadata(path):
    return {name: [bytes(part) for part in field.parts] for name, field in gguf.GGUFReader(path).fields.items()
            if not name.startswith("GGUF.")}


class InPlace(TemperTest):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        folder = tiny_model.write(cls.folder / "model")
        cls.rows = cls.folder / "rows.jsonl"
        cls.rows.write_text("".join(json.dumps({"text": f"the hat of {name} is in a bin"}) + "\n" for name in "abcdefgh"))
        cls.base = cls.folder / "base.gguf"
        ok("quantize", "--model", folder, "--scheme", "q4_k_m", "--out", cls.base)  # short rows: a mix of q5_0 and q8_0

    def train(self, name, *options):
        out, exported = self.folder / name, self.folder / f"{name}.gguf"
        ok("train", "--model", self.base, "--data", self.rows, "--steps", 4, "--lr", 2e-2, "--batch-size", 2, "--seq-len", 64,
           "--lora-r", 4, "--lora-target-modules", ",".join(TRAINED), "--out", out, *options)
        return out, exported, ok_json("export", "--run", out, "--to", "gguf:same", "--out", exported)

    def check_layout(self, exported):
        before, after = tensors(self.base), tensors(exported)
        self.assertEqual(list(before), list(after))
        self.assertEqual(metadata(self.base), metadata(exported))
        changed = 0
        for name in before:
            self.assertEqual(before[name][0], after[name][0], name)
            if any(trained in name for trained in NAMES):
                changed += before[name] != after[name]
            else:
                self.assertEqual(before[name], after[name], name)
        self.assertGreater(changed, 3)

    def test_trained_in_its_own_types(self):
        _, exported, report = self.train("qat", "--scheme", "same")
        self.check_layout(exported)
        self.assertTrue(report["as_trained"])
        with llama_cpp.Model(exported) as opened, llama_cpp.Model(self.base) as base:
            ids = [5 + i % 40 for i in range(24)]
            self.assertEqual(opened.logits(ids).shape, base.logits(ids).shape)
            self.assertGreater(abs(opened.logits(ids) - base.logits(ids)).max(), 1e-3)

    def test_trained_on_the_base_as_it_is(self):
        _, exported, report = self.train("qlora")
        self.check_layout(exported)
        self.assertFalse(report["as_trained"])

    def test_matrices_that_are_stored_as_one(self):
        """Phi-3: of q, k and v in one tensor q and v are trained, of gate and up up; the other rows stay byte for byte."""
        base, rows, out = self.folder / "fused.gguf", self.folder / "fused.jsonl", self.folder / "fused"
        exported = self.folder / "fused-tuned.gguf"
        ok("export", "--model", tiny_model.write(self.folder / "fused-model", "family_phi3"), "--to", "gguf:bf16", "--out", base)
        rows.write_text("".join(json.dumps({"text": f"a bad cafe of {name} is in a bin"}) + "\n" for name in "abcdefgh"))
        ok("train", "--model", base, "--data", rows, "--steps", 4, "--lr", 2e-2, "--batch-size", 2, "--seq-len", 32, "--lora-r", 4,
           "--lora-target-modules", ",".join(TRAINED), "--out", out)
        ok("export", "--run", out, "--to", "gguf:same", "--out", exported)
        self.assertEqual(metadata(base), metadata(exported))
        before, after = ({t.name: t.data for t in gguf.GGUFReader(path).tensors} for path in (base, exported))
        q, kv, mlp = 48, 24, 28
        trained = {"blk.0.attn_qkv.weight": [*range(q), *range(q + kv, q + 2 * kv)], "blk.0.ffn_up.weight": [*range(mlp, 2 * mlp)]}
        for name in before:
            changed = [row for row in range(len(before[name])) if before[name][row].tobytes() != after[name][row].tobytes()]
            self.assertTrue(set(changed) <= set(trained.get(name, [])), name)
            self.assertEqual(bool(changed), name in trained, name)

    def test_refusals(self):
        full = run("train", "--model", self.base, "--data", self.rows, "--steps", 1, "--mode", "full", "--scheme", "same", "--out",
                   self.folder / "full")
        self.assertNotEqual(full.returncode, 0)
        self.assertIn("same", full.stderr)
        plain = run("train", "--model", self.folder / "model", "--data", self.rows, "--steps", 1, "--scheme", "same", "--out",
                    self.folder / "plain")
        self.assertNotEqual(plain.returncode, 0)
        self.assertIn("number format", plain.stderr)


if __name__ == "__main__":
    unittest.main(verbosity=2)
