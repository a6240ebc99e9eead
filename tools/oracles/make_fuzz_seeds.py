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


def quantized_file(config, tensors):
    """quantization_config, a line end, and a safetensors file of (name, dtype, shape, bytes)."""
    header, data = {}, b""
    for name, dtype, shape, content in tensors:
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [len(data), len(data) + len(content)]}
        data += content
    text = json.dumps(header).encode()
    return json.dumps(config).encode() + b"\n" + len(text).to_bytes(8, "little") + text + data


def make_wires():
    """The module m, [8, 64], as fuzz_wires.cpp looks for it."""
    out = folder("wires")

    def filled(name, dtype, *shape):
        size = {"F32": 4, "I32": 4, "BF16": 2, "F16": 2}.get(dtype, 1) * int(np.prod(shape))
        return (name, dtype, list(shape), (bytes([1, 60, 2, 60]) * size)[:size])

    def compressed(weights, tensors, inputs=None):
        group = {"targets": ["Linear"], "weights": weights, "input_activations": inputs}
        return quantized_file({"quant_method": "compressed-tensors", "config_groups": {"group_0": group}}, tensors)

    int4 = {"num_bits": 4, "type": "int", "symmetric": False, "strategy": "group", "group_size": 32}
    shape = ("m.weight_shape", "I64", [2], (8).to_bytes(8, "little") + (64).to_bytes(8, "little"))
    packed = filled("m.weight_packed", "I32", 8, 8)
    (out / "int4.bin").write_bytes(
        compressed(int4, [packed, filled("m.weight_scale", "BF16", 8, 2), filled("m.weight_zero_point", "I32", 1, 2), shape])
    )
    nvfp4 = {"num_bits": 4, "type": "float", "strategy": "tensor_group", "group_size": 16, "scale_dtype": "torch.float8_e4m3fn"}
    one = ("m.weight_global_scale", "F32", [1], np.float32(2).tobytes())
    (out / "nvfp4.bin").write_bytes(
        compressed(nvfp4, [filled("m.weight_packed", "U8", 8, 32), filled("m.weight_scale", "F8_E4M3", 8, 4), one])
    )
    token = {"num_bits": 8, "type": "float", "strategy": "token", "dynamic": True}
    fp8 = {"num_bits": 8, "type": "float", "strategy": "channel"}
    (out / "fp8.bin").write_bytes(
        compressed(fp8, [filled("m.weight", "F8_E4M3", 8, 64), filled("m.weight_scale", "BF16", 8, 1)], token)
    )
    state = {"quant_type": "nf4", "blocksize": 64, "dtype": "bfloat16", "shape": [8, 64]}
    state |= {"nested_blocksize": 256, "nested_dtype": "float32", "nested_offset": 0.5}
    text = json.dumps(state).encode()
    name = "m.weight.quant_state.bitsandbytes__nf4"
    maps = [filled("m.weight.quant_map", "F32", 16), filled("m.weight.nested_quant_map", "F32", 256)]
    nested = [filled("m.weight.absmax", "U8", 8), filled("m.weight.nested_absmax", "F32", 1)]
    tensors = [filled("m.weight", "U8", 256, 1), (name, "U8", [len(text)], text)] + nested + maps
    (out / "nf4.bin").write_bytes(quantized_file({"quant_method": "bitsandbytes", "load_in_4bit": True}, tensors))
    int8 = [filled("m.weight", "I8", 8, 64), filled("m.SCB", "F32", 8)]
    (out / "int8.bin").write_bytes(quantized_file({"quant_method": "bitsandbytes", "load_in_8bit": True}, int8))
    gptq = {"quant_method": "gptq", "bits": 4, "group_size": 32, "desc_act": False}
    tensors = [filled("m.qweight", "I32", 8, 8), filled("m.qzeros", "I32", 2, 1), filled("m.scales", "F16", 2, 8)]
    (out / "gptq.bin").write_bytes(quantized_file(gptq, tensors))
    awq = {"quant_method": "awq", "bits": 4, "group_size": 32, "version": "gemm"}
    tensors = [filled("m.qweight", "I32", 64, 1), filled("m.qzeros", "I32", 2, 1), filled("m.scales", "F16", 2, 8)]
    (out / "awq.bin").write_bytes(quantized_file(awq, tensors))


if __name__ == "__main__":
    make_wires()
    make_json()
    make_safetensors()
    llama = make_tokenizers()
    make_configs(llama)
    make_gguf(llama)
