#!/usr/bin/env python3
"""Makes the fuzzer's seeds: small tokenizers as tokenizer.json, as tokenizer.model and as GGUF metadata.

    pip install gguf
    python tools/oracles/make_tokenizer_corpus.py tests/fuzz/corpus/tokenizer
"""
import base64
import json
import pathlib
import struct
import sys

import gguf

TOKENS = list("abcdelonHw123!") + ["\u0120", "\u010a", "lo", "\u0120w", "He", "<s>", "</s>", "<|im_end|>"]
MERGES = ["l o", "\u0120 w", "H e"]
SPLIT = r"(?i:'s|'t)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"


# text, score, type (1 normal, 2 unknown, 3 control, 4 user-defined, 6 byte)
PIECES = [("<unk>", 0.0, 2), ("<s>", 0.0, 3), ("</s>", 0.0, 3), ("<0x0A>", 0.0, 6), ("<0xF0>", 0.0, 6), ("<tool>", 0.0, 4),
          ("\u2581w", -1.0, 1), ("lo", -2.0, 1)] + [(c, -10.0, 1) for c in "\u2581abdelorw1"]
# A map with one rule: "H" becomes "h". Units of the double array: the root, then "H" (0x48) and its leaf.
UNITS = [0] * 80
UNITS[0], UNITS[1 ^ 0x48], UNITS[1 ^ 0x48 ^ 2] = 1 << 10, 2 << 10 | 1 << 8 | 0x48, 1 << 31
CHARSMAP = struct.pack(f"<I{len(UNITS)}I", 4 * len(UNITS), *UNITS) + b"h\0"


def tokenizer(**changes):
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "use_regex": True}
    root = {"added_tokens": [{"id": 20, "content": "</s>", "special": True, "normalized": False}],
            "pre_tokenizer": byte_level, "decoder": {"type": "ByteLevel"},
            "model": {"type": "BPE", "vocab": {t: i for i, t in enumerate(TOKENS)}, "merges": MERGES}}
    for key, value in changes.items():
        if key in ("merges", "ignore_merges", "unk_token", "fuse_unk", "byte_fallback"):
            root["model"][key] = value
        else:
            root[key] = value
    return root


