"""Whole passes in integers beside the same passes with 16-bit activations: prompts scored and tokens generated.

passes.py TEMPER MODEL [--repeat N] [--json]. Each pair of files has the same codes, but int8-int4's twin: its scales are f32
where int8-int4's are bf16. Figures are processor time of one thread, the best of a few turns, what a run with less to do takes being
subtracted: they hold on a machine that others use, too."""
import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

PAIRS = {  # name → what is quantized and its options: with 16-bit activations, with 8-bit ones
    "int8-int4": [("int4-sym-g32; head: int8-sym; embedding: int8-sym", "folder", []), ("int8-int4", "folder", [])],
    **{scheme: [(scheme, "gguf", ["--activations", "16bit"]), (scheme, "gguf", ["--activations", "8bit"])]
       for scheme in ("q4_0", "q8_0", "q4_k_m")},
}
WINDOWS, CONTEXT, TOKENS = 4, 512, 96
TEXT = "The boats come back before noon, and the women of the harbour sort what they brought by the light of the open doors. "


def run(command):
    """User and system time of a program, and its report."""
    with tempfile.TemporaryFile("w+") as out:
        process = subprocess.Popen([str(part) for part in [*command, "--json"]], stdout=out, stderr=subprocess.DEVNULL,
                                   env={**os.environ, "OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "passive"})
        _, status, usage = os.wait4(process.pid, 0)
        if status:
            sys.exit(f"failed: {' '.join(str(part) for part in command)}")
        out.seek(0)
        return usage.ru_utime + usage.ru_stime, json.load(out)


def quantized(temper, model, folder, scheme, kind):
    path = folder / ("".join(c if c.isalnum() else "-" for c in scheme) + (".gguf" if kind == "gguf" else ""))
    if not path.exists():
        subprocess.run([temper, "quantize", "--model", model, "--scheme", scheme, "--out", path], check=True,
                       stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return path


def passes(temper, path, options, text):
    """name → commands with little and with much to do, and how many tokens a report says that it was."""
    evaluate = [temper, "eval", "--model", path, "--text", text, "--windows", "llama-perplexity", "--context", CONTEXT, *options]
    generate = [temper, "generate", "--model", path, "--raw", "--prompt", TEXT, "--temperature", 0, *options]
    return {"eval": ([evaluate + ["--rows", n] for n in (1, WINDOWS + 1)], lambda report: report["text_windows"] * CONTEXT),
            "generate": ([generate + ["--max-tokens", n] for n in (1, TOKENS + 1)], lambda report: report["tokens"])}


def speed(commands, tokens, repeat):
    """Tokens per second of one core."""
    runs = [[run(command) for command in commands] for _ in range(repeat)]
    little, much = (min(turn[i][0] for turn in runs) for i in (0, 1))
    return (tokens(runs[0][1][1]) - tokens(runs[0][0][1])) / (much - little)


def main():
    options = argparse.ArgumentParser(prog="./dev bench passes", description=__doc__)
    options.add_argument("temper", type=Path)
    options.add_argument("model")
    options.add_argument("--repeat", type=int, default=3)
    options.add_argument("--json", action="store_true")
    given = options.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        text = Path(folder) / "text.txt"
        text.write_text(TEXT * 200)
        for name, pair in PAIRS.items():
            sides = [passes(given.temper, quantized(given.temper, given.model, Path(folder), scheme, kind), extra, text)
                     for scheme, kind, extra in pair]
            for what in sides[0]:
                speeds = [speed(*side[what], given.repeat) for side in sides]
                rows.append({"scheme": name, "pass": what, "tokens_per_cpu_s_16bit": speeds[0], "tokens_per_cpu_s_8bit": speeds[1],
                             "ratio": speeds[1] / speeds[0]})
                if not given.json:
                    print(f"{name:<10} {what:<9} {speeds[0]:8.1f} {speeds[1]:8.1f} tokens per s of one core, 16 and 8 bit: "
                          f"{speeds[1] / speeds[0]:.2f} x", flush=True)
    if given.json:
        print(json.dumps(rows))


if __name__ == "__main__":
    main()
