#!/usr/bin/env python3
"""Makes tests/data/sentencepiece: small SentencePiece models, the tokenizer.json that belongs to each, and what the sentencepiece
package and HF tokenizers make of 1 MiB of mixed text with them.

    pip install sentencepiece tokenizers
    python tools/oracles/make_sentencepiece_golden.py tests/data/sentencepiece

<name>.model, <name>.json   the model as trained, and as Hugging Face's converters write it
golden.json                 per name: count, FNV-1a 64 and samples of the ids, by both packages; ids and text of a short text
"""
import io
import json
import pathlib
import sys

import sentencepiece
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

import make_tokenizer_golden as base

SPACE = "\u2581"
# from -> to, in hexadecimal code points: two rules of which one begins the other, what NFKC does, spaces, nothing at all
RULES = [("41", "61"), ("41 30A", "E5"), ("41 30A 301", "1FB"), ("FB01", "66 69"), ("2126", "3A9"), ("BD", "31 2044 32"), ("3000", "20"),
         ("A0", "20"), ("9", "20"), ("A", "20"), ("D", "20"), ("200B", ""), ("AD", ""), ("FF71", "30A2"), ("FF76 FF9E", "30AC"), ("FF76", "30AB")]

# name -> options of the trainer
MODELS = {
    "llama": {"model_type": "bpe", "byte_fallback": True, "normalization_rule_name": "identity", "remove_extra_whitespaces": False},
    "gemma": {"model_type": "bpe", "byte_fallback": True, "normalization_rule_name": "identity", "remove_extra_whitespaces": False,
              "add_dummy_prefix": False, "user_defined_symbols": ["\n", "\n\n", SPACE * 2, SPACE * 3, "<tool_call>"]},
    "plain_bpe": {"model_type": "bpe", "rules": True},
    "t5": {"model_type": "unigram", "rules": True},
    "unigram_bytes": {"model_type": "unigram", "byte_fallback": True, "normalization_rule_name": "identity",
                      "remove_extra_whitespaces": False},
}


def train(folder, name, lines):
    options = dict(MODELS[name])
    if options.pop("rules", False):
        table = folder / "rules.tsv"
        table.write_text("".join(f"{a}\t{b}\n" for a, b in RULES))
        options["normalization_rule_tsv"] = str(table)
    out = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(sentence_iterator=iter(lines), model_writer=out, vocab_size=1100, character_coverage=0.98,
                                             num_threads=1, minloglevel=2, max_sentencepiece_length=12, hard_vocab_limit=False, **options)
    if "normalization_rule_tsv" in options:
        table.unlink()
    return out.getvalue()


def pieces_of(model):
    ids = range(model.get_piece_size())
    kind = [2 if model.is_unknown(i) else 3 if model.is_control(i) else 6 if model.is_byte(i) else 1 for i in ids]
    return [model.id_to_piece(i) for i in ids], [model.get_score(i) for i in ids], kind


def merges_of(pieces, scores, kinds):
    normal = {p: i for i, p in enumerate(pieces) if kinds[i] == 1}
    order = sorted(normal.values(), key=lambda i: (-scores[i], i))
    return [(p[:cut], p[cut:]) for p in (pieces[i] for i in order) for cut in range(1, len(p)) if p[:cut] in normal and p[cut:] in normal]


def charsmap_of(blob):
    """precompiled_charsmap out of the model: field 3 (normalizer_spec), field 2."""
    def fields(message):
        at = 0
        while at < len(message):
            def varint():
                nonlocal at
                value = shift = 0
                while True:
                    byte = message[at]
                    at += 1
                    value |= (byte & 127) << shift
                    shift += 7
                    if byte < 128:
                        return value
            tag = varint()
            if tag & 7 == 0:
                yield tag >> 3, varint()
                continue
            size = varint() if tag & 7 == 2 else 4
            yield tag >> 3, message[at:at + size]
            at += size
    normalizer = next(value for number, value in fields(blob) if number == 3)
    return next((value for number, value in fields(normalizer) if number == 2), b"")