def variants():
    raw = {"type": "ByteLevel", "add_prefix_space": True, "use_regex": False}
    token = {"id": 19, "content": "<s>", "special": True, "lstrip": True, "rstrip": True, "single_word": True}
    yield "plain", tokenizer()
    yield "pairs", tokenizer(merges=[m.split(" ") for m in MERGES], unk_token="a", fuse_unk=True)
    yield "llama3", tokenizer(ignore_merges=True, pre_tokenizer={"type": "Sequence", "pretokenizers": [
        {"type": "Split", "pattern": {"Regex": SPLIT}, "behavior": "Isolated", "invert": False}, raw]})
    yield "falcon", tokenizer(pre_tokenizer={"type": "Sequence", "pretokenizers": [
        {"type": "Punctuation", "behavior": "Contiguous"}, raw, {"type": "Digits", "individual_digits": True},
        {"type": "Split", "pattern": {"String": " "}, "behavior": "MergedWithNext", "invert": True}]})
    yield "strip", tokenizer(added_tokens=[token, {"id": 30, "content": "wo", "normalized": True}],
                             normalizer={"type": "Sequence", "normalizers": [{"type": "NFC"}, {"type": "NFKD"}]})
    yield "bos", tokenizer(post_processor={"type": "TemplateProcessing", "special_tokens": {"<s>": {"id": "<s>", "ids": [19], "tokens": ["<s>"]}},
                                           "single": [{"SpecialToken": {"id": "<s>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}], "pair": []})
    yield "bert", tokenizer(post_processor={"type": "Sequence", "processors": [{"type": "ByteLevel"},
                                            {"type": "RobertaProcessing", "cls": ["<s>", 19], "sep": ["</s>", 20]}]})
    yield "unigram", tokenizer(model={"type": "Unigram", "vocab": [["a", 0.0]]})
    space = "\u2581"
    decoder = {"type": "Sequence", "decoders": [{"type": "Replace", "pattern": {"String": space}, "content": " "}, {"type": "ByteFallback"},
                                                {"type": "Fuse"}, {"type": "Strip", "content": " ", "start": 1, "stop": 0}]}
    prepend = {"type": "Sequence", "normalizers": [{"type": "Prepend", "prepend": space},
                                                   {"type": "Replace", "pattern": {"String": " "}, "content": space}]}
    bpe = {"type": "BPE", "byte_fallback": True, "fuse_unk": True, "unk_token": "<unk>", "vocab": {t: i for i, (t, *_) in enumerate(PIECES)},
           "merges": [[space, "w"], ["l", "o"]]}
    yield "sentencepiece", tokenizer(normalizer=prepend, pre_tokenizer=None, decoder=decoder, model=bpe, added_tokens=[])
    metaspace = {"type": "Metaspace", "replacement": space, "prepend_scheme": "first", "split": True}
    charsmap = {"type": "Precompiled", "precompiled_charsmap": base64.b64encode(CHARSMAP).decode()}
    spaces = {"type": "Replace", "pattern": {"Regex": " {2,}"}, "content": " "}
    yield "unigram_map", tokenizer(normalizer={"type": "Sequence", "normalizers": [charsmap, {"type": "Strip"}, spaces]}, decoder=metaspace,
                                   pre_tokenizer={"type": "Sequence", "pretokenizers": [{"type": "WhitespaceSplit"}, metaspace]},
                                   model={"type": "Unigram", "unk_id": 0, "byte_fallback": True, "vocab": [[t, s] for t, s, _ in PIECES]},
                                   added_tokens=[])


def field(number, content):
    """A protobuf field: fewer than 16,384 bytes, a float, or an integer below 128."""
    if isinstance(content, bytes):
        return bytes([number << 3 | 2, len(content) & 127 | 128, len(content) >> 7]) + content
    return bytes([number << 3 | 5]) + struct.pack("<f", content) if isinstance(content, float) else bytes([number << 3, content])


def sentencepiece_model(model_type):
    pieces = b"".join(field(1, field(1, text.encode()) + field(2, score) + field(3, kind)) for text, score, kind in PIECES)
    return pieces + field(2, field(3, model_type)) + field(3, field(2, CHARSMAP) + field(3, 1) + field(4, 1))


def write_gguf(path, model, pre, tokens, types, scores=None, merges=None):
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_tokenizer_model(model)
    writer.add_tokenizer_pre(pre)
    writer.add_token_list(tokens)
    writer.add_token_types(types)
    if merges:
        writer.add_token_merges(merges)
    if scores:
        writer.add_token_scores(scores)
    if model == "t5":
        writer.add_precompiled_charsmap(CHARSMAP)
        writer.add_remove_extra_whitespaces(True)
    if model == "gpt2":
        writer.add_bos_token_id(19)
        writer.add_eos_token_id(20)
    else:
        writer.add_unk_token_id(0)
    writer.add_chat_template("{{ messages }}")
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def main(folder):
    folder.mkdir(parents=True, exist_ok=True)
    for name, root in variants():
        (folder / f"{name}.json").write_text(json.dumps(root, ensure_ascii=False, separators=(",", ":")))
    for pre in ("smollm", "llama-bpe", "deepseek-coder"):
        write_gguf(folder / f"{pre}.gguf", "gpt2", pre, TOKENS, [3 if t.startswith("<") else 1 for t in TOKENS], merges=MERGES)
    texts, scores, kinds = (list(column) for column in zip(*PIECES))
    for model in ("llama", "t5"):
        write_gguf(folder / f"spm_{model}.gguf", model, "default", texts, kinds, scores=scores)
    for name, model_type in (("bpe", 2), ("unigram", 1)):
        (folder / f"{name}.model").write_bytes(sentencepiece_model(model_type))


if __name__ == "__main__":
    main(pathlib.Path(sys.argv[1]))
