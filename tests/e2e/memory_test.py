"""Memory that a run is planned to take, and what the system then counts: within 5 %, in a process of its own."""
import sys
import unittest
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "support"))

import tiny_model
from temper_cli import TemperTest, model, ok_json, say, word_problems, write_jsonl

TEXT = "the rain in a plain " * 20
WAYS = {
    "16-bit": [],
    "qat": ["--scheme", "q4_0"],
    "no recompute": ["--recompute", "none"],
    "offload": ["--recompute", "offload"],
    "full": ["--mode", "full"],
    "full qat": ["--mode", "full", "--scheme", "q4_0", "--optimizer-state", "8bit"],
    "qlora and distillation": ["--base-format", "nf4-dq", "--scheme", "q8_0", "--objective", "distill"],
}


class Memory(TemperTest):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        # Large enough that the program itself is a small part of it.
        cls.model = tiny_model.write_random(cls.folder / "model", layers=8, hidden=512, intermediate=1536)
        cls.text = write_jsonl(cls.folder / "text.jsonl", [{"text": TEXT}] * 32)

    def check(self, name, *arguments):
        out = self.folder / name.replace(" ", "-")
        report = ok_json("train", *arguments, "--steps", 2, "--out", out)
        planned, measured = report["planned_bytes"], report["peak_rss_bytes"]
        say(f"{name}: planned {planned / 1e6:.0f} MB, measured {measured / 1e6:.0f} MB")
        self.assertLess(abs(planned - measured), 0.05 * measured, name)

    def test_ways_to_train(self):
        for name, way in WAYS.items():
            self.check(name, "--model", self.model, "--data", self.text, "--batch-size", 4, "--seq-len", 256, *way)

    def test_teacher(self):
        """Another model's weights and passes are in the plan."""
        teacher = tiny_model.write_random(self.folder / "teacher", layers=12, hidden=768, intermediate=2048, seed=1)
        self.check("a larger teacher", "--model", self.model, "--data", self.text, "--batch-size", 4, "--seq-len", 256,
                   "--objective", "distill", "--teacher", teacher)

    def test_preferences(self):
        rows = [{"prompt": "a", "chosen": TEXT[:150], "rejected": TEXT[1:151]}] * 16
        self.check("preferences", "--model", self.model, "--data", write_jsonl(self.folder / "pairs.jsonl", rows),
                   "--objective", "dpo", "--batch-size", 2, "--seq-len", 256, "--scheme", "q4_0")

    def test_real_model(self):
        rows = write_jsonl(self.folder / "rows.jsonl", word_problems(120))
        self.check("the real model", "--model", model(), "--data", rows, "--scheme", "int4-sym-g32", "--batch-size", 4,
                   "--seq-len", 512)


if __name__ == "__main__":
    unittest.main()
