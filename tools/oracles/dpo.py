"""Golden numbers of the preference loss: TRL's sigmoid loss (DPOTrainer.dpo_loss) and its gradient, by torch in double.

    python3 tools/oracles/dpo.py > tests/unit/train/dpo_golden.inc
"""
import torch
import torch.nn.functional as F

for smoothing in (0.0, 0.1, 0.3):
    for margin in (-40.0, -3.0, -0.25, 0.0, 0.125, 1.0, 7.5, 60.0):
        h = torch.tensor(margin, dtype=torch.float64, requires_grad=True)
        loss = -F.logsigmoid(h) * (1 - smoothing) - F.logsigmoid(-h) * smoothing
        loss.backward()
        print(f"{{{margin!r}, {smoothing!r}, {loss.item()!r}, {h.grad.item()!r}}},")
