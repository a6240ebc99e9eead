#!/usr/bin/env python3
"""How a training step's memory grows with context and with layers: planned and measured, and how far from a straight line.

usage: memory_growth.py [MODEL] [--contexts N…] [--layers N…] [--recompute MODE] [--json]      (TEMPER names the program)

Contexts: one step of one sequence of MODEL (left out where none is given). Layers: one step on random models that differ in their number of layers alone.
"Per …" is the slope between one line and the next; on a straight line all are equal. Needs numpy and safetensors.
"""
import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "support"))
import tiny_model  # noqa: E402

TEXT = "the rain in a plain "


def step(model, tokens, folder, recompute):
    """(planned, measured) bytes of one step of one sequence."""
    rows = folder / "rows.jsonl"
    rows.write_text(json.dumps({"text": TEXT * tokens}) + "\n")
    with tempfile.TemporaryDirectory(dir=folder) as run:
        done = subprocess.run([os.environ["TEMPER"], "train", "--model", model, "--data", rows, "--steps", "1", "--batch-size", "1",
                               "--seq-len", str(tokens), "--recompute", recompute, "--out", Path(run) / "run", "--json"],
                              stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, check=True)
    report = json.loads(done.stdout)
    return report["planned_bytes"], report["peak_rss_bytes"]


def straight(xs, ys):
    """Largest distance of ys from their straight line through xs (least squares), relative to the largest y."""
    n, mean_x, mean_y = len(xs), sum(xs) / len(xs), sum(ys) / len(ys)
    slope = sum((x - mean_x) * (y - mean_y) for x, y in zip(xs, ys)) / sum((x - mean_x) ** 2 for x in xs) if n > 1 else 0
    return max(abs(y - mean_y - slope * (x - mean_x)) for x, y in zip(xs, ys)) / max(ys)


def table(what, unit, rows):
    print(f"{what:>10} {'planned, MB':>12} {'measured, MB':>13} {'per ' + unit:>16}")
    for before, (x, planned, measured) in zip([None, *rows], rows):
        slope = f"{(measured - before[2]) / (x - before[0]) * (1000 if what == 'context' else 1) / 1e6:.2f} MB" if before else ""
        print(f"{x:>10} {planned / 1e6:>12.1f} {measured / 1e6:>13.1f} {slope:>16}")
    print(f"within {100 * straight([r[0] for r in rows], [r[2] for r in rows]):.1f} % of a straight line\n")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", nargs="?")
    parser.add_argument("--contexts", type=int, nargs="+", default=[1024, 2048, 4096, 8192])
    parser.add_argument("--layers", type=int, nargs="+", default=[4, 8, 16, 32])
    parser.add_argument("--recompute", default="block")
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    report = {"recompute": given.recompute}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if given.model:
            report["contexts"] = [(n, *step(given.model, n, folder, given.recompute)) for n in given.contexts]
        report["layers"] = []
        for layers in given.layers:
            model = tiny_model.write_random(folder / f"model-{layers}", layers=layers, hidden=512, intermediate=1536)
            report["layers"].append((layers, *step(model, 512, folder, given.recompute)))
    if given.json:
        print(json.dumps(report))
        return
    if given.model:
        table("context", "1,000 tokens", report["contexts"])
    table("layers", "layer", report["layers"])


if __name__ == "__main__":
    main()
