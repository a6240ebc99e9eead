"""A training step by torch and peft, with torchao's fake quantization if asked: LoRA r16 on the seven linears, bf16, AdamW on the
adapters, all tokens labelled. Runs in the peers' environment: prints a JSON line once warm, then does one step for every line
that it reads and prints its seconds."""
import argparse
import json
import sys
import time

import peft
import torch
import transformers

LINEARS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


def make_model(path, fake_quantize):
    model = transformers.AutoModelForCausalLM.from_pretrained(path, dtype=torch.bfloat16)
    model.config.use_cache = False
    if fake_quantize:
        from torchao.quantization import quantize_
        from torchao.quantization.qat import IntxFakeQuantizeConfig, QATConfig
        weights = IntxFakeQuantizeConfig(torch.int4, group_size=32, is_symmetric=True)
        quantize_(model.model.layers, QATConfig(weight_config=weights, step="prepare"))
    config = peft.LoraConfig(r=16, lora_alpha=32, lora_dropout=0.0, target_modules=LINEARS, task_type="CAUSAL_LM")
    return peft.get_peft_model(model, config, autocast_adapter_dtype=False).train()


def main():
    options = argparse.ArgumentParser()
    options.add_argument("model")
    options.add_argument("--qat", action="store_true")
    options.add_argument("--compile", action="store_true")
    options.add_argument("--threads", type=int, required=True)
    options.add_argument("--rows", type=int, default=4)
    options.add_argument("--length", type=int, default=512)
    given = options.parse_args()

    torch.manual_seed(0)
    torch.set_num_threads(given.threads)
    model = make_model(given.model, given.qat)
    ids = torch.randint(0, model.config.vocab_size, (given.rows, given.length))
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-5)
    compute = torch.compile(model) if given.compile else model

    def step():
        begin = time.perf_counter()
        loss = compute(input_ids=ids, labels=ids).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return time.perf_counter() - begin, float(loss)

    first, _ = step()
    second, loss = step()
    adapted = sum(p.numel() for p in model.parameters() if p.requires_grad)
    print(json.dumps({"first_seconds": first, "second_seconds": second, "loss": loss, "adapter_parameters": adapted}), flush=True)
    for _ in sys.stdin:
        print(json.dumps({"seconds": step()[0]}), flush=True)


if __name__ == "__main__":
    main()
