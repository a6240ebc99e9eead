"""A run trained with q4_0 on the real model, exported every way, against llama.cpp, ggml and HF tokenizers."""
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "support"))

import unittest

import gguf
import jinja2
import numpy as np
import tokenizers

import gguf_files
import llama_cpp
from temper_cli import TemperTest, model, ok, ok_json, say, shown_ids, word_problems, write_jsonl

QUANTIZED = {"q4_0": "Q4_0", "q8_0": "Q8_0"}
FILE_TYPES = {"f16": 1, "q4_0": 2, "q8_0": 7, "bf16": 32}
PROMPTS = ["The capital of France is", "def add(a, b):\n    return", "Once upon a time there was a small"]
# llama.cpp's attention works in f16 (relative error 2^-11 a rounding), temper's in f32, which moves a logit of size 20 by about
# 20 * 2^-11 = 0.01; everything else is f32 in both. Single logits get five times that, means of n tokens 1 / sqrt(n) of it.
F16_ATTENTION = 0.01


class LlamaCpp(TemperTest):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.data = write_jsonl(cls.folder / "train.jsonl", word_problems(24))
        cls.held_out = write_jsonl(cls.folder / "test.jsonl", word_problems(6, first=100))
        cls.run_folder = cls.folder / "run"
        ok("train", "--model", model(), "--data", cls.data, "--scheme", "q4_0", "--steps", 3, "--batch-size", 1,
           "--seq-len", 128, "--lora-r", 4, "--lr", "3e-3", "--out", cls.run_folder)
        cls.reports = {}
        for kind in ("q4_0", "q8_0", "bf16", "f16"):
            cls.reports[kind] = ok_json("export", "--run", cls.run_folder, "--to", f"gguf:{kind}", "--out", cls.path(kind))
        cls.reports["hf"] = ok_json("export", "--run", cls.run_folder, "--to", "hf", "--out", cls.folder / "hf")
        ok("export", "--run", cls.run_folder, "--to", "adapter", "--out", cls.folder / "adapter")
        ok("export", "--model", model(), "--to", "gguf:bf16", "--out", cls.path("base-bf16"))
        for kind in QUANTIZED:
            ok("quantize", "--model", model(), "--scheme", kind, "--out", cls.path(f"base-{kind}"))
        ok("quantize", "--model", cls.folder / "hf", "--scheme", "q4_0", "--out", cls.path("from-hf"))
        # What the 4-bit file's weights give without rounding of activations.
        gguf_files.write_decoded(cls.path("q4_0"), cls.path("decoded"))

    @classmethod
    def path(cls, name):
        return cls.folder / f"{name}.gguf"

    def chat(self):
        """A conversation rendered by jinja2 as transformers sets it up, and the file that holds it as a row."""
        row = word_problems(1, first=2)[0]
        template = gguf.GGUFReader(model()).get_field("tokenizer.chat_template").contents()
        environment = jinja2.Environment(trim_blocks=True, lstrip_blocks=True)
        text = environment.from_string(template).render(messages=row["messages"], add_generation_prompt=False)
        return text, write_jsonl(self.folder / "chat.jsonl", [row])

    def test_every_file_loads_and_tokenizes_alike(self):
        text, data = self.chat()
        for source in (model(), self.folder / "hf", self.path("q4_0")):
            ids, learnt = shown_ids(source, data)
            self.assertIn(True, learnt)
            self.assertEqual(tokenizers.Tokenizer.from_file(str(self.folder / "hf" / "tokenizer.json"))
                             .encode(text, add_special_tokens=False).ids, ids, f"tokenizer.json against {source}")
        for name in ("q4_0", "q8_0", "bf16", "f16", "base-bf16", "base-q4_0", "base-q8_0", "from-hf"):
            with llama_cpp.Model(self.path(name)) as opened:
                self.assertEqual(opened.tokenize(text), ids, name)
                self.assertTrue(np.isfinite(opened.logits(ids[:8])).all(), name)
        say(f"8 files load in llama.cpp; {len(ids)} ids of the rendered chat equal in temper, llama.cpp and HF tokenizers")

    def test_reports(self):
        """What export says of itself: only the trained format is as trained."""
        self.assertEqual({k: r["as_trained"] for k, r in self.reports.items()},
                         {"q4_0": True, "q8_0": False, "bf16": False, "f16": False, "hf": False})
        self.assertEqual(self.reports["q4_0"]["top1_agreement"], 1.0)
        for name in ("adapter_config.json", "adapter_model.safetensors"):
            self.assertTrue((self.folder / "adapter" / name).is_file())

    def check_bytes(self, plain, quantized, kind):
        """Every tensor of a quantized file is what ggml makes of the 16-bit file's."""
        plain = {t.name: t for t in gguf.GGUFReader(plain).tensors}
        found = {t.name: t for t in gguf.GGUFReader(quantized).tensors}
        self.assertEqual(sorted(plain), sorted(found))
        counts = {}
        for name, tensor in found.items():
            if plain[name].tensor_type == gguf.GGMLQuantizationType.F32:
                expected_kind, expected = "F32", np.asarray(plain[name].data).view(np.uint8).ravel()
            else:
                expected_kind = "Q8_0" if name == "token_embd.weight" else kind
                expected = llama_cpp.quantize(gguf_files.decoded(plain[name]), expected_kind)
            self.assertEqual(tensor.tensor_type.name, expected_kind, name)
            different = np.count_nonzero(np.asarray(tensor.data).view(np.uint8).ravel() != expected)
            self.assertEqual(different, 0, f"{quantized.name}: {name}: {different} bytes differ from ggml's quantizer")
            counts[expected_kind] = counts.get(expected_kind, 0) + 1
        return counts

    def test_bytes_are_those_of_ggml(self):
        for kind, name in QUANTIZED.items():
            trained = self.check_bytes(self.path("bf16"), self.path(kind), name)
            base = self.check_bytes(self.path("base-bf16"), self.path(f"base-{kind}"), name)
            self.assertEqual(trained, base)
            say(f"{kind}: bytes of all tensors {trained} equal ggml_quantize_chunk of the BF16 export, trained and base")

    def test_training_moved_the_codes(self):
        trained, base = (gguf.GGUFReader(self.path(n)).tensors for n in ("q4_0", "base-q4_0"))
        moved = sum(int(np.count_nonzero(a.data != b.data)) for a, b in zip(trained, base))
        total = sum(int(a.data.nbytes) for a in trained)
        self.assertGreater(moved, total // 1000, "the run must differ from its base, else the other checks say little")
        say(f"training moved {100 * moved / total:.1f} % of the file's bytes")

    def test_merged_checkpoint_quantizes_to_the_trained_bytes(self):
        trained, other = (gguf.GGUFReader(self.path(n)).tensors for n in ("q4_0", "from-hf"))
        self.assertEqual([t.name for t in trained], [t.name for t in other])
        for a, b in zip(trained, other):
            self.assertEqual(a.tensor_type, b.tensor_type, a.name)
            self.assertTrue(np.array_equal(a.data, b.data), a.name)
        say(f"q4_0 of the merged checkpoint: all {len(trained)} tensors equal the trained ones")

    def test_metadata(self):
        source = gguf_files.metadata(gguf.GGUFReader(model()))
        own = {"general.file_type", "general.quantization_version"}
        for kind, file_type in FILE_TYPES.items():
            reader = gguf.GGUFReader(self.path(kind))
            found = gguf_files.metadata(reader)
            self.assertEqual(reader.get_field("general.file_type").contents(), file_type)
            self.assertEqual(set(source) | own, set(found), kind)
            for key in set(source) - own:
                self.assertEqual(source[key], found[key], f"{kind}: {key}")
        say(f"{len(source)} keys of the source equal in every export")

    def test_metadata_made_from_a_folder(self):
        """Without a GGUF to copy from, every key that the source GGUF has and that carries meaning is there, equal."""
        source = gguf.GGUFReader(model())
        found = gguf.GGUFReader(self.path("from-hf"))
        # Provenance, which a folder does not tell.
        told = [k for k in source.fields if k.startswith(("llama.", "tokenizer."))]
        for key in told:
            self.assertIn(key, found.fields)
            expected, value = source.get_field(key).contents(), found.get_field(key).contents()
            if key == "tokenizer.ggml.token_type":
                continue  # compared by what llama.cpp makes of them: ids
            if isinstance(expected, float):
                self.assertAlmostEqual(value / expected, 1.0, 6, key)
            else:
                self.assertEqual(value, expected, key)
        self.assertEqual(found.get_field("general.file_type").contents(), FILE_TYPES["q4_0"])
        say(f"{len(told)} keys made from the folder equal the original GGUF's")

    def test_teacher_forced_top1(self):
        """temper's greedy tokens are its top-1 at each of their positions; llama.cpp, given the same tokens, must agree wherever
        the margin of its first over its second is beyond doubt.

        The doubt is measured, not assumed: llama.cpp runs the same weights once as Q4_0, where it rounds activations to 8
        bits, and once decoded to F32, where it does not. With m = the greatest change of any logit at a position, an order of
        two logits can only turn if their margin is at most 2 m."""
        checked = near = skipped = 0
        worst_move = 0.0
        with llama_cpp.Model(self.path("q4_0")) as rounded, llama_cpp.Model(self.path("decoded")) as exact:
            for prompt in PROMPTS:
                answer = ok_json("generate", "--run", self.run_folder, "--prompt", prompt, "--raw", "--temperature", 0,
                                 "--max-tokens", 40, "--compute", "f32")
                start, ids = rounded.tokenize(prompt), answer["ids"]
                self.assertEqual(len(start), answer["prompt_tokens"])
                at = slice(len(start) - 1, len(start) + len(ids) - 1)
                a, b = (m.logits(start + ids)[at] for m in (rounded, exact))
                move = np.abs(a - b).max(axis=1)
                worst_move = max(worst_move, float(move.max()))
                for logits, doubt, what in ((a, 2 * move, "Q4_0"), (b, np.full(len(ids), 2 * 5 * F16_ATTENTION), "decoded")):
                    top = np.sort(logits, axis=1)
                    sure = top[:, -1] - top[:, -2] > doubt
                    wrong = sure & (logits.argmax(axis=1) != np.array(ids))
                    self.assertFalse(wrong.any(), f"{what}: {prompt!r}: positions {np.flatnonzero(wrong)}")
                    checked += int(sure.sum()) if what == "Q4_0" else 0
                    near += int(sure.sum()) if what == "decoded" else 0
                skipped += len(ids)
        self.assertGreater(checked, skipped // 4)
        self.assertGreater(near, skipped * 3 // 4)
        say(f"top-1 agrees at {checked} of {skipped} positions whose margin exceeds 8-bit rounding (logits move by up to "
            f"{worst_move:.3f}), and at {near} without that rounding")

    def test_answer_nll(self):
        """eval's answer NLL of the run, token by token the file's in llama.cpp."""
        measured = ok_json("eval", "--run", self.run_folder, "--data", self.held_out, "--compute", "f32")
        sums = {"q4_0": [0.0, 0], "decoded": [0.0, 0]}
        for name, total in sums.items():
            with llama_cpp.Model(self.path(name)) as opened:
                for row in range(1, 7):
                    ids, learnt = shown_ids(model(), self.held_out, row)
                    values = llama_cpp.nll(opened.logits(ids)[:-1], ids[1:])[np.array(learnt[1:])]
                    total[0] += values.sum()
                    total[1] += len(values)
        means = {name: total[0] / total[1] for name, total in sums.items()}
        self.assertEqual(measured["tokens"], sums["q4_0"][1])
        self.assertAlmostEqual(measured["nll"], means["decoded"], delta=F16_ATTENTION / measured["tokens"] ** 0.5)
        say(f"answer NLL of {measured['tokens']} tokens: temper {measured['nll']:.5f}, llama.cpp {means['decoded']:.5f} "
            f"(with 8-bit activations {means['q4_0']:.5f})")


if __name__ == "__main__":
    unittest.main(verbosity=2)
