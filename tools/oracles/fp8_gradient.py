#!/usr/bin/env python3
"""What torchao's fp8 fake quantizer (per row) leaves of the gradient of its input, by the size of the gradient that reaches it.

Prints the share of exact zeros and the cosine with the gradient that reaches it, which straight-through would hand on as it is.
"""
import torch
from torchao.quantization import PerRow
from torchao.quantization.qat.fake_quantize_config import Float8FakeQuantizeConfig
from torchao.quantization.qat.fake_quantizer import FakeQuantizerBase

g = torch.Generator().manual_seed(0)
quantizer = FakeQuantizerBase.from_config(Float8FakeQuantizeConfig(granularity=PerRow()))
for what, spread in (("activations", 1.0), ("weights", 0.02)):
    for size in (1.0, 1e-2, 1e-4):
        x = (torch.randn(64, 1024, generator=g) * spread).requires_grad_()
        upstream = torch.randn(64, 1024, generator=g) * size
        quantizer(x).backward(upstream)
        a, b = x.grad.double().flatten(), upstream.double().flatten()
        print(f"{what:<12} gradient {size:g}: zeros {(a == 0).double().mean():.1%}, cosine {torch.dot(a, b) / (a.norm() * b.norm()):.3f}",
              flush=True)
