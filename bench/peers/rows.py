"""The comparisons. Each group makes rows; what fails in it becomes a row that says why."""
import time

import contenders
from machine import cpu_info
from runs import CPUS, Failed, check, interleaved, median
from setup import say
from table import Row

NEW_TOKENS, PROMPT_TOKENS = 128, 512
STORY = "Once upon a time, in a small village by the sea, there lived"
FORMATS = {"BF16": None, "Q4_0": "Q4_0", "Q8_0": "Q8_0", "Q4_K_M": "Q4_K_M"}  # → llama-quantize's name


class Bench:
    """What every group needs: peers, temper's programs, models made once, the number of repeats."""

    def __init__(self, peers, build, model, text, repeats, torch_limit):
        self.peers, self.build, self.source, self.text = peers, build, model, text
        self.repeats, self.torch_limit = repeats, torch_limit
        self.temper = build / "temper"
        self.models = peers.folder / "models"
        self.models.mkdir(exist_ok=True)
        self.amx = "amx_bf16" in cpu_info()[1]

    def bf16(self):
        path = self.models / "BF16.gguf"
        if not path.exists():
            check([self.temper, "export", "--model", self.source, "--to", "gguf:bf16", "--out", path])
        return path

    def folder(self):
        path = self.models / "hf"
        if not path.exists():
            check([self.temper, "export", "--model", self.source, "--to", "hf", "--out", path])
        return path

    def gguf(self, name):
        """The model in a format of FORMATS, made by llama-quantize from the BF16 file."""
        if name == "BF16":
            return self.bf16()
        path = self.models / f"{name}.gguf"
        if not path.exists():
            check([self.peers.llama("llama-quantize"), self.bf16(), path, FORMATS[name], CPUS])
        return path


def step_rows(bench, specs):
    """specs: (row name, peer's name, options of torch_step.py, key of bench_step's report). All of them in turn."""
    python, folder, bf16 = bench.peers.python(), bench.folder(), bench.bf16()
    rows = [Row(name, peer, "tokens/s", target=6 if "QAT" in name else None) for name, peer, _, _ in specs]
    measures, workers = {}, []
    try:
        for row, (_, _, options, _) in zip(rows, specs):
            worker = contenders.TorchStep(python, folder, *options, limit_seconds=bench.torch_limit)
            workers.append(worker)
            try:
                row.note = f"the peer's first step takes {worker.ready()['first_seconds']:.0f} s"
                measures[row.name] = worker.tokens_per_second
            except Failed as failure:
                row.error = str(failure)
        measures["temper"] = lambda: contenders.temper_step(bench.build, bf16)
        samples = interleaved(measures, bench.repeats)
    finally:
        for worker in workers:
            worker.close()
    for row, (_, _, _, key) in zip(rows, specs):
        row.peer = samples.get(row.name, [])
        row.temper = [report[key] for report in samples["temper"]]
    return rows


def quantize_row(bench, scheme, target):
    tool, source = bench.peers.llama("llama-quantize"), bench.bf16()
    theirs, ours = bench.models / f"theirs-{scheme}.gguf", bench.models / f"ours-{scheme}.gguf"
    row = Row(f"quantize {scheme}", "llama-quantize", "s", target=target)
    samples = interleaved({"peer": lambda: contenders.llama_quantize(tool, source, theirs, scheme.upper()),
                           "temper": lambda: contenders.temper_quantize(bench.temper, source, ours, scheme)}, bench.repeats + 2)
    row.peer, row.temper = samples["peer"], samples["temper"]
    if contenders.same_tensors(bench.peers.python(), theirs, ours):
        row.note = "same bytes"
    else:
        row.error = "tensors differ"
    theirs.unlink(), ours.unlink()
    return row


