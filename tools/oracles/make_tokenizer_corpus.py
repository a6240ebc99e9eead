#!/usr/bin/env python3
"""Makes the fuzzer's seeds: small tokenizers as tokenizer.json and as GGUF metadata.

    pip install gguf
    python tools/oracles/make_tokenizer_corpus.py tests/fuzz/corpus/tokenizer
"""
import json
import pathlib
import sys

import gguf

TOKENS = list("abcdelonHw123!") + ["\u0120", "\u010a", "lo", "\u0120w", "He", "<s>", "</s>", "<|im_end|>"]
MERGES = ["l o", "\u0120 w", "H e"]
SPLIT = r"(?i:'s|'t)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"


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


def main(folder):
    folder.mkdir(parents=True, exist_ok=True)
    for name, root in variants():
        (folder / f"{name}.json").write_text(json.dumps(root, ensure_ascii=False, separators=(",", ":")))
    for pre in ("smollm", "llama-bpe", "deepseek-coder"):
        writer = gguf.GGUFWriter(folder / f"{pre}.gguf", "llama")
        writer.add_tokenizer_model("gpt2")
        writer.add_tokenizer_pre(pre)
        writer.add_token_list(TOKENS)
        writer.add_token_types([3 if t.startswith("<") else 1 for t in TOKENS])
        writer.add_token_merges(MERGES)
        writer.add_bos_token_id(19)
        writer.add_eos_token_id(20)
        writer.add_chat_template("{{ messages }}")
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()


if __name__ == "__main__":
    main(pathlib.Path(sys.argv[1]))
