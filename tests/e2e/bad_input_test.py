"""Bad input, full disks and interruption through the command line: a clear message, a status of its kind, earlier outputs
untouched."""
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "support"))

import hashlib
import json
import resource
import shutil
import signal
import subprocess
import time
import unittest

import tiny_model
from temper_cli import ENVIRONMENT, TemperTest, model, ok, program, run, say, write_jsonl

OPTION, FILE, DATA, UNSUPPORTED, SYSTEM, INTERRUPTED = 2, 3, 4, 5, 7, 130  # as the README lists them
FIRST_WEIGHT = "model.layers.0.self_attn.q_proj.weight"
TRACES = ("terminate called", "Traceback", "what():", "Assertion", "Sanitizer", "Segmentation", "core dumped", "_M_range_check")


def rows(count):
    return [{"messages": [{"role": "user", "content": f"what is {i % 7} + {i % 5}?"},
                          {"role": "assistant", "content": f"it is {i % 7 + i % 5}."}]} for i in range(count)]


def contents(folder):
    return {str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest()
            for p in sorted(Path(folder).rglob("*")) if p.is_file()}


class BadInput(TemperTest):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.good = tiny_model.write(cls.folder / "good")
        cls.data = write_jsonl(cls.folder / "rows.jsonl", rows(12))
        cls.run_folder = cls.folder / "run"
        ok(*cls.training(cls.good), "--steps", 2, "--out", cls.run_folder)

    @classmethod
    def training(cls, path):
        return ["train", "--model", path, "--data", cls.data, "--batch-size", 1, "--seq-len", 32]

    def copy(self, name):
        return Path(shutil.copytree(self.good, self.folder / name))

    def refused(self, status, words, *arguments, **options):
        """The command fails with that status and says all the words; what was there before stays as it was."""
        before = contents(self.folder)
        done = run(*arguments, **options)
        shown = f"temper {' '.join(map(str, arguments))}: status {done.returncode}\n{done.stdout}{done.stderr}"
        self.assertEqual(done.returncode, status, shown)
        for word in words:
            self.assertIn(str(word), done.stderr, shown)
        for trace in TRACES:
            self.assertNotIn(trace, done.stderr + done.stdout, shown)
        after = contents(self.folder)
        self.assertEqual({k: after.get(k) for k in before}, before, "earlier files changed")
        left = [k for k in after if k not in before and (".unverified" in k or k.endswith((".part", ".tmp")))]
        self.assertEqual(left, [], "half-written files are left behind")
        return done

    # Files

    def test_truncated_safetensors(self):
        for keep in (0, 5, 300, 100_000):
            path = self.copy(f"truncated{keep}") / "model.safetensors"
            path.write_bytes(path.read_bytes()[:keep])
            for command in (self.training(path.parent) + ["--steps", 1, "--out", self.folder / "never"],
                            ["quantize", "--model", path.parent, "--scheme", "q4_0", "--out", self.folder / "never.gguf"],
                            ["inspect", path.parent]):
                self.refused(FILE, [path], *command)

    def test_truncated_gguf(self):
        with open(model(), "rb") as file:
            head = file.read(3_000_000)
        for keep in (3, 20, 5000, len(head)):
            path = self.folder / f"truncated{keep}.gguf"
            path.write_bytes(head[:keep])
            self.refused(FILE, [path], "inspect", path)
            self.refused(FILE, [path], "quantize", "--model", path, "--scheme", "q4_0", "--out", self.folder / "never.gguf")
            path.unlink()

    def test_wrong_dtype(self):
        folder = self.copy("dtype")

        def to_integers(tensors):
            tensors[FIRST_WEIGHT][0] = "I16"

        tiny_model.edit_tensors(folder, to_integers)
        self.refused(FILE, [FIRST_WEIGHT, "BF16", "I16"], "eval", "--model", folder, "--data", self.data)

    def test_missing_tensor(self):
        folder = self.copy("missing")
        tiny_model.edit_tensors(folder, lambda tensors: tensors.pop(FIRST_WEIGHT))
        self.refused(FILE, [FIRST_WEIGHT, folder], "eval", "--model", folder, "--data", self.data)

    def test_shape_against_config(self):
        folder = self.copy("shape")
        tiny_model.edit_config(folder, intermediate_size=96)
        self.refused(FILE, ["mlp.", "96", "80"], "eval", "--model", folder, "--data", self.data)

    def test_unknown_architecture(self):
        folder = self.copy("architecture")
        tiny_model.edit_config(folder, architectures=["MambaForCausalLM"], model_type="mamba")
        self.refused(UNSUPPORTED, ["mamba", "llama", "mistral"], "inspect", folder)

    def test_broken_config(self):
        folder = self.copy("config")
        (folder / "config.json").write_text('{"model_type": "llama", ')
        self.refused(FILE, ["config.json"], "inspect", folder)
        shutil.copyfile(self.good / "config.json", folder / "config.json")
        tiny_model.edit_config(folder, hidden_size=-64)
        self.refused(FILE, ["config.json", "hidden_size", "-64"], "inspect", folder)

    def test_absent_files(self):
        nowhere = self.folder / "nowhere"
        self.refused(FILE, [nowhere], "inspect", nowhere)
        self.refused(FILE, [nowhere], "eval", "--model", self.good, "--data", nowhere)
        self.refused(FILE, [nowhere], "train", "--resume", nowhere)

    # Data

    def test_broken_line(self):
        text = self.data.read_text().splitlines()
        for line, words in (('{"messages": [', ["broken.jsonl", "7"]), ('{"question": "?"}', ["broken.jsonl", "7", "question"]),
                            ('{"messages": 3}', ["broken.jsonl", "7", "messages"])):
            path = self.folder / "broken.jsonl"
            path.write_text("\n".join(text[:6] + [line] + text[6:]))
            done = self.refused(DATA, words, "train", "--model", self.good, "--data", path, "--steps", 1, "--seq-len", 32,
                                "--out", self.folder / "never")
            self.assertRegex(done.stderr, r"broken\.jsonl(:7\b|.*line 7\b)")

    def test_nothing_to_learn(self):
        empty = write_jsonl(self.folder / "empty.jsonl", [])
        questions = write_jsonl(self.folder / "questions.jsonl", [{"messages": r["messages"][:1]} for r in rows(4)])
        for path in (empty, questions):
            self.refused(DATA, [path], "train", "--model", self.good, "--data", path, "--steps", 1, "--out",
                         self.folder / "never")

    # Options

    def test_unknown_options(self):
        out = ["--steps", 1, "--out", self.folder / "never"]
        self.refused(OPTION, ["lora.rr", "lora.r"], *self.training(self.good), *out, "lora.rr=3")
        self.refused(OPTION, ["--lora-rank", "did you mean --lora-r"], *self.training(self.good), *out, "--lora-rank", 4)
        self.refused(OPTION, ["trian", "did you mean `temper train`"], "trian", "--model", self.good)
        self.refused(OPTION, ["scheme", "q4_9", "q4_0"], *self.training(self.good), *out, "--scheme", "q4_9")
        self.refused(OPTION, ["lr", "fast"], *self.training(self.good), *out, "--lr", "fast")
        recipe = self.folder / "recipe.yaml"
        recipe.write_text("lora: {r: 4}\noptim:\n  learning_rate: 1\n")
        self.refused(OPTION, ["recipe.yaml:3", "learning_rate"], "train", recipe, "model.path=" + str(self.good), *out)

    def test_dropout_with_qat(self):
        self.refused(OPTION, ["lora.dropout", "0.1"], *self.training(self.good), "--scheme", "int4-sym-g32", "--lora-dropout",
                     0.1, "--steps", 1, "--out", self.folder / "never")

    def test_group_that_does_not_divide(self):
        """The real model has rows of 576, which 128 does not divide, and GPTQ's files have one group size."""
        self.refused(OPTION, ["int4-gptq", "q_proj", "576", "int4-gptq-g64 is the same"], "train", "--model", model(),
                     "--data", self.data, "--scheme", "int4-gptq", "--steps", 1, "--out", self.folder / "never")

    def test_scheme_without_a_wire(self):
        words = ["int4-sym-g32", "q4_0", "q8_0"]
        self.refused(OPTION, words, "quantize", "--model", self.good, "--scheme", "int4-sym-g32", "--out",
                     self.folder / "never.gguf")
        self.refused(OPTION, words, "export", "--run", self.run_folder, "--to", "gguf:int4-sym-g32", "--out",
                     self.folder / "never.gguf")
        self.refused(OPTION, ["adapter", "run"], "export", "--model", self.good, "--to", "adapter", "--out",
                     self.folder / "never")

    # Outputs

    def test_out_exists(self):
        self.refused(OPTION, [self.run_folder, "finished run"], *self.training(self.good), "--steps", 1, "--out",
                     self.run_folder)
        self.refused(OPTION, [self.good, "there already"], "export", "--run", self.run_folder, "--to", "hf", "--out", self.good)
        self.refused(OPTION, [self.data, "file"], *self.training(self.good), "--steps", 1, "--out", self.data)
        below = self.data / "below"  # a file is no folder
        self.refused(SYSTEM, [self.data, "refused"], *self.training(self.good), "--steps", 1, "--out", below)
        self.refused(SYSTEM, [self.data, "refused"], "export", "--run", self.run_folder, "--to", "hf", "--out", below)

    def test_positions(self):
        """A row longer than the model's 64 positions."""
        path = write_jsonl(self.folder / "long.jsonl", [{"prompt": "a b ", "completion": "c d " * 40}] * 3)
        self.refused(OPTION, ["data.seq_len", "64"], "train", "--model", self.good, "--data", path, "--steps", 1, "--seq-len",
                     256, "--out", self.folder / "never")

    def test_token_beyond_the_embedding(self):
        """Harmless until a text has it; then the file, the token, its id and the rows are named."""
        folder = self.copy("extra-token")
        vocabulary = json.loads((folder / "config.json").read_text())["vocab_size"]
        tokenizer = json.loads((folder / "tokenizer.json").read_text())
        tokenizer["added_tokens"].append({"id": vocabulary, "content": "<extra>", "special": True, "normalized": False, "lstrip": False,
                                          "rstrip": False, "single_word": False})
        (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
        ok(*self.training(folder), "--steps", 1, "--out", self.folder / "without-extra")
        used = rows(12)
        used[4]["messages"][0]["content"] += "<extra>"
        data = write_jsonl(self.folder / "extra.jsonl", used)
        words = (folder / "tokenizer.json", "<extra>", f"id {vocabulary}", f"{vocabulary} rows", "resize_token_embeddings")
        training = ["train", "--model", folder, "--batch-size", 1, "--seq-len", 32, "--steps", 1, "--out", self.folder / "with-extra"]
        self.refused(DATA, (*words, "extra.jsonl:5"), *training, "--data", data)
        self.refused(DATA, (*words, "extra.jsonl:5"), *training, "--data", self.data, "--eval-data", data)
        self.refused(DATA, (*words, "extra.jsonl:5"), "eval", "--model", folder, "--data", data)
        self.refused(DATA, words, "generate", "--model", folder, "--prompt", "what is <extra>?")

    def test_full_disk(self):
        """Writes fail beyond 20 kB, as on a full disk; a file that is to be replaced stays."""

        def small_files():
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # an error of write(2), not a signal
            resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))

        earlier = self.folder / "earlier.gguf"
        earlier.write_bytes(b"precious")
        for command in (["export", "--run", self.run_folder, "--to", "gguf:bf16", "--out", earlier],
                        ["export", "--run", self.run_folder, "--to", "hf", "--out", self.folder / "never"],
                        [*self.training(self.good), "--lora-r", 32, "--steps", 1, "--out", self.folder / "full"]):
            self.refused(SYSTEM, ["cannot"], *command, preexec_fn=small_files)
        self.assertEqual(earlier.read_bytes(), b"precious")
        self.assertFalse((self.folder / "never").exists())

    # Interruption

    def test_interrupted_and_resumed(self):
        """Ctrl-C saves the state; the run goes on to the adapter that it would have had."""
        long = [*self.training(self.good), "--steps", 400, "--scheme", "int8-sym", "--checkpoint-every", 0]
        whole, stopped = self.folder / "whole", self.folder / "stopped"
        ok(*long, "--out", whole)
        process = subprocess.Popen([program(), *map(str, long), "--out", str(stopped)], env=ENVIRONMENT, text=True,
                                   stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        log = stopped / "log.jsonl"
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline and process.poll() is None and not (log.exists() and log.stat().st_size > 0):
            time.sleep(0.005)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=120)
        self.assertEqual(process.returncode, INTERRUPTED, out + err)
        self.assertIn("--resume", err)
        done = len(log.read_text().splitlines())
        self.assertLess(done, 400)
        ok("train", "--resume", stopped)
        self.assertEqual(len(log.read_text().splitlines()), 400)
        adapters = [contents(ok_export(folder)) for folder in (whole, stopped)]
        self.assertEqual(adapters[0]["adapter_model.safetensors"], adapters[1]["adapter_model.safetensors"])
        say(f"stopped after step {done} of 400, resumed: the same adapter, bit for bit")


def ok_export(folder):
    target = folder.with_name(folder.name + "-adapter")
    ok("export", "--run", folder, "--to", "adapter", "--out", target)
    return target


if __name__ == "__main__":
    unittest.main(verbosity=2)
