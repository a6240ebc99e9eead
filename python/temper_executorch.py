"""A folder in torchao's layout → an ExecuTorch program for phones, weights as they are: no quantizer runs here.

    python3 temper_executorch.py FOLDER OUT.pte

Needs the packages executorch 1.5 and torchao 0.18. `temper export --to executorch` runs it; FOLDER is what `--to torchao` writes of
scheme int8-int4. The program has a method forward(tokens i64 [1, n], input_pos i64 [1]) → logits of the last token, and keeps its keys and values.
"""
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import torch
from safetensors import safe_open
from torchao.prototype.safetensors.safetensors_support import unflatten_tensor_state_dict

MODULES = {"self_attn.q_proj": "attention.wq", "self_attn.k_proj": "attention.wk", "self_attn.v_proj": "attention.wv",
           "self_attn.o_proj": "attention.wo", "mlp.gate_proj": "feed_forward.w1", "mlp.down_proj": "feed_forward.w2",
           "mlp.up_proj": "feed_forward.w3", "input_layernorm": "attention_norm", "post_attention_layernorm": "ffn_norm"}
OTHERS = {"model.embed_tokens.weight": "tok_embeddings.weight", "model.norm.weight": "norm.weight", "lm_head.weight": "output.weight"}


def meta_name(name):
    """The name that the exporter's model has for a parameter."""
    if name in OTHERS:
        return OTHERS[name]
    layer, module = name.removeprefix("model.layers.").removesuffix(".weight").split(".", 1)
    return f"layers.{layer}.{MODULES[module]}.weight"


def read(folder):
    tensors, metadata = {}, {}
    for path in sorted(folder.glob("*.safetensors")):
        with safe_open(path, "pt") as file:
            metadata |= file.metadata()
            tensors |= {name: file.get_tensor(name) for name in file.keys()}
    state, left = unflatten_tensor_state_dict(tensors, metadata)
    if left:
        raise SystemExit(f"{folder}: tensors that belong to no parameter: {sorted(left)}")
    state = {meta_name(name): value for name, value in state.items()}
    state.setdefault("output.weight", state["tok_embeddings.weight"])
    return state


def parameters(config):
    rope = config.get("rope_parameters") or config.get("rope_scaling") or {}
    return {"dim": config["hidden_size"], "hidden_dim": config["intermediate_size"], "n_layers": config["num_hidden_layers"],
            "n_heads": config["num_attention_heads"], "n_kv_heads": config["num_key_value_heads"],
            "head_dim": config.get("head_dim") or config["hidden_size"] // config["num_attention_heads"],
            "vocab_size": config["vocab_size"], "norm_eps": config["rms_norm_eps"],
            "rope_theta": config.get("rope_theta") or rope.get("rope_theta", 10000.0),
            "use_scaled_rope": rope.get("rope_type", "default") == "llama3", "rope_scale_factor": int(rope.get("factor", 1)),
            "use_hf_rope": True}


def main(folder, out):
    folder, out = Path(folder).absolute(), Path(out).absolute()
    with tempfile.TemporaryDirectory() as scratch:  # the exporter leaves its settings in the working directory
        make(folder, out, Path(scratch))


def make(folder, out, scratch):
    checkpoint, params = scratch / "model.pth", scratch / "params.json"
    torch.save(read(folder), checkpoint)
    params.write_text(json.dumps(parameters(json.loads((folder / "config.json").read_text())), indent=2) + "\n")
    # Without quantization.qmode the weights stay the tensors that they are.
    settings = [f"base.params={params}", f"base.checkpoint={checkpoint}", "base.model_class=llama3", "model.use_kv_cache=True",
                "model.use_sdpa_with_kv_cache=True", "model.dtype_override=fp32", "backend.xnnpack.enabled=True",
                "backend.xnnpack.extended_ops=True", f"export.output_name={out}"]
    done = subprocess.run([sys.executable, "-m", "executorch.extension.llm.export.export_llm", *settings], cwd=scratch)
    if done.returncode != 0 or not out.exists():
        raise SystemExit(f"export_llm ended with status {done.returncode}")


if __name__ == "__main__":
    main(*sys.argv[1:])
