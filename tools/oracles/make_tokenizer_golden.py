#!/usr/bin/env python3
"""Makes tests/data/tokenizer: fragments of text, small tokenizers trained on them, and what HF tokenizers makes of 1 MiB.

    pip install tokenizers
    python tools/oracles/make_tokenizer_golden.py tests/data/tokenizer

fragments.json      pieces of text; `expand` here and in the C++ test string them together in the same way
<name>.json         tokenizer.json of a small tokenizer with the pre-tokenizer of a real family
golden.json         per tokenizer: count, FNV-1a 64 and samples of the ids of the expanded text
"""
import json
import pathlib
import random
import sys
import unicodedata

TEXT_BYTES = 1 << 20
JOINERS = ["", " ", "  ", "\n", "\n\n", "\t", "\r\n", "   ", "        ", " \n", "\u00a0", "\u3000"]

CODE = """
int main(int argc, char** argv) { return argc > 1 ? std::atoi(argv[1]) : 0; }
for (std::size_t i = 0; i < values.size(); ++i) sum += values[i] * weights[i];
template <typename T, std::enable_if_t<std::is_integral_v<T>>* = nullptr>
#define MAX(a, b) ((a) > (b) ? (a) : (b))
def quantize(w, bits=4):\\n    scale = np.abs(w).max() / 7.5\\n    return np.clip(np.round(w / scale), -8, 7)
\\tif err != nil {\\n\\t\\treturn nil, fmt.Errorf("read %s: %w", path, err)\\n\\t}
SELECT name, COUNT(*) FROM users WHERE age >= 18 AND city <> 'Oslo' GROUP BY name HAVING COUNT(*) > 3;
{"messages": [{"role": "user", "content": "What's 12.5% of 1,024?"}], "temperature": 0.7}
<div class="row" id='main'><a href="https://example.org/?q=a&amp;b=%20c#top">link</a></div>
fn parse(input: &str) -> Result<Vec<u8>, Error> { input.bytes().map(|b| Ok(b ^ 0x5A)).collect() }
const f = async (x) => { await sleep(1e3); return x?.y ?? `t=${x}`; };
\\\\frac{\\\\partial L}{\\\\partial W_{ij}} = \\\\sum_{k} \\\\delta_k x_{ij}^{(k)}
git commit -m 'fix: it''s broken' && make -j$(nproc) 2>&1 | tee build.log
0x1F 0b1010 1_000_000 3.14159e-10 1st 2nd 42km 7x8 v1.2.3-rc4 192.168.0.1 2024-02-29T23:59:60Z
I'm you're he's we'd they'll I've DON'T IT'S WE'LL you'Ve O'Neill rock'n'roll '90s ''quoted'' 'tis
What?! No... (really) [yes] {maybe} -- "quotes" --- <<>> ==> != ~~ @user #tag $5 100% ^_^ :-) ;) |x|
""".strip().split("\n")

WORDS = {
    "latin": "the model learns from tokens while quantization rounds weights and Élan façade naïve Größe straße "
             "İstanbul ŒUVRE ſharp Ĳssel ﬁnal e\u0301t\u00e9 A\u030angstro\u0308m nho\u031b\u0301t Việt Łódź coöperate ǆ ŉ",
    "cyrillic": "модель учится быстро Ёлка объём їжак Београд ЭВМ и\u0306од",
    "greek": "μοντέλο Ελλάδα ΣΊΣΥΦΟΣ φῶς ἀρχή ς Ω \u2126",
    "cjk": "模型 訓練 量化 权重 东京都 學習率 人工智能 你好世界 一二三 㐀 𠀀𠮷 日本語 カタカナ ひらがな ｶﾞｷﾞ が\u3099 か\u3099 々 、。 「」 ！？",
    "korean": "모델 학습 양자화 가중치 안녕하세요 \u1112\u1161\u11ab\u1100\u1173\u11af ㅋㅋㅋ 한글",
    "arabic": "النموذج يتعلم مُدَرَّب ٠١٢٣ العربية؟ لا، ﷺ فارسی می\u200cخواهم ۴۵۶ שלום עולם בְּרֵאשִׁית",
    "indic": "मॉडल सीखता है क्\u200dष १२३ தமிழ் ௧௨௩ বাংলা \u09c7\u09be ไทยแลนด์ กำ ລາວ မြန်မာ ខ្មែរ བོད་ ქართული Հայերեն አማርኛ ᠮᠣᠩᠭᠣᠯ ᏣᎳᎩ",
    "emoji": "😀 👩‍👩‍👧‍👦 🏳️‍🌈 👍🏽 🇳🇴🇩🇪 ❤️ ☃ 1️⃣ ©️ 🫠 ♟︎ 🤷🏿‍♀️ ✅ → ← ⇒",
    "number": "0 7 42 123 1234 12345 1234567890 ½ ² ³ ¼ Ⅷ ⅻ ① ⑳ ㊿ 〇 ٣٤ ९८ 𝟘𝟙𝟚 𝟜 12½ 10⁹ x₁ 1,234.5",
    "symbol": "∀x∈ℝ: ∑√∞≈≠ ℵ ™ € £ ¥ ¤ ° § ¶ • … – — ‘single’ “double” «guillemets» ‹› ¡¿ ‰ ′″ ⁂ ₿ ▁ Ġ Ċ ĉ ļ ½",
    "control": "\u0000 \u0001\u0002 \u0007 \u0008 \u000b \u000c \u001b[31m \u007f \u0080\u0085\u009f \u00ad \u180e \u200b "
               "\u200c\u200d \u200e\u202e \u2028 \u2029 \u2060 \ufeff \ufffc \ufffd \ufffe \U000e0001 \U000f0000 \ue000",
}

SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|im_start|>user\n", "<|im", "<|im_start", "x<|im_end|>y",
           "  <mask>  ", "<mask>", " \t<mask>\n", "<right>   next", "<right>\n\n", " <right> ", "word", "sword", "word.", " word ",
           "wordy", "été-token", "e\u0301te\u0301-token", "<tool_call>", "<tool", "<tool_call>x", "    ", "     ", "<<mask>>"]


def fragments():
    rng = random.Random(20240229)
    out = [line.encode().decode("unicode_escape").encode("latin-1").decode() for line in CODE]
    for script, words in WORDS.items():
        words = words.split(" ")
        for _ in range(24):
            picked = [rng.choice(words) for _ in range(rng.randint(2, 9))]
            out.append(rng.choice([" ", " ", "", ", "] if script != "cjk" else ["", "", " "]).join(picked))
    spaces = [" ", "\n", "\t", "\r", "\r\n", "\u00a0", "\u3000", "\u2003", "\u0085", "\u000b", "\u2028"]
    for _ in range(60):
        out.append("".join(rng.choice(spaces) * rng.choice([1, 1, 2, 3, 4, 7, 8, 16, 33]) for _ in range(rng.randint(1, 4))))
    # Characters of every kind that Python's Unicode has assigned (the kinds of later ones differ from library to library), but
    # for the ten digits U+1FBF0 to U+1FBF9 (Unicode 13), which HF tokenizers' older tables for NFKC do not know.
    assigned = [chr(c) for c in range(0x20000)
                if unicodedata.category(chr(c)) not in ("Cn", "Cs", "Co") and not 0x1FBF0 <= c <= 0x1FBF9]
    for _ in range(400):
        out.append("".join(rng.choice(assigned) for _ in range(rng.randint(2, 12))))
    out += [rng.choice("abcXYZ019 .éж中") * n for n in (50, 129, 300, 1000)]  # words longer than any cache or short path holds
    for text in SPECIAL:
        out += [text] * 4
    return out


def expand(parts, size=TEXT_BYTES):
    """Strings fragments and joiners together, picked by SplitMix64, until `size` bytes are there."""
    state, out, length = 0x7E3A9, [], 0
    mask = (1 << 64) - 1

    def pick(n):
        nonlocal state
        state = (state + 0x9E3779B97F4A7C15) & mask
        z = state
        z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & mask
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & mask
        return (z ^ (z >> 31)) % n

    while length < size:
        for piece in (parts[pick(len(parts))], JOINERS[pick(len(JOINERS))]):
            out.append(piece)
            length += len(piece.encode())
    return "".join(out)


def fnv1a(ids):
    value = 0xCBF29CE484222325
    for i in ids:
        for byte in int(i).to_bytes(4, "little"):
            value = ((value ^ byte) * 0x100000001B3) & ((1 << 64) - 1)
    return f"{value:016x}"


