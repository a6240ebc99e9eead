#!/usr/bin/env python3
"""Makes tests/fuzz/corpus: small valid files of each kind, from which the fuzzers set out.

Needs: numpy, gguf, safetensors, tokenizers. Run from anywhere; the output is committed.
"""

import json
import pathlib
import shutil

import gguf
import numpy as np
from safetensors.numpy import save_file
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

ROOT = pathlib.Path(__file__).resolve().parents[2]
OUT = ROOT / "tests" / "fuzz" / "corpus"
FIXTURES = ROOT / "tests" / "data" / "files"

LLAMA = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "vocab_size": 96,
    "hidden_size": 32,
    "intermediate_size": 80,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 128,
    "rms_norm_eps": 1e-05,
    "rope_theta": 500000.0,
    "rope_scaling": {
        "rope_type": "llama3",
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 64,
    },
    "hidden_act": "silu",
    "tie_word_embeddings": True,
    "attention_bias": False,
    "bos_token_id": 1,
    "eos_token_id": [2, 3],
    "torch_dtype": "bfloat16",
}
MISTRAL = {
    "architectures": ["MistralForCausalLM"],
    "model_type": "mistral",
    "vocab_size": 96,
    "hidden_size": 32,
    "intermediate_size": 80,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "sliding_window": 8,
    "max_position_embeddings": 128,
    "rms_norm_eps": 1e-05,
    "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0},
    "hidden_act": "silu",
    "tie_word_embeddings": False,
    "dtype": "float32",
}


def folder(name):
    path = OUT / name
    path.mkdir(parents=True, exist_ok=True)  # others add seeds here too
    return path


def make_json():
    out = folder("json")
    (out / "scalars.json").write_text('[0, -1, 18446744073709551615, 1.5e-7, true, false, null, "a\\u00e9\\n\\"", ""]')
    (out / "nested.json").write_text('{"a": {"b": [[], {}, [1, {"c": "d"}]]}, "e": 2}')
    (out / "duplicate.json").write_text('{"a": 1, "a": 2}')
    (out / "deep.json").write_text("[" * 40 + "]" * 40)


def make_safetensors():
    out = folder("safetensors")
    shutil.copyfile(FIXTURES / "mixed.safetensors", out / "mixed.safetensors")
    save_file({"a": np.zeros(2, np.float32), "b": np.zeros((1, 3), np.uint8)}, out / "two.safetensors")
    (out / "two.safetensors").chmod(0o644)
    (out / "empty.safetensors").write_bytes((2).to_bytes(8, "little") + b"{}")


def write_llama_gguf(path, tokenizer):
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_block_count(1)
    writer.add_context_length(128)
    writer.add_embedding_length(32)
    writer.add_feed_forward_length(64)
    writer.add_head_count(4)
    writer.add_head_count_kv(2)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_freq_base(10000.0)
    writer.add_rope_dimension_count(8)
    vocabulary = sorted(tokenizer.get_vocab().items(), key=lambda item: item[1])
    writer.add_vocab_size(len(vocabulary))
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("smollm")
    writer.add_token_list([token for token, _ in vocabulary])
    writer.add_token_types([3 if token.startswith("<") and token.endswith(">") else 1 for token, _ in vocabulary])
    merges = json.loads(tokenizer.to_str())["model"]["merges"]
    writer.add_token_merges([m if isinstance(m, str) else " ".join(m) for m in merges])
    writer.add_bos_token_id(0)
    writer.add_eos_token_id(1)
    writer.add_tensor("token_embd.weight", np.zeros((len(vocabulary), 32), np.float16)[:1])
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def make_tokenizers():
    out = folder("tokenizer")
    text = ["hello world, hello words 123", "the quick brown fox; don't naïve 漢字"] * 4
    splits = {
        "gpt2": pre_tokenizers.ByteLevel(add_prefix_space=False),
        "split": pre_tokenizers.Sequence(
            [
                pre_tokenizers.Digits(individual_digits=True),
                pre_tokenizers.Split(Regex(r"\p{L}+|\s+|[^\s\p{L}]+"), "isolated"),
                pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
            ]
        ),
    }
    for name, split in splits.items():
        tokenizer = Tokenizer(models.BPE())
        tokenizer.pre_tokenizer = split
        tokenizer.decoder = decoders.ByteLevel()
        special = [AddedToken("<s>", special=True), AddedToken("</s>", special=True)]
        alphabet = pre_tokenizers.ByteLevel.alphabet()
        tokenizer.train_from_iterator(
            text, trainers.BpeTrainer(vocab_size=290, special_tokens=special, initial_alphabet=alphabet)
        )
        (out / f"{name}.json").write_text(tokenizer.to_str(), encoding="utf-8")
    write_llama_gguf(out / "llama.gguf", tokenizer)
    return out / "llama.gguf"


def make_configs(llama_gguf):
    out = folder("config")
    (out / "llama.json").write_text(json.dumps(LLAMA))
    (out / "mistral.json").write_text(json.dumps(MISTRAL))
    shutil.copyfile(llama_gguf, out / "llama.gguf")


def make_gguf(llama_gguf):
    out = folder("gguf")
    shutil.copyfile(FIXTURES / "mixed.gguf", out / "mixed.gguf")
    shutil.copyfile(llama_gguf, out / "llama.gguf")
    (out / "empty.gguf").write_bytes(b"GGUF" + (3).to_bytes(4, "little") + bytes(16))


if __name__ == "__main__":
    make_json()
    make_safetensors()
    llama = make_tokenizers()
    make_configs(llama)
    make_gguf(llama)
