"""Perplexity of a text, in both ways of counting, against llama.cpp's logits of the same weights."""
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "support"))

import math
import unittest

import gguf_files
import llama_cpp
from temper_cli import TemperTest, model, ok, ok_json, say

CONTEXT = 128
# Both in f32, but for llama.cpp's attention in f16 (relative error 2^-11 a rounding, 30 layers); errors of single
# tokens' NLL, about 0.01, mostly cancel in the mean.
TOLERANCE = 0.001
TEXT = """The lighthouse at the end of the island was built by two brothers who had lost a boat in a winter storm. They carried
the stones over the ice, because in summer there was no time: the fish came close to the shore, and everybody who could hold a
net was needed. It took them eleven winters. When the lamp was lit for the first time, the older brother said that it was not
bright enough, and the younger one said that it did not have to be bright, it only had to be there.

Later the village grew, and the harbour was moved to the other side, where the water is deeper. The lamp was still lit every
evening by the daughter of the younger brother, although hardly anyone saw it. Once a year a man came from the city, looked at
the mirrors, wrote 3 numbers into a book with a blue cover, and drove back. "Is it worth it?" he asked in 1931, and she
answered that she would know when it was dark. Nobody asked again until the night of the great flood, when the road, the
telephone and the new harbour were gone, and forty-two boats were out at sea with nothing to steer by but one small light
that did not move.
"""


class Perplexity(TemperTest):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.text = cls.folder / "text.txt"
        cls.text.write_text(TEXT)
        cls.plain = cls.folder / "bf16.gguf"
        ok("export", "--model", model(), "--to", "gguf:bf16", "--out", cls.plain)
        cls.exact = cls.folder / "f32.gguf"  # llama.cpp rounds activations to bf16 where weights are bf16
        gguf_files.write_decoded(cls.plain, cls.exact)

    def measure(self, *arguments):
        return ok_json("eval", "--model", self.plain, "--text", self.text, "--context", CONTEXT, "--compute", "f32",
                       *arguments)

    def check(self, name, measured, total, count):
        expected = math.exp(total / count)
        self.assertEqual(measured["windows"]["scored_tokens"], count)
        self.assertAlmostEqual(measured["perplexity"] / expected, 1.0, delta=TOLERANCE)
        say(f"{name}: {measured['windows']['count']} windows, {count} tokens: temper {measured['perplexity']:.4f}, "
            f"llama.cpp {expected:.4f} ({100 * (measured['perplexity'] / expected - 1):+.3f} %)")

    def test_as_llama_perplexity_counts(self):
        """llama.cpp's tools/perplexity: chunks side by side, each from an empty cache and begun with BOS; the predictions made at
        positions [context / 2, context - 1) count."""
        with llama_cpp.Model(self.exact) as opened:
            ids = opened.tokenize(TEXT.removesuffix("\n"), add_special=True, parse_special=False)
            total, count = 0.0, 0
            for begin in range(0, len(ids) - CONTEXT + 1, CONTEXT):
                chunk = ids[begin:begin + CONTEXT]
                if opened.bos is not None:
                    chunk[0] = opened.bos
                values = llama_cpp.nll(opened.logits(chunk)[:-1], chunk[1:])[CONTEXT // 2:]
                total, count = total + values.sum(), count + len(values)
        measured = self.measure("--windows", "llama-perplexity")
        self.assertEqual(measured["windows"]["count"], 2)
        self.check("as llama-perplexity counts", measured, total, count)

    def test_overlapping_windows(self):
        """Each token is scored once, by the first window that predicts it."""
        stride = 48
        with llama_cpp.Model(self.exact) as opened:
            ids = opened.tokenize(TEXT, add_special=True, parse_special=False)
            total, count, scored = 0.0, 0, 0  # `scored`: index of the last token that was
            for begin in range(0, len(ids), stride):
                end = min(begin + CONTEXT, len(ids) - 1)
                values = llama_cpp.nll(opened.logits(ids[begin:end]), ids[begin + 1:end + 1])[scored - begin:]
                total, count, scored = total + values.sum(), count + len(values), end
                if end == len(ids) - 1:
                    break
        self.assertEqual(count, len(ids) - 1)
        self.check(f"stride {stride}", self.measure("--stride", stride), total, count)


if __name__ == "__main__":
    unittest.main(verbosity=2)
