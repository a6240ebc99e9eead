"""What quantization costs and what training wins back: one table over schemes, on one model and one data set.

recovery.py TEMPER MODEL TRAIN TEST OUT [--schemes NAME…] [--lr LR…] [--methods NAME…]

For each scheme: the tuned 16-bit run quantized after training (PTQ) by each method, and quantization-aware training (QAT) at
each learning rate; every arm is scored on the same rows against the tuned run. Arms that OUT/results.json holds already are
not run again, so that a stopped table goes on. The best learning rate of the 16-bit run is the reference of all."""
import argparse
import json
import subprocess
import sys
from pathlib import Path

SCHEMES = ("int4-g32", "int8-int4", "fp8-int4-g32", "fp8-fp8", "q4_0", "q4_k_m", "q3_k_m", "q2_k", "nf4", "mxfp4", "nvfp4", "int3-sym-g32",
           "int2-sym-g32")
RATES = ("2e-4", "4e-4", "1e-3")
# Ways to quantize after training, as options of `temper eval`; all but the first look at calibration data.
METHODS = {"rtn": (), "importance": ("--method", "importance"), "gptq": ("--method", "gptq"), "awq": ("--transform", "awq"),
           "awq+gptq": ("--transform", "awq", "--method", "gptq"), "smoothquant": ("--transform", "smoothquant")}
# The setting of the README's table.
SETTING = ("--steps", "60", "--batch-size", "4", "--seq-len", "512", "--warmup-steps", "10", "--lora-r", "16", "--lora-alpha", "32",
           "--max-grad-norm", "0", "--packing", "stream", "--recompute", "none", "--checkpoint-every", "0")


class Table:
    def __init__(self, given):
        self.given, self.file = given, given.out / "results.json"
        self.arms = json.loads(self.file.read_text()) if self.file.exists() else {}

    def temper(self, *words):
        """The JSON object that a run of temper prints, or its last line of complaint."""
        done = subprocess.run([self.given.program, *map(str, words), "--json"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        if done.returncode == 0:
            return json.loads(done.stdout)
        return {"error": done.stderr.strip().splitlines()[-1]}

    def arm(self, name, measure):
        if name not in self.arms:
            print(f"==> {name}", file=sys.stderr, flush=True)
            self.arms[name] = measure()
            self.file.write_text(json.dumps(self.arms, indent=1) + "\n")
        return self.arms[name]

    def score(self, *words):
        return self.temper("eval", *words, "--data", self.given.test, "--rows", self.given.rows)

    def train(self, run, rate, *words):
        if not (run / "run.json").exists():
            found = self.temper("train", "--model", self.given.model, "--data", self.given.train, "--lr", rate, *SETTING, "--out", run, *words)
            if "error" in found:
                return found
        return {}

    def tuned(self, rate):
        run = self.given.out / f"tuned-{rate}"
        return self.arm(f"tuned {rate}", lambda: self.train(run, rate, "--scheme", "none") or self.score("--run", run))

    def qat(self, scheme, rate, reference):
        run = self.given.out / f"{scheme}-{rate}"
        words = ("--scheme", scheme, "--merge-dtype", self.given.merge_dtype)
        return self.arm(f"{scheme} qat {rate}",
                        lambda: self.train(run, rate, *words) or self.score("--run", run, "--reference", reference))

    def ptq(self, scheme, method, reference):
        words = ("--scheme", scheme, *METHODS[method])
        if METHODS[method]:
            words += ("--calibration", self.given.train, "--calibration-tokens", self.given.calibration_tokens)
        return self.arm(f"{scheme} {method}", lambda: self.score("--run", reference, *words, "--reference", reference))

    def run(self):
        given = self.given
        best = min(given.lr, key=lambda rate: self.tuned(rate)["nll"])
        reference = given.out / f"tuned-{best}"
        for scheme in given.schemes:
            for method in given.methods:
                self.ptq(scheme, method, reference)
            for rate in given.lr:
                self.qat(scheme, rate, reference)
        return best


def lowest(arms):
    """The (name, figures) of the lowest NLL; None if no arm has one."""
    good = [(name, arm) for name, arm in arms if "nll" in arm]
    return min(good, key=lambda item: item[1]["nll"]) if good else None


def cell(arm, name=""):
    if arm is None:
        return "–"
    low, high = arm["nll_ci"]
    return f"{arm['nll']:.4f} [{low:.4f}, {high:.4f}]{name}"


def text(table, best):
    """The table in Markdown: per scheme, plain PTQ, the best PTQ and the best QAT."""
    given, arms = table.given, table.arms
    tuned = arms[f"tuned {best}"]
    lines = [f"16-bit (lr {best}): {cell(tuned)}", "",
             "| scheme | bits/weight | size | PTQ, rounded to nearest | best PTQ | its KLD | QAT | its KLD | recovered |", "|---|---|---|---|---|---|---|---|---|"]
    for scheme in given.schemes:
        nearest = lowest([("rtn", arms.get(f"{scheme} rtn", {}))])
        ptq = lowest([(method, arms.get(f"{scheme} {method}", {})) for method in given.methods])
        qat = lowest([(rate, arms.get(f"{scheme} qat {rate}", {})) for rate in given.lr])
        recovered = "–"
        if nearest and qat:
            recovered = f"{100 * (nearest[1]['nll'] - qat[1]['nll']) / (nearest[1]['nll'] - tuned['nll']):.0f} %"
        size = (qat or ptq or (None, {}))[1]
        lines.append(f"| {scheme} | {size.get('bits_per_weight', 0):.2f} | {size.get('weight_bytes', 0) / 1e6:.1f} MB "
                     f"| {cell(nearest and nearest[1])} | {cell(ptq and ptq[1], f' {ptq[0]}' if ptq else '')} | {ptq[1]['kld'] if ptq else 0:.4f} "
                     f"| {cell(qat and qat[1], f' lr {qat[0]}' if qat else '')} | {qat[1]['kld'] if qat else 0:.4f} | {recovered} |")
    return "\n".join(lines)


def main():
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("program")
    options.add_argument("model")
    options.add_argument("train", type=Path)
    options.add_argument("test", type=Path)
    options.add_argument("out", type=Path)
    options.add_argument("--schemes", nargs="+", default=SCHEMES)
    options.add_argument("--lr", nargs="+", default=RATES)
    options.add_argument("--methods", nargs="+", default=("rtn", "importance", "gptq", "awq"), choices=METHODS)
    options.add_argument("--calibration-tokens", type=int, default=65536)
    options.add_argument("--merge-dtype", default="f32", choices=("checkpoint", "f32"))
    options.add_argument("--rows", type=int, default=120)
    given = options.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    table = Table(given)
    print(text(table, table.run()))


if __name__ == "__main__":
    sys.exit(main())