def perplexity_row(bench, name):
    tool, model = bench.peers.llama("llama-perplexity"), bench.gguf(name)
    row = Row(f"perplexity {name}", "llama-perplexity", "tokens/s", target=4 if bench.amx else 1.5)
    samples = interleaved({"peer": lambda: contenders.llama_perplexity(tool, model, bench.text),
                           "temper": lambda: contenders.temper_perplexity(bench.temper, model, bench.text)}, bench.repeats)
    row.peer = [s["tokens_per_s"] for s in samples["peer"]]
    row.temper = [s["tokens_per_s"] for s in samples["temper"]]
    theirs, ours = samples["peer"][0]["perplexity"], samples["temper"][0]["perplexity"]
    row.note = f"perplexity {theirs:.4f} : {ours:.4f} ({100 * (ours / theirs - 1):+.3f} %)"
    if name != "BF16":
        eight = contenders.temper_perplexity(bench.temper, model, bench.text, "--activations", "8bit")["perplexity"]
        row.note += f", with 8-bit activations {eight:.4f} ({100 * (eight / theirs - 1):+.3f} %)"
    return row


def generate_row(bench, name):
    tool, model = bench.peers.llama("llama-bench"), bench.gguf(name)
    row = Row(f"generate {name}", "llama-bench", "tokens/s", target=1.1)

    def ours():
        report = contenders.temper_generate(bench.temper, model, STORY, NEW_TOKENS)
        return (report["tokens"] - 1) / report["seconds"]  # the first token is the prompt's

    samples = interleaved({"peer": lambda: contenders.llama_bench(tool, model, 0, NEW_TOKENS), "temper": ours}, bench.repeats)
    row.peer, row.temper = samples["peer"], samples["temper"]
    row.note = f"{median(row.temper) * model.stat().st_size / 1e9:.0f} GB/s if every byte of the file is read once a token"
    return row


def prompt_row(bench, name):
    tool, model = bench.peers.llama("llama-bench"), bench.gguf(name)
    row = Row(f"prompt {name}", "llama-bench", "tokens/s")
    prompt = STORY * (PROMPT_TOKENS // 14)

    def ours():
        report = contenders.temper_generate(bench.temper, model, prompt, 1)
        return report["prompt_tokens"] / report["prompt_seconds"]

    samples = interleaved({"peer": lambda: contenders.llama_bench(tool, model, PROMPT_TOKENS, 0), "temper": ours}, bench.repeats)
    row.peer, row.temper = samples["peer"], samples["temper"]
    return row


def measurements(bench):
    """name → function that gives its rows. "step" has two, so that both peers meet the same runs of temper."""
    table = {
        "step": lambda: step_rows(bench, [("step QAT+LoRA", "torchao + peft, eager", ["--qat"], "tokens_per_s"),
                                          ("step LoRA", "torch + peft, eager", [], "lora_tokens_per_s")]),
        "compiled": lambda: step_rows(bench, [("step QAT+LoRA", "torchao + peft, compiled", ["--qat", "--compile"],
                                               "tokens_per_s")]),
    }
    for scheme, target in (("q4_0", 1.5), ("q8_0", 1.5), ("q4_k_m", 3)):
        table[f"quantize-{scheme}"] = lambda scheme=scheme, target=target: [quantize_row(bench, scheme, target)]
    for group, make in (("perplexity", perplexity_row), ("generate", generate_row), ("prompt", prompt_row)):
        for name in FORMATS:
            table[f"{group}-{name}"] = lambda make=make, name=name: [make(bench, name)]
    return table


def measure(bench, wanted):
    """Rows of every measurement whose name holds one of `wanted` (all, if that is empty)."""
    rows = []
    for name, make in measurements(bench).items():
        if wanted and not any(part.lower() in name.lower() for part in wanted):
            continue
        begin = time.perf_counter()
        try:
            rows += make()
        except (Failed, OSError, KeyError, ValueError) as failure:
            rows.append(Row(name, "", "", error=str(failure) or type(failure).__name__))
        say(f"{name}: {time.perf_counter() - begin:.0f} s")
    return rows
