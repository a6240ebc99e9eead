"""temper plan RECIPE: memory and time of a training run, what saves some, and limits that can and cannot be met."""
import shutil
import sys
import unittest
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "support"))

import tiny_model
from temper_cli import TemperTest, ok, ok_json, run, say, write_jsonl


class Plan(TemperTest):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.model = tiny_model.write_random(cls.folder / "model", layers=8, hidden=512, intermediate=1536)
        rows = write_jsonl(cls.folder / "rows.jsonl", [{"text": "the rain in a plain " * 20}] * 32)
        cls.recipe = cls.folder / "recipe.yaml"
        cls.recipe.write_text(f"model: {{path: {cls.model}}}\ndata: {{path: {rows}, seq_len: 256}}\n"
                              "quant.scheme: q4_0\ntrain: {steps: 4, batch_size: 4}\n")

    def test_says_what_a_run_then_takes(self):
        plan = ok_json("plan", self.recipe)
        self.assertEqual(sum(plan["memory"].values()), plan["peak_bytes"])
        chosen = plan["choices"][plan["chosen"]]
        self.assertEqual((chosen["recompute"], chosen["micro_batch"]), ("block", 4))
        self.assertEqual({c["recompute"] for c in plan["choices"]}, {"none", "selective", "block", "offload"})
        self.assertEqual([c["expected_time"] for c in plan["choices"]], sorted(c["expected_time"] for c in plan["choices"]))
        self.assertGreater(plan["step_seconds"], 0)
        self.assertAlmostEqual(plan["seconds"], 4 * plan["step_seconds"])
        weights = {int(bits): at["weights"] for bits, at in plan["at_bits"].items()}
        self.assertEqual(sorted(weights), [2, 4, 8, 16, 32])
        self.assertEqual(weights[32], 16 * weights[2])
        self.assertEqual(plan["at_bits"]["32"]["weights"] - plan["at_bits"]["16"]["weights"],
                         plan["at_bits"]["32"]["peak_bytes"] - plan["at_bits"]["16"]["peak_bytes"])
        trained = ok_json("train", self.recipe, "--out", self.folder / "run")
        self.assertLess(abs(trained["peak_rss_bytes"] - plan["peak_bytes"]), 0.05 * trained["peak_rss_bytes"])
        self.assertEqual(sorted(p.name for p in self.folder.iterdir()), ["model", "recipe.yaml", "rows.jsonl", "run"])
        text = ok("plan", self.recipe)
        for words in ("peak", "32 bits", "offload", "<- this plan", "s a step (measured)", "done "):
            self.assertIn(words, text)

    def test_chooses_within_a_limit(self):
        """Every limit that some choice meets is met, by the fastest that does, and the run stays within it."""
        choices = ok_json("plan", self.recipe)["choices"]
        least = min(c["peak_bytes"] for c in choices)
        for limit in (max(c["peak_bytes"] for c in choices) + 10**7, least + 2 * 10**7):
            plan = ok_json("plan", self.recipe, "--memory", f"{limit}B")
            fits = [c for c in plan["choices"] if c["peak_bytes"] <= limit]
            self.assertEqual(plan["choices"][plan["chosen"]], fits[0])
            self.assertLessEqual(plan["peak_bytes"], limit)
        out = self.folder.parent / (self.folder.name + "-limited")
        self.addCleanup(lambda: shutil.rmtree(out, ignore_errors=True))
        trained = ok_json("train", self.recipe, "--memory", f"{limit}B", "--out", out)
        say(f"limit {limit / 1e6:.0f} MB: {trained['peak_rss_bytes'] / 1e6:.0f} MB taken")
        self.assertLess(trained["peak_rss_bytes"], 1.05 * limit)

    def test_a_limit_that_nothing_meets(self):
        done = run("plan", self.recipe, "--memory", "100MB")
        self.assertNotEqual(done.returncode, 0)
        for words in ("nothing fits", "data.seq_len", "optim.state 8bit", "lora.r 8", "model.base_format nf4-dq",
                      "all of these"):
            self.assertIn(words, done.stderr)

    def test_two_things_to_plan(self):
        done = run("plan", "--model", self.model)
        self.assertNotEqual(done.returncode, 0)
        self.assertIn("training recipe", done.stderr)
        self.assertIn("--text", done.stderr)


if __name__ == "__main__":
    unittest.main()
