"""What quantization costs and what training wins back: one table over schemes, on one model and one data set.

For each scheme: the tuned 16-bit run quantized after training (PTQ) by each method, and quantization-aware training (QAT) at
each learning rate; every arm is scored on the same rows against the tuned run. Arms that OUT/results.json holds already are
not run again, so that a stopped table goes on. The best learning rate of the 16-bit run is the reference of all."""
import argparse
import sys
from pathlib import Path

from arms import Arms, add_options, cell, lowest, recovered

SCHEMES = ("int4-g32", "int8-int4", "fp8-int4-g32", "fp8-fp8", "q4_0", "q4_k_m", "q3_k_m", "q2_k", "nf4", "mxfp4", "nvfp4", "int3-sym-g32",
           "int2-sym-g32")
RATES = ("2e-4", "4e-4", "1e-3")
# Ways to quantize after training, as options of `temper eval`; all but the first look at calibration data.
METHODS = {"rtn": (), "importance": ("--method", "importance"), "gptq": ("--method", "gptq"), "awq": ("--transform", "awq"),
           "awq+gptq": ("--transform", "awq", "--method", "gptq"), "smoothquant": ("--transform", "smoothquant")}


def quantized(arms, scheme, method, reference):
    words = ("--scheme", scheme, *METHODS[method])
    if METHODS[method]:
        words += ("--calibration", arms.given.train, "--calibration-tokens", arms.given.calibration_tokens)
    return arms.arm(f"{scheme} {method}", lambda: arms.score("--run", reference, *words, "--reference", reference))


def run(arms):
    given = arms.given
    best, reference, _ = arms.tuned()
    for scheme in given.schemes:
        for method in given.methods:
            quantized(arms, scheme, method, reference)
        for rate in given.lr:
            arms.trained(f"{scheme} qat {rate}", rate, "--scheme", scheme, "--merge-dtype", given.merge_dtype, against=reference)
    return best


def text(table, best):
    """The table in Markdown: per scheme, plain PTQ, the best PTQ and the best QAT."""
    given, arms = table.given, table.arms
    tuned = arms[f"tuned {best}"]
    lines = [f"16-bit (lr {best}): {cell(tuned)}", "",
             "| scheme | bits/weight | size | PTQ, rounded to nearest | its KLD | best PTQ | its KLD | QAT | its KLD | recovered |",
             "|---|---|---|---|---|---|---|---|---|---|"]
    for scheme in given.schemes:
        nearest = lowest([("rtn", arms.get(f"{scheme} rtn", {}))])
        ptq = lowest([(method, arms.get(f"{scheme} {method}", {})) for method in given.methods])
        qat = lowest([(rate, arms.get(f"{scheme} qat {rate}", {})) for rate in given.lr])
        won = recovered(nearest[1], qat[1], tuned) if nearest and qat else "–"
        size = (qat or ptq or (None, {}))[1]
        columns = [scheme, f"{size.get('bits_per_weight', 0):.2f}", f"{size.get('weight_bytes', 0) / 1e6:.1f} MB"]
        for found, label in ((nearest, ""), (ptq, f" {ptq[0]}" if ptq else ""), (qat, f" lr {qat[0]}" if qat else "")):
            columns += [cell(found and found[1], label), f"{found[1]['kld']:.4f}" if found else "–"]
        lines.append("| " + " | ".join([*columns, won]) + " |")
    return "\n".join(lines)


def main():
    options = argparse.ArgumentParser(prog="./dev bench recovery", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_options(options, RATES)
    options.add_argument("--schemes", nargs="+", default=SCHEMES)
    options.add_argument("--methods", nargs="+", default=("rtn", "importance", "gptq", "awq"), choices=METHODS)
    options.add_argument("--calibration-tokens", type=int, default=65536)
    given = options.parse_args()
    arms = Arms(given, Path(given.out))
    print(text(arms, run(arms)))


if __name__ == "__main__":
    sys.exit(main())
