"""temper plan, quantize under a budget, and compare, on a random model of four layers, and training with the mix."""
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "support"))

import unittest

import gguf
import numpy as np

import llama_cpp
import tiny_model
from temper_cli import TemperTest, ok, ok_json, run, say, write_jsonl

TYPES = "q4_0,q5_0,q8_0"


class Budget(TemperTest):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.model = tiny_model.write_random(cls.folder / "model")
        letters = np.random.default_rng(1).choice(list("abcdefghij klm."), 4000)
        cls.text = cls.folder / "text.txt"
        cls.text.write_text("".join(letters))
        cls.measure = ["--text", cls.text, "--context", 128, "--rows", 4, "--bootstrap", 100]

    def test_quantize_within(self):
        out = self.folder / "m.gguf"
        size = 450_000
        budget = ["--model", self.model, *self.measure, "--types", TYPES, "--size"]
        report = ok_json("quantize", *budget, "450KB", "--out", out)
        tensors = gguf.GGUFReader(out).tensors
        held = sum(int(t.n_bytes) for t in tensors)
        self.assertLessEqual(held, size)
        self.assertGreater(held, 0.99 * size)
        self.assertGreater(len({t.tensor_type for t in tensors if len(t.shape) == 2}), 1)
        # Costs add up in a model whose weights are independent of each other; what is left is chance of few tokens.
        self.assertLess(abs(np.log(report["kld"] / report["predicted_kld"])), np.log(1.5))
        with llama_cpp.Model(out) as opened:
            self.assertEqual(opened.logits([1, 2, 3]).shape[0], 3)
        self.assertIn("model.embed_tokens: ", Path(report["recipe"]).read_text())
        # The measured costs are kept: the plan needs no new ones, and ends at the same allocation.
        cache = next(self.folder.glob("*.sensitivity.json"))
        before = cache.stat().st_mtime_ns
        plan = ok_json("plan", *budget, "450KB", "--out", self.folder / "plan", "--chart", self.folder / "plan.svg")
        self.assertEqual(cache.stat().st_mtime_ns, before)
        sizes = [p["bytes"] for p in plan["frontier"]]
        predicted = [p["predicted_kld"] for p in plan["frontier"]]
        self.assertEqual(sizes, sorted(sizes))
        self.assertEqual(predicted, sorted(predicted, reverse=True))
        chosen = next(p for p in plan["frontier"] if "kld" in p)
        self.assertEqual((chosen["bytes"], chosen["kld"]), (held, report["kld"]))
        ElementTree.parse(self.folder / "plan.svg")
        done = run("quantize", *budget, "100KB", "--out", self.folder / "n.gguf")
        self.assertNotEqual(done.returncode, 0)
        self.assertIn("smallest", done.stderr)
        data = write_jsonl(self.folder / "train.jsonl", [{"prompt": "abc", "completion": " def"},
                                                         {"prompt": "k", "completion": "l m"}])
        ok("train", report["recipe"], "--model", self.model, "--data", data, "--steps", 2, "--batch-size", 1, "--seq-len", 32,
           "--lora-r", 4, "--out", self.folder / "run")
        say(f"predicted KLD {report['predicted_kld']:.4f}, measured {report['kld']:.4f}")

    def test_bits(self):
        report = ok_json("quantize", "--model", self.model, *self.measure, "--types", TYPES, "--bits", 5.5, "--out",
                         self.folder / "bits.gguf")
        tensors = gguf.GGUFReader(self.folder / "bits.gguf").tensors
        bits = 8 * sum(int(t.n_bytes) for t in tensors) / sum(int(t.n_elements) for t in tensors)
        self.assertAlmostEqual(report["bits_per_weight"], bits, places=3)
        self.assertLessEqual(bits, 5.5)
        self.assertGreater(bits, 0.99 * 5.5)

    def test_far_below_four_bits(self):
        """Formats of every size are measured, so that the sum of their costs is of the size of what the mix costs."""
        model = tiny_model.write_random(self.folder / "wide", layers=3, hidden=256, intermediate=512)
        types = ["--types", "q2_k,q3_k,q4_k,q5_k,q8_0"]
        for bits in (3.5, 4.8):
            plan = ok_json("plan", "--model", model, *self.measure, *types, "--bits", bits, "--out", self.folder / "wide-plan")
            point = next(p for p in plan["frontier"] if "kld" in p)
            self.assertLessEqual(point["bits_per_weight"], bits)
            self.assertLess(abs(np.log(point["kld"] / point["predicted_kld"])), np.log(2))
            say(f"{bits} bits: predicted KLD {point['predicted_kld']:.4f}, measured {point['kld']:.4f}")
        self.assertIn("forward passes", plan["measured"])

    def test_compare(self):
        report = ok_json("compare", self.model, "--schemes", "q8_0,q4_0", *self.measure, "--speed-tokens", 2, "--chart",
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

    def test_compare_weighs_formats_of_every_family(self):
        """GGUF blocks, integers and a table of values; the line shown is that of the method with the smaller KLD."""
        schemes = ["q4_0", "int3-sym-g32", "nf4"]
        model = tiny_model.write_random(self.folder / "uneven", spread=1.0)
        lines = ok_json("compare", model, "--schemes", ",".join(schemes), *self.measure, "--speed-tokens", 0,
                        "--methods", "rtn,importance")["schemes"][1:]
        self.assertEqual([(line["scheme"], line["method"]) for line in lines], [(s, "importance") for s in schemes])

    def test_compare_chooses_the_best_way(self):
        """The way with the smallest divergence on the part that chooses; figures are of windows that chose nothing."""
        model = tiny_model.write_random(self.folder / "choices", spread=1.0)
        report = ok_json("compare", model, "--schemes", "int3-sym-g32/int8-sym,w8a8-static,nf4-dq", *self.measure, "--speed-tokens", 0)
        self.assertIn("fit to the first 1; ways chosen on 1 more; figures of the other 2", report["measured"])
        lines = report["schemes"][1:]
        for line in lines:
            measured = {way["way"]: way["kld"] for way in line["ways"] if "kld" in way}
            self.assertEqual(line["method"], min(measured, key=measured.get), line["scheme"])
            self.assertIn("gptq", measured, line["scheme"])
        self.assertEqual([way["way"] for way in lines[0]["ways"]],
                         ["rtn", "mse", "gptq", "awq", "awq+gptq", "smoothquant", "smoothquant+gptq"])
        self.assertNotEqual(lines[0]["method"], "rtn")

    def test_a_way_that_does_not_serve_is_left_out(self):
        report = ok_json("compare", self.model, "--schemes", "nf4-dq", "--methods", "mse,rtn", *self.measure, "--speed-tokens", 0)
        line = report["schemes"][1]
        self.assertEqual(line["method"], "rtn")
        self.assertIn("nf4-dq", line["ways"][0]["skipped"])
        both = ok_json("compare", self.model, "--schemes", "nf4-dq,q4_0", "--methods", "mse", *self.measure, "--speed-tokens", 0)
        self.assertEqual([line["scheme"] for line in both["schemes"]], ["16-bit", "q4_0"])
        done = run("compare", self.model, "--schemes", "nf4-dq", "--methods", "mse", *self.measure)
        self.assertEqual(done.returncode, 2)
        self.assertIn("no way of quantizing serves it", done.stderr)

    def test_method_best_ships_what_it_measured(self):
        model = tiny_model.write_random(self.folder / "best", spread=1.0)
        out = self.folder / "best-int3"
        given = ["--model", model, "--scheme", "int3-sym-g32", "--calibration", self.text, "--calibration-context", 128,
                 "--calibration-tokens", 1024]
        report = ok_json("quantize", *given, "--method", "best", "--out", out)
        measured = {way["way"]: way["kld"] for way in report["ways"]}
        self.assertEqual(report["method"], min(measured, key=measured.get))
        self.assertLess(measured[report["method"]], measured["rtn"])
        scored = ok_json("eval", *given, "--method", "best", *self.measure, "--reference", model)
        self.assertEqual(scored["method"], report["method"])
        shipped = ok_json("eval", "--model", out, *self.measure, "--reference", model)
        self.assertEqual(shipped["text_kld"], scored["text_kld"])
        done = run("quantize", "--model", model, "--scheme", "int3-sym-g32", "--method", "best", "--out", self.folder / "x")
        self.assertEqual(done.returncode, 2)
        self.assertIn("--calibration", done.stderr)


if __name__ == "__main__":
    unittest.main(verbosity=2)
