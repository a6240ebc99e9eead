"""What quantization costs and what training wins back: one table over schemes, on one model and one data set.

For each scheme: the tuned 16-bit run quantized after training (PTQ) by each method, and quantization-aware training (QAT) at
each learning rate, begun at the untuned base, at the tuned run's adapter, and at the codes that GPTQ gives the tuned run
(--starts); every arm is scored on the same rows against the tuned run. Arms that OUT/results.json holds already are not run
again, so that a stopped table goes on. The best learning rate of the 16-bit run is the reference of all. "Recovered" is the share of what rounding to nearest costs."""
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

# Where QAT begins, and the names of its arms. What follows a 16-bit run shares a column of the table.
STARTS = {"base": "qat", "tuned": "qat from tuned", "gptq": "qat from gptq"}
AFTER_TUNING = {"tuned": "adapter", "gptq": "GPTQ's codes"}


def quantized(arms, scheme, method, reference):
    words = ("--scheme", scheme, *METHODS[method])
    if METHODS[method]:
        words += ("--calibration", arms.given.train, "--calibration-tokens", arms.given.calibration_tokens)
    return arms.arm(f"{scheme} {method}", lambda: arms.score("--run", reference, *words, "--reference", reference))


def begun_at(arms, start, scheme, reference):
    """(options, base or None for the table's) of QAT that begins there."""
    if start == "gptq":
        return ("--quant-init", "base"), arms.rounded_by_gptq(scheme, reference)
    return ("--lora-adapter", reference) if start == "tuned" else (), None


def run(arms):
    given = arms.given
    best, reference, _ = arms.tuned()
    for scheme in given.schemes:
        for method in given.methods:
            quantized(arms, scheme, method, reference)
        for start in given.starts:
            words, base = begun_at(arms, start, scheme, reference)
            for rate in given.lr:
                arms.trained(f"{scheme} {STARTS[start]} {rate}", rate, "--scheme", scheme, "--merge-dtype", given.merge_dtype, *words,
                             against=reference, model=base)
    return best


def text(table, best):
    """The table in Markdown: per scheme, plain PTQ, the best PTQ, and the best QAT from the base and after tuning."""
    given, arms = table.given, table.arms
    tuned = arms[f"tuned {best}"]
    groups = [("PTQ, rounded to nearest", {"": "rtn"}), ("best PTQ", {method: method for method in given.methods})]
    if "base" in given.starts:
        groups.append(("QAT", {f"lr {rate}": f"{STARTS['base']} {rate}" for rate in given.lr}))
    after = [start for start in given.starts if start in AFTER_TUNING]
    if after:
        groups.append(("QAT after tuning", {f"{AFTER_TUNING[start]}, lr {rate}": f"{STARTS[start]} {rate}" for start in after for rate in given.lr}))
    heads = ["scheme", "bits/weight", "size"] + [column for head, _ in groups for column in (head, "KLD", "recovered")]
    lines = [f"16-bit (lr {best}): {cell(tuned)}", "", "| " + " | ".join(heads) + " |", "|---" * len(heads) + "|"]
    for scheme in given.schemes:
        found = [lowest([(label, arms.get(f"{scheme} {name}", {})) for label, name in names.items()]) for _, names in groups]
        size = next((arm for _, arm in filter(None, reversed(found))), {})
        columns = [scheme, f"{size.get('bits_per_weight', 0):.2f}", f"{size.get('weight_bytes', 0) / 1e6:.1f} MB"]
        for label, arm in (item or ("", None) for item in found):
            columns += [cell(arm, label and " " + label), f"{arm['kld']:.4f}" if arm else "–",
                        recovered(found[0][1], arm, tuned) if arm and found[0] else "–"]
        lines.append("| " + " | ".join(columns) + " |")
    return "\n".join(lines)


def main():
    options = argparse.ArgumentParser(prog="./dev bench recovery", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_options(options, RATES)
    options.add_argument("--schemes", nargs="+", default=SCHEMES)
    options.add_argument("--methods", nargs="+", default=("rtn", "importance", "gptq", "awq"), choices=METHODS)
    options.add_argument("--starts", nargs="+", default=tuple(STARTS), choices=STARTS)
    options.add_argument("--calibration-tokens", type=int, default=65536)
    given = options.parse_args()
    arms = Arms(given, Path(given.out))
    print(text(arms, run(arms)))


if __name__ == "__main__":
    sys.exit(main())
