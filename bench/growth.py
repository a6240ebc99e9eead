"""How a training step grows: its tokens/s from 128 to 8192 tokens of context, and from one thread to all.

growth.py BENCH_STEP MODEL [--tokens N] [--json]. Every line is a run of bench_step over the same tokens, cut into documents of the
context's length, so that only attention has more to do as the context grows: "linear" is everything else."""
import argparse
import json
import os
import subprocess
import sys

CONTEXTS = (128, 512, 2048, 8192)


def measure(program, model, tokens, context, threads):
    done = subprocess.run([program, model, "--tokens", str(tokens), "--document", str(context), "--repeat", "1", "--json"],
                          env={**os.environ, "OMP_NUM_THREADS": str(threads)}, stdout=subprocess.PIPE, text=True, check=True)
    report = json.loads(done.stdout)
    seconds = tokens / report["tokens_per_s"]
    recorded = sum(op["seconds"] for op in report["ops"])
    attention = [op for op in report["ops"] if op["op"].startswith("attention")]
    share = sum(op["seconds"] for op in attention) / recorded
    return {"context": context, "threads": threads, "tokens_per_s": report["tokens_per_s"],
            "linear_tokens_per_s": tokens / (seconds * (1 - share)), "attention_share": share,
            "attention_ceiling_share": sum(op["ceiling_share"] * op["seconds"] for op in attention) / (share * recorded)}


def main():
    options = argparse.ArgumentParser(prog="./dev bench growth", description=__doc__)
    options.add_argument("program")
    options.add_argument("model")
    options.add_argument("--tokens", type=int, default=8192, help="of a step")
    options.add_argument("--json", action="store_true")
    given = options.parse_args()
    cpus = len(os.sched_getaffinity(0))

    rows = [measure(given.program, given.model, given.tokens, context, cpus) for context in CONTEXTS if context <= given.tokens]
    few = min(given.tokens, 2048)
    one = measure(given.program, given.model, few, 512, 1)
    all_threads = measure(given.program, given.model, few, 512, cpus)
    linear = [row["linear_tokens_per_s"] for row in rows]
    report = {"tokens": given.tokens, "contexts": rows, "linear_spread": max(linear) / min(linear) - 1,
              "one_thread": one, "all_threads": all_threads,
              "thread_speedup": all_threads["tokens_per_s"] / one["tokens_per_s"]}
    if given.json:
        print(json.dumps(report))
        return
    print(f"{'context':>8} {'tokens/s':>10} {'linear part':>12} {'attention':>10} {'of its ceiling':>15}")
    for row in rows:
        print(f"{row['context']:>8} {row['tokens_per_s']:>10.0f} {row['linear_tokens_per_s']:>12.0f} "
              f"{100 * row['attention_share']:>8.0f} % {100 * row['attention_ceiling_share']:>13.0f} %")
    print(f"linear part within {100 * report['linear_spread']:.1f} % over {given.tokens} tokens a step; "
          f"1 to {cpus} threads at {few} tokens: {report['thread_speedup']:.2f} x")


if __name__ == "__main__":
    sys.exit(main())
