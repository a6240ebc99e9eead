"""Ways to train for one scheme, in one table: what each wins back of what rounding costs, and what it takes.

Every way is trained at each learning rate (full training at its own) for the same 60 steps of 2,048 tokens, and scored against the
best 16-bit adapters; its best rate is shown. "From the tuned adapter", "from GPTQ's codes" and "distillation" use that run, which takes 60
steps of its own.
Arms that OUT/results.json holds already are not run again."""
import argparse
import sys
from pathlib import Path

from arms import Arms, add_options, cell, lowest, recovered

RATES = ("4e-4", "1e-3")
FULL_RATES = ("2e-4",)


def ways(tuned):
    """(name, options, learning rates or None for those of adapters, what makes its base or None). `tuned` is the run of the best 16-bit
    adapters."""
    distill = ("--objective", "distill", "--teacher", tuned, "--distill-weight", "0.5")
    begin = ("--lora-adapter", tuned)
    return (("merged QAT", (), None, None),
            ("learnt scales", ("--learn-scales",), None, None),
            ("distillation", distill, None, None),
            ("from the tuned adapter", begin, None, None),
            ("from the tuned adapter + distillation", (*begin, *distill), None, None),
            ("QLoRA (nf4) + QAT", ("--base-format", "nf4"), None, plain_base),
            ("full QAT", ("--mode", "full"), FULL_RATES, None),
            ("from GPTQ's codes + distillation", ("--quant-init", "base", *distill), None, rounded_by_gptq))


def plain_base(arms, _):
    return arms.exported("base-hf", "--model", arms.given.model)


def rounded_by_gptq(arms, reference):
    return arms.rounded_by_gptq(arms.given.scheme, reference)


def run(arms):
    given = arms.given
    best, reference, tuned = arms.tuned()
    against = ("--reference", reference)
    nearest = arms.arm("rtn", lambda: arms.score("--run", reference, "--scheme", given.scheme, *against))
    gptq = arms.arm("gptq", lambda: arms.score("--run", reference, "--scheme", given.scheme, "--method", "gptq", "--calibration", given.train,
                                               "--calibration-tokens", given.calibration_tokens, *against))
    table = [("16-bit adapters", (best, tuned)), ("these, rounded to nearest", ("", nearest)), ("these, GPTQ", ("", gptq))]
    for name, words, rates, make_base in ways(reference):
        if given.only and name not in given.only:
            continue
        base = make_base(arms, reference) if make_base else None
        found = [(rate, arms.trained(f"{name} {rate}", rate, "--scheme", given.scheme, "--merge-dtype", given.merge_dtype, *words,
                                     against=reference, model=base))
                 for rate in rates or given.lr]
        table.append((name, lowest(found)))
    return table, nearest, tuned


def text(table, nearest, tuned):
    lines = ["| way | lr | NLL [95 % CI] | KLD to the tuned model | recovered | tokens/s | peak memory |", "|---|---|---|---|---|---|---|"]
    for name, found in table:
        rate, arm = found or ("", {})
        speed = f"{arm['tokens_per_s']:.0f}" if "tokens_per_s" in arm else "–"
        memory = f"{arm['peak_rss_bytes'] / 1e9:.2f} GB" if "peak_rss_bytes" in arm else "–"
        kld = f"{arm['kld']:.4f}" if "kld" in arm else "–"
        won = recovered(nearest, arm, tuned) if "kld" in arm else "–"
        lines.append(f"| {name} | {rate} | {cell(arm or None)} | {kld} | {won} | {speed} | {memory} |")
    return "\n".join(lines)


def main():
    options = argparse.ArgumentParser(prog="./dev bench ways", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_options(options, RATES)
    options.add_argument("--scheme", default="int4-sym-g32")
    options.add_argument("--calibration-tokens", type=int, default=16384, help="of GPTQ")
    options.add_argument("--only", nargs="+", help="names of ways")
    given = options.parse_args()
    print(text(*run(Arms(given, Path(given.out)))))


if __name__ == "__main__":
    sys.exit(main())
