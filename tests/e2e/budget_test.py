"""temper plan, quantize under a budget, and compare, on a short text with the real model."""
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "support"))

import unittest

import gguf

import llama_cpp
from temper_cli import TemperTest, model, ok, ok_json, run, say, word_problems


class Budget(TemperTest):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.text = cls.folder / "text.txt"
        cls.text.write_text("\n\n".join(m["content"] for row in word_problems(60) for m in row["messages"]))
        cls.measure = ["--text", cls.text, "--context", 128, "--rows", 2, "--bootstrap", 100]

    def test_quantize_within(self):
        out = self.folder / "m.gguf"
        size = 95_000_000
        report = ok_json("quantize", "--model", model(), *self.measure, "--size", "95MB", "--types", "q4_0,q5_0,q8_0",
                         "--out", out)
        tensors = gguf.GGUFReader(out).tensors
        held = sum(int(t.n_bytes) for t in tensors)
        self.assertLessEqual(held, size)
        self.assertGreater(held, 0.99 * size)
        self.assertGreater(len({t.tensor_type for t in tensors if len(t.shape) == 2}), 1)
        self.assertLess(report["kld"], 2 * report["predicted_kld"] + 0.01)
        self.assertLess(report["predicted_kld"], 2 * report["kld"] + 0.01)
        with llama_cpp.Model(out) as opened:
            self.assertEqual(opened.logits([1, 2, 3]).shape[0], 3)
        self.assertIn("model.embed_tokens: ", Path(report["recipe"]).read_text())
        # The measured costs are kept: the plan needs no new ones, and ends at the same allocation.
        cache = next(self.folder.glob("*.sensitivity.json"))
        before = cache.stat().st_mtime_ns
        plan = ok_json("plan", "--model", model(), *self.measure, "--size", "95MB", "--types", "q4_0,q5_0,q8_0",
                       "--out", self.folder / "plan", "--chart", self.folder / "plan.svg")
        self.assertEqual(cache.stat().st_mtime_ns, before)
        sizes = [p["bytes"] for p in plan["frontier"]]
        predicted = [p["predicted_kld"] for p in plan["frontier"]]
        self.assertEqual(sizes, sorted(sizes))
        self.assertEqual(predicted, sorted(predicted, reverse=True))
        chosen = next(p for p in plan["frontier"] if "kld" in p)
        self.assertEqual((chosen["bytes"], chosen["kld"]), (held, report["kld"]))
        ElementTree.parse(self.folder / "plan.svg")
        done = run("quantize", "--model", model(), *self.measure, "--size", "20MB", "--types", "q4_0,q5_0,q8_0", "--out",
                   self.folder / "n.gguf")
        self.assertNotEqual(done.returncode, 0)
        self.assertIn("smallest", done.stderr)
        say(f"95 MB: predicted KLD {report['predicted_kld']:.4f}, measured {report['kld']:.4f}")

    def test_compare(self):
        report = ok_json("compare", model(), "--schemes", "q8_0,q4_0", *self.measure, "--speed-tokens", 2, "--chart",
                         self.folder / "c.svg")
        sixteen, q8, q4 = report["schemes"]
        self.assertEqual([sixteen["scheme"], q8["scheme"], q4["scheme"]], ["16-bit", "q8_0", "q4_0"])
        self.assertGreater(sixteen["bytes"], q8["bytes"])
        self.assertGreater(q8["bytes"], q4["bytes"])
        self.assertLess(q8["kld"], q4["kld"])
        self.assertEqual(sixteen["kld"], 0)
        texts = [e.text for e in ElementTree.parse(self.folder / "c.svg").iter() if e.tag.endswith("text")]
        for label in ("q8_0", "q4_0", "size of all tensors, MB"):
            self.assertIn(label, texts)


if __name__ == "__main__":
    unittest.main(verbosity=2)
