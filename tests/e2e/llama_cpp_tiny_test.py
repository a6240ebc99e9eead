"""Tiny models exported to GGUF give in llama.cpp the logits that transformers computed (tests/data/hf): the order of rows of
queries and keys, grouped heads, scaled rotary frequencies, tied and untied heads."""
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "support"))

import unittest

import numpy as np
from safetensors.numpy import load_file

import gguf_files
import llama_cpp
import tiny_model
from temper_cli import TemperTest, ok, run, say

MODELS = ["llama_untied", "llama31_tied", "odd_untied", "odd_tied", "family_phi3", "family_qwen3", "family_yarn"]
# These have, on purpose, what no released model of their family has: GGUF cannot say it, and llama.cpp would compute something else.
BEYOND_GGUF = {"family_gemma2": "attention scale", "family_gemma3": "attention scale", "family_smollm3": "rotary embedding of layer 1"}
# All in f32 but llama.cpp's attention, which keeps keys and values as f16 and sums up to 24 of them in f16: each of these 26
# roundings is 2^-11 of the size at most. Rows in a wrong order, or a wrong frequency, change logits by as much as their size.
TOLERANCE = 26 * 2**-11


class TinyModels(TemperTest):
    def test_logits(self):
        for name in MODELS:
            with self.subTest(name):
                # llama.cpp knows a Phi-3 by its name, and wants tokens of it.
                folder = tiny_model.write(self.folder / name.replace("phi", "fi"), name)
                exported, exact = self.folder / f"{name}.gguf", self.folder / f"{name}-f32.gguf"
                ok("export", "--model", folder, "--to", "gguf:bf16", "--out", exported)
                gguf_files.write_decoded(exported, exact)
                expected = load_file(tiny_model.MODELS / name / "parity.safetensors")
                worst = 0.0
                with llama_cpp.Model(exact) as opened:
                    for ids, logits in zip(expected["input_ids"], expected["logits"]):
                        error = np.abs(opened.logits(ids) - logits).max()
                        worst = max(worst, float(error / np.sqrt(np.mean(logits.astype(np.float64) ** 2))))
                say(f"{name}: logits differ by at most {worst:.2e} of their size")
                self.assertLess(worst, TOLERANCE)

    def test_what_gguf_cannot_say(self):
        for name, what in BEYOND_GGUF.items():
            folder, exported = tiny_model.write(self.folder / name, name), self.folder / f"{name}.gguf"
            done = run("export", "--model", folder, "--to", "gguf:bf16", "--out", exported)
            self.assertEqual(done.returncode, 5, done.stderr)
            self.assertIn(what, done.stderr)
            self.assertFalse(exported.exists())


if __name__ == "__main__":
    unittest.main(verbosity=2)
