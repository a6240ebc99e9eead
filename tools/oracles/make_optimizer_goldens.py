"""Steps of bitsandbytes' 8-bit optimizers, block by block, for tests/data/train/optimizers.safetensors.

    python tools/oracles/make_optimizer_goldens.py tests/data/train/optimizers.safetensors

map.signed, map.unsigned F32 [256]: functional.create_dynamic_map. For NAME in adamw, lion: NAME.param F32 [1 + steps, n], before and after
every step; NAME.grad F32 [steps, n]; NAME.codes1, NAME.codes2 U8 [1 + steps, n] and NAME.absmax1, NAME.absmax2 F32 [1 + steps, blocks].
Learning rate 1e-2, betas 0.9 and 0.99, eps 1e-8, weight decay 0.1.

The update is the package's own for the CPU. Its quantization is the package's generic one (the nearest value): its compiled search for the
CPU takes 2e-5 for smaller values, which its GPU kernels do not.
"""
import sys

import bitsandbytes.backends.cpu.ops as cpu
import bitsandbytes.functional as functional
import torch
from safetensors.torch import save_file


def quantize(values, code, absmax_out, out, blocksize):
    codes, absmax = torch.ops.bitsandbytes.quantize_blockwise(values.double(), code, blocksize)
    out.copy_(codes)
    absmax_out.copy_(absmax)


cpu._quant_blockwise_fp32_direct = quantize
torch.manual_seed(5)
N, STEPS, BLOCK = 1100, 3, 256
signed, unsigned = functional.create_dynamic_map(True), functional.create_dynamic_map(False)
out = {"map.signed": signed, "map.unsigned": unsigned}
for name, kernel in (("adamw", "adam"), ("lion", "lion")):
    blocks = (N + BLOCK - 1) // BLOCK
    param = torch.randn(N)
    codes = [torch.full((N,), int((code == 0).nonzero()), dtype=torch.uint8) for code in (signed, unsigned)]
    absmax = [torch.zeros(blocks), torch.zeros(blocks)]
    kept = {"param": [param.clone()], "grad": []}
    for i in (0, 1):
        kept[f"codes{i + 1}"], kept[f"absmax{i + 1}"] = [codes[i].clone()], [absmax[i].clone()]
    for step in range(1, STEPS + 1):
        grad = torch.randn(N) * 10 ** (-5 * torch.rand(N))
        two = kernel == "adam"
        cpu._optimizer_update_8bit_blockwise_cpu(
            kernel, grad, param, codes[0], codes[1] if two else None, 0.9, 0.99, 0.0, 0.0, 1e-8, step, 1e-2, signed,
            unsigned if two else None, absmax[0], absmax[1] if two else None, 0.1, 1.0)
        kept["grad"].append(grad)
        kept["param"].append(param.clone())
        for i in (0, 1):
            kept[f"codes{i + 1}"].append(codes[i].clone())
            kept[f"absmax{i + 1}"].append(absmax[i].clone())
    out |= {f"{name}.{key}": torch.stack(values).contiguous() for key, values in kept.items() if two or "2" not in key}
save_file(out, sys.argv[1])
