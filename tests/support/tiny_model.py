"""A tiny random Llama as a Hugging Face folder with a tokenizer, and safetensors files with whatever fault a test wants."""
import json
import shutil
import struct
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

MODELS = Path(__file__).resolve().parents[1] / "data" / "hf"
SPECIAL = ["<pad>", "<s>", "<|end|>", "<|user|>", "<|assistant|>"]
CHARACTERS = "\u0120\u010aabcdefghijklmnopqrstuvwxyzABCDEFGHIJKLM0123456789.,?!:+"  # space and newline of the byte alphabet first
TEMPLATE = ("{% for m in messages %}<|{{ m['role'] }}|>{{ m['content'] }}<|end|>{% endfor %}"
            "{% if add_generation_prompt %}<|assistant|>{% endif %}")


def write(folder, name="llama_untied"):
    """Copies a model of tests/data/hf and writes a byte-level tokenizer of at most 80 ids beside it, and no more than the model has."""
    folder = Path(folder)
    folder.mkdir(parents=True)
    for file in ("config.json", "model.safetensors"):
        shutil.copyfile(MODELS / name / file, folder / file)
    room = json.loads((folder / "config.json").read_text())["vocab_size"]
    vocab = {token: i for i, token in enumerate([*SPECIAL, *CHARACTERS, "th"][:room])}
    flags = dict(special=True, normalized=False, lstrip=False, rstrip=False, single_word=False)
    byte_level = dict(type="ByteLevel", add_prefix_space=False, trim_offsets=True, use_regex=True)
    tokenizer = dict(version="1.0", added_tokens=[dict(id=i, content=t, **flags) for i, t in enumerate(SPECIAL)],
                     normalizer=None, pre_tokenizer=byte_level, post_processor=None, decoder=byte_level,
                     model=dict(type="BPE", vocab=vocab, merges=[["t", "h"]] if "th" in vocab else []))
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    (folder / "tokenizer_config.json").write_text(json.dumps(dict(
        tokenizer_class="PreTrainedTokenizerFast", bos_token="<s>", eos_token="<|end|>", pad_token="<pad>",
        chat_template=TEMPLATE)))
    return folder


def write_random(folder, layers=4, hidden=128, intermediate=256, seed=0, spread=0.0):
    """Random weights large enough that logits tell tokens apart, in shapes that all blocks of 32 and some of 128 fit.
    Norms' weights are log-normal of `spread`: channels of linears' inputs that differ in size."""
    folder = write(folder)
    edit_config(folder, num_hidden_layers=layers, hidden_size=hidden, intermediate_size=intermediate, head_dim=hidden // 4,
                max_position_embeddings=512)
    vocabulary = json.loads((folder / "config.json").read_text())["vocab_size"]
    random = np.random.default_rng(seed)
    tensors = {name: random.normal(0, 1, (vocabulary, hidden)) for name in ("model.embed_tokens.weight", "lm_head.weight")}
    tensors["model.norm.weight"] = np.ones(hidden)
    tensors["lm_head.weight"] *= 2 / hidden**0.5
    for layer in range(layers):
        prefix = f"model.layers.{layer}."
        for norm in ("input_layernorm", "post_attention_layernorm"):
            tensors[f"{prefix}{norm}.weight"] = np.exp(spread * random.normal(0, 1, hidden)) if spread else np.ones(hidden)
        for name, rows, columns in (("self_attn.q", hidden, hidden), ("self_attn.k", hidden // 2, hidden),
                                    ("self_attn.v", hidden // 2, hidden), ("self_attn.o", hidden, hidden),
                                    ("mlp.gate", intermediate, hidden), ("mlp.up", intermediate, hidden),
                                    ("mlp.down", hidden, intermediate)):
            tensors[f"{prefix}{name}_proj.weight"] = random.normal(0, columns**-0.5, (rows, columns))
    save_file({name: values.astype(np.float32) for name, values in tensors.items()}, folder / "model.safetensors")
    return folder


def edit_config(folder, **changes):
    path = Path(folder) / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def edit_tensors(folder, change):
    """Writes model.safetensors anew; `change` gets the tensors, a dict name → [dtype, shape, bytes]."""
    path = Path(folder) / "model.safetensors"
    data = path.read_bytes()
    (size,) = struct.unpack("<Q", data[:8])
    header = json.loads(data[8:8 + size])
    header.pop("__metadata__", None)
    tensors = {name: [t["dtype"], t["shape"], data[8 + size + t["data_offsets"][0]:8 + size + t["data_offsets"][1]]]
               for name, t in header.items()}
    change(tensors)
    header, at = {}, 0
    for name, (dtype, shape, content) in tensors.items():
        header[name] = dict(dtype=dtype, shape=shape, data_offsets=[at, at + len(content)])
        at += len(content)
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    path.write_bytes(struct.pack("<Q", len(text)) + text + b"".join(t[2] for t in tensors.values()))