def convert(name, blob, pieces, scores, kinds):
    """As transformers' converters: Prepend and Replace for the Llama kind, Precompiled and Metaspace for T5's."""
    decoder = [decoders.Replace(SPACE, " "), decoders.ByteFallback(), decoders.Fuse()]
    if MODELS[name]["model_type"] == "bpe":
        tokenizer = Tokenizer(models.BPE({p: i for i, p in enumerate(pieces)}, merges_of(pieces, scores, kinds), unk_token="<unk>",
                                         fuse_unk=True, byte_fallback=MODELS[name].get("byte_fallback", False)))
    else:
        tokenizer = Tokenizer(models.Unigram(list(zip(pieces, scores)), 0, byte_fallback=MODELS[name].get("byte_fallback", False)))
    if name == "llama":
        tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend(SPACE), normalizers.Replace(" ", SPACE)])
        tokenizer.decoder = decoders.Sequence(decoder + [decoders.Strip(" ", 1, 0)])
    elif name == "gemma":
        tokenizer.normalizer = normalizers.Replace(" ", SPACE)
        tokenizer.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_previous")  # finds nothing, as in Gemma's own
        tokenizer.decoder = decoders.Sequence(decoder)
    elif name == "plain_bpe":  # the later form of Llama's: a space before a whole text only
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(SPACE, prepend_scheme="first", split=False)
        tokenizer.decoder = decoders.Sequence(decoder + [decoders.Strip(" ", 1, 0)])
    elif name == "t5":
        tokenizer.normalizer = normalizers.Sequence([normalizers.Precompiled(charsmap_of(blob)), normalizers.Strip(left=False, right=True),
                                                     normalizers.Replace(Regex(" {2,}"), SPACE)])
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(SPACE, prepend_scheme="always")
        tokenizer.decoder = decoders.Metaspace(SPACE, prepend_scheme="always")
    else:
        tokenizer.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Replace(Regex(r"[\u200b-\u200d]"), "")])
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace(SPACE)])
        tokenizer.decoder = decoders.Sequence(decoder + [decoders.Strip(" ", 1, 0)])
    tokenizer.add_special_tokens([AddedToken(t, special=True, normalized=False) for t in ("<unk>", "<s>", "</s>", "<|im_start|>", "<|im_end|>")])
    tokenizer.add_tokens([AddedToken(t, normalized=False) for t in MODELS[name].get("user_defined_symbols", [])])
    if name != "t5":  # its map makes the text that a normalized token is sought in another
        tokenizer.add_tokens([AddedToken("word", normalized=True, single_word=True)])
    if MODELS[name]["model_type"] == "bpe":
        tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", pair="<s> $A <s> $B", special_tokens=[("<s>", 1)])
    return tokenizer


def main(folder):
    folder.mkdir(parents=True, exist_ok=True)
    parts = json.loads((folder.parent / "tokenizer" / "fragments.json").read_text())["fragments"]
    text = base.expand(parts)
    lines = [line for line in base.expand(parts[:250], 200_000).replace("\0", "").split("\n") if 0 < len(line.encode()) < 4000]
    golden = {"text_bytes": len(text.encode()), "tokenizers": {}}
    for name in MODELS:
        blob = train(folder, name, lines)
        (folder / f"{name}.model").write_bytes(blob)
        model = sentencepiece.SentencePieceProcessor(model_proto=blob)
        tokenizer = convert(name, blob, *pieces_of(model))
        (folder / f"{name}.json").write_text(json.dumps(json.loads(tokenizer.to_str()), ensure_ascii=False, separators=(",", ":")))
        # Its strings end at a zero byte, and U+2581 in a text is a space to it.
        entry = {"sentencepiece": base.summary(model.encode(text.replace("\0", "").replace(SPACE, "_")))}
        for key, special in (("special", True), ("plain", False)):
            tokenizer.encode_special_tokens = not special
            entry[key] = base.summary(tokenizer.encode(text, add_special_tokens=False).ids)
        tokenizer.encode_special_tokens = False
        short = "Hello  it's 2024!<|im_end|>\n na\u00efve \u6f22\u5b57\U0001f642 \ufb01n</s>"
        ids = tokenizer.encode(short).ids
        entry["short"] = {"text": short, "ids": ids, "decoded": tokenizer.decode(ids, skip_special_tokens=True)}
        golden["tokenizers"][name] = entry
        print(name, entry["special"]["count"], entry["sentencepiece"]["count"])
    (folder / "golden.json").write_text(json.dumps(golden, ensure_ascii=True, indent=0))


if __name__ == "__main__":
    main(pathlib.Path(sys.argv[1]))
