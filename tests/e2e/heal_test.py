"""temper heal on a tiny random model: nothing but the model goes in; its quantized file comes out, nearer to the original."""
import signal
import subprocess
import sys
import unittest
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "support"))

import gguf

import tiny_model
from temper_cli import ENVIRONMENT, TemperTest, ok_json, program, run, say

SMALL = ["--tokens", 16384, "--length", 64, "--held-out-tokens", 2048, "--lora-r", 8, "--bootstrap", 200, "--lr", 2e-3]


class Heal(TemperTest):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.model = tiny_model.write_random(cls.folder / "model")
        cls.text = cls.folder / "text.txt"
        cls.text.write_text("the rain in a plain " * 200)

    def arguments(self, out, *more):
        return ["heal", self.model, "--scheme", "q4_0", *SMALL, "--out", out, *more]

    def test_healed(self):
        out = self.folder / "healed.gguf"
        report = ok_json(*self.arguments(out, "--text", self.text, "--context", 128))
        own, text = report["divergence"]
        say(f"KLD {own['before']['kld']:.4f} to {own['after']['kld']:.4f} of its own text, "
            f"{text['before']['kld']:.4f} to {text['after']['kld']:.4f} of another")
        # Far outside each other's intervals, on text that was not trained on.
        self.assertLess(own["after"]["kld_ci"][1], own["before"]["kld_ci"][0])
        self.assertLess(text["after"]["kld"], text["before"]["kld"])
        types = {t.tensor_type.name for t in gguf.GGUFReader(out).tensors if "attn_q" in t.name}
        self.assertEqual(types, {"Q4_0"})
        # The same again: text is read and the run used; another --out writes the same file.
        folder = Path(report["folder"])
        texts = {f.name: f.stat().st_mtime_ns for f in (folder / "texts").iterdir()}
        log = (folder / "run" / "log.jsonl").read_text()
        again = ok_json(*self.arguments(self.folder / "again.gguf", "--work-folder", folder))
        self.assertEqual(texts, {f.name: f.stat().st_mtime_ns for f in (folder / "texts").iterdir()})
        self.assertEqual(log, (folder / "run" / "log.jsonl").read_text())
        self.assertEqual(again["divergence"][0], own)
        self.assertEqual((self.folder / "again.gguf").read_bytes(), out.read_bytes())
        # A run of other options is not taken for this one.
        other = run(*self.arguments(out, "--lora-alpha", 7))
        self.assertNotEqual(other.returncode, 0)
        self.assertIn("lora.alpha", other.stderr)

    def test_interrupted(self):
        """Stopped anywhere, the same call goes on, to the same file."""
        whole = self.folder / "whole.gguf"
        ok_json(*self.arguments(whole))
        out, stops = self.folder / "stopped.gguf", 0
        for wait in (0.4, 0.8, 1.2, 1.6, 2.4, 60):
            process = subprocess.Popen([program(), *map(str, self.arguments(out))], env=ENVIRONMENT, stderr=subprocess.PIPE,
                                       stdout=subprocess.DEVNULL, text=True)
            try:
                errors = process.communicate(timeout=wait)[1]
            except subprocess.TimeoutExpired:
                process.send_signal(signal.SIGINT)
                errors = process.communicate(timeout=60)[1]
            if process.returncode == 0:
                break
            stops += 1
            self.assertIn("the same `temper heal` goes on", errors)
            self.assertFalse(out.exists())
        self.assertEqual(process.returncode, 0, errors)
        say(f"interrupted {stops} times")
        self.assertEqual(out.read_bytes(), whole.read_bytes())

    def test_refused(self):
        for more, named in ((["--scheme", "none"], "quant.scheme"), (["--data", "x"], "--data"),
                            (["--scheme", "no-such"], "no-such")):
            done = run("heal", self.model, "--out", self.folder / "no.gguf", *more)
            self.assertNotEqual(done.returncode, 0)
            self.assertIn(named, done.stderr)
        self.assertFalse((self.folder / "no.gguf.heal").exists())


if __name__ == "__main__":
    unittest.main()
