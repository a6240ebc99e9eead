"""Split GGUF files, adapters as GGUF LoRA and Modelfiles of the real model, against llama.cpp and the gguf package."""
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "support"))

import unittest

import gguf
import numpy as np

import gguf_files
import llama_cpp
from temper_cli import TemperTest, model, ok, ok_json, run, say, shown_ids, word_problems, write_jsonl

F16_ATTENTION = 0.01  # as in llama_cpp_test.py


class Split(TemperTest):
    def test_parts_hold_what_one_file_holds(self):
        ok("quantize", "--model", model(), "--scheme", "q8_0", "--out", self.folder / "one.gguf")
        report = ok_json("quantize", "--model", model(), "--scheme", "q8_0", "--out", self.folder / "m.gguf",
                         "--split-size", "40MB")
        parts = sorted(self.folder.glob("m-*-of-*.gguf"))
        self.assertGreater(len(parts), 2)
        self.assertEqual(report["path"], str(parts[0]))
        self.assertEqual([p.name for p in parts],
                         [f"m-{i + 1:05}-of-{len(parts):05}.gguf" for i in range(len(parts))])
        whole = {t.name: t for t in gguf.GGUFReader(self.folder / "one.gguf").tensors}
        seen = set()
        for number, part in enumerate(parts):
            reader = gguf.GGUFReader(part)
            self.assertEqual([reader.get_field(k).contents() for k in ("split.no", "split.count", "split.tensors.count")],
                             [number, len(parts), len(whole)])
            self.assertLessEqual(sum(int(t.n_bytes) for t in reader.tensors), 40_000_000)
            for tensor in reader.tensors:
                self.assertTrue(np.array_equal(tensor.data, whole[tensor.name].data), tensor.name)
                seen.add(tensor.name)
        self.assertEqual(seen, set(whole))
        ids = [1, 25, 300, 4000]
        with llama_cpp.Model(self.folder / "one.gguf") as one, llama_cpp.Model(parts[0]) as split:
            self.assertTrue(np.array_equal(one.logits(ids), split.logits(ids)))
        answers = [ok_json("generate", "--model", path, "--prompt", "Hello", "--raw", "--temperature", 0, "--max-tokens", 4)["ids"]
                   for path in (self.folder / "one.gguf", parts[0], parts[-1])]  # any part opens all
        self.assertEqual(answers[1:], answers[:1] * 2)
        parts[1].unlink()
        self.assertNotEqual(run("inspect", parts[0]).returncode, 0)
        say(f"{len(parts)} parts hold the {len(whole)} tensors of the one file; llama.cpp's logits equal bit for bit")


class Lora(TemperTest):
    def test_llama_cpp_applies_the_adapter(self):
        data = write_jsonl(self.folder / "train.jsonl", word_problems(8))
        held_out = write_jsonl(self.folder / "test.jsonl", word_problems(3, first=100))
        ok("train", "--model", model(), "--data", data, "--steps", 2, "--batch-size", 1, "--seq-len", 96, "--lora-r", 4,
           "--lr", "5e-3", "--out", self.folder / "run")
        lora = self.folder / "lora.gguf"
        ok("export", "--run", self.folder / "run", "--to", "gguf-lora", "--out", lora, "--modelfile")
        self.assertIn("ADAPTER ./lora.gguf", (self.folder / "lora.Modelfile").read_text())
        # eval holds the base as its file does, and decodes it in f32.
        gguf_files.write_decoded(model(), self.folder / "f32.gguf")
        measured = ok_json("eval", "--run", self.folder / "run", "--data", held_out, "--compute", "f32")
        with llama_cpp.Model(self.folder / "f32.gguf") as opened:
            figures = []
            for _ in range(2):
                values = []
                for row in range(1, 4):
                    ids, learnt = shown_ids(model(), held_out, row)
                    values.append(llama_cpp.nll(opened.logits(ids)[:-1], ids[1:])[np.array(learnt[1:])])
                figures.append(np.concatenate(values).mean())
                opened.add_lora(lora)
        base, adapted = figures
        bound = F16_ATTENTION / measured["tokens"] ** 0.5
        self.assertAlmostEqual(measured["nll"], adapted, delta=bound)
        self.assertGreater(abs(base - adapted), 10 * bound, "the adapter must matter, else the check says little")
        say(f"answer NLL of base and adapter: temper {measured['nll']:.5f}, llama.cpp {adapted:.5f}; base alone {base:.5f}")


class Modelfile(TemperTest):
    def test_beside_the_gguf(self):
        ok("quantize", "--model", model(), "--scheme", "q4_0", "--out", self.folder / "m.q4_0.gguf", "--modelfile", "--system",
           "Be brief.")
        text = (self.folder / "m.q4_0.Modelfile").read_text()
        for line in ("FROM ./m.q4_0.gguf", 'SYSTEM """Be brief."""', 'PARAMETER stop "<|im_end|>"'):
            self.assertIn(line, text.splitlines())
        self.assertIn('{{- "<|im_start|>user\\n" }}{{- .Content }}{{- "<|im_end|>\\n" }}', text)
        self.assertNotEqual(run("export", "--model", model(), "--to", "hf", "--out", self.folder / "hf", "--modelfile")
                            .returncode, 0)


if __name__ == "__main__":
    unittest.main(verbosity=2)