def summary(ids):
    step = max(1, len(ids) // 64)
    return {"count": len(ids), "fnv1a": fnv1a(ids), "step": step, "samples": ids[::step]}


def families():
    """Name -> (pre_tokenizer, normalizer, ignore_merges, add BOS) as in the real tokenizer.json."""
    from tokenizers import Regex, normalizers, pre_tokenizers as p
    con, tail = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)", r"\s*[\r\n]+|\s+(?!\S)|\s+"
    up, low = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
    lead = r"[^\r\n\p{L}\p{N}]?"
    llama3 = con + "|" + lead + r"\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|" + tail
    gpt4o = lead + up + "*" + low + "+" + con + "?|" + lead + up + "+" + low + "*" + con + r"?|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|" + tail
    cl100k = r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]++[\r\n]*|\s*[\r\n]|\s+(?!\S)|\s+"
    deepseek = (r"[!\"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*|" + tail)

    def split(pattern, behavior="isolated", invert=False):
        return p.Split(Regex(pattern), behavior, invert)

    def raw():
        return p.ByteLevel(add_prefix_space=False, use_regex=False)

    gpt2 = p.ByteLevel(add_prefix_space=False, use_regex=True)
    return {
        "gpt2": (gpt2, None, False, False),
        "prefix_space": (p.ByteLevel(add_prefix_space=True, use_regex=True), None, False, True),
        "smollm": (p.Sequence([p.Digits(individual_digits=True), gpt2]), None, False, False),
        "llama3": (p.Sequence([split(llama3), raw()]), None, True, True),
        "qwen2": (p.Sequence([split(llama3.replace("{1,3}", "")), raw()]), normalizers.NFC(), False, False),
        "gpt4o": (p.Sequence([split(gpt4o, "removed", True), raw()]), None, False, False),
        "cl100k": (p.Sequence([split(cl100k), raw()]), normalizers.Sequence([normalizers.NFKC()]), False, False),
        "deepseek3": (p.Sequence([split(r"\p{N}{1,3}"), split("[一-龥\u3040-ゟ゠-ヿ]+"), split(deepseek), raw()]), None, False, True),
        "falcon": (p.Sequence([p.Punctuation("contiguous"), gpt2, p.Digits(individual_digits=False),
                               split("[0-9][0-9][0-9]")]), None, False, False),
        "merged": (p.Sequence([split(" ", "merged_with_next"), split(r"[.,;]", "merged_with_previous"), raw()]), None, False, False),
    }


def train(name, text, vocab_size):
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    pre, normalizer, ignore_merges, bos = families()[name]
    tokenizer = Tokenizer(models.BPE(ignore_merges=ignore_merges))
    tokenizer.pre_tokenizer, tokenizer.decoder = pre, decoders.ByteLevel()
    if normalizer:
        tokenizer.normalizer = normalizer
    trainer = trainers.BpeTrainer(vocab_size=vocab_size, show_progress=False, special_tokens=["<|endoftext|>"],
                                  initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), max_token_length=16)
    tokenizer.train_from_iterator([text], trainer)
    tokenizer.add_special_tokens(["<|im_start|>", "<|im_end|>", AddedToken("<mask>", lstrip=True, special=True)])
    tokenizer.add_tokens([AddedToken("<right>", rstrip=True), AddedToken("word", single_word=True, normalized=False),
                          AddedToken("e\u0301te\u0301-token", normalized=True), AddedToken("<tool_call>", normalized=False)])
    if name == "gpt2":
        tokenizer.add_tokens([AddedToken("    ", normalized=False)])
    if bos:
        tokenizer.post_processor = processors.TemplateProcessing(
            single="<|im_start|> $A" + (" <|im_end|>" if name == "prefix_space" else ""),
            pair="<|im_start|> $A <|im_start|> $B", special_tokens=[("<|im_start|>", tokenizer.token_to_id("<|im_start|>")),
                                                                    ("<|im_end|>", tokenizer.token_to_id("<|im_end|>"))])
    return tokenizer


def main(folder):
    folder.mkdir(parents=True, exist_ok=True)
    parts = fragments()
    (folder / "fragments.json").write_text(json.dumps({"joiners": JOINERS, "fragments": parts}, ensure_ascii=True, indent=0))
    text = expand(parts)
    golden = {"text_bytes": len(text.encode()), "tokenizers": {}}
    for name in families():
        tokenizer = train(name, text, 1500)
        stored = json.loads(tokenizer.to_str())
        if name in ("smollm", "llama3"):  # the form of merges that tokenizers before 0.20 wrote
            stored["model"]["merges"] = [" ".join(m) for m in stored["model"]["merges"]]
        (folder / f"{name}.json").write_text(json.dumps(stored, ensure_ascii=False, separators=(",", ":")))
        entry = {}
        for key, special in (("special", True), ("plain", False)):
            tokenizer.encode_special_tokens = not special
            entry[key] = summary(tokenizer.encode(text, add_special_tokens=False).ids)
        tokenizer.encode_special_tokens = False
        short = "Hello <mask> it's 2024!<|im_end|>\n"
        entry["short"] = {"text": short, "ids": tokenizer.encode(short).ids,
                          "decoded": tokenizer.decode(tokenizer.encode(short).ids, skip_special_tokens=True)}
        golden["tokenizers"][name] = entry
        print(name, entry["special"]["count"], entry["plain"]["count"])
    (folder / "golden.json").write_text(json.dumps(golden, ensure_ascii=True, indent=0))


if __name__ == "__main__":
    main(pathlib.Path(sys.argv[1]))
