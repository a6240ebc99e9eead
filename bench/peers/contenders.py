"""How each program is run and what its figure is. All on the same number of threads; times are of whole programs unless said."""
import json
import re
import subprocess
from pathlib import Path

from runs import CPUS, Failed, check, timed

TOKENS, DOCUMENT = 2048, 512  # of a training step


class TorchStep:
    """torch_step.py in a process that stays between measurements, until `close`."""

    def __init__(self, python, model, *options, limit_seconds):
        script = Path(__file__).with_name("torch_step.py")
        self.log = open(Path(model).parent / "torch_step.log", "w")
        # `timeout` bounds the compilation above all.
        command = ["timeout", str(limit_seconds), python, script, model, "--threads", CPUS, "--rows", TOKENS // DOCUMENT,
                   "--length", DOCUMENT, *options]
        self.process = subprocess.Popen([str(part) for part in command], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                        stderr=self.log, text=True)

    def close(self):
        self.process.stdin.close()
        self.process.terminate()
        self.process.wait()
        self.process.stdout.close()
        self.log.close()

    def _answer(self):
        line = self.process.stdout.readline()
        if not line:
            status = self.process.wait()
            said = Path(self.log.name).read_text().strip().splitlines()
            raise Failed("not ready in time" if status == 124 else f"torch: status {status}: {' / '.join(said[-2:])}")
        return json.loads(line)

    def ready(self):
        """Waits for the warm-up; what it says of it."""
        return self._answer()

    def tokens_per_second(self):
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        return TOKENS / self._answer()["seconds"]


def temper_step(build, model):
    """bench/step's report: tokens_per_s with QAT, lora_tokens_per_s without."""
    done = check([build / "bench" / "bench_step", model, "--tokens", TOKENS, "--document", DOCUMENT, "--repeat", 1, "--json"])
    return json.loads(done.stdout)


def llama_quantize(tool, source, target, kind):
    """Seconds. One format for all has the table in 8 bits, as temper's q4_0 has it: it is the head, too. A mix chooses itself."""
    target.unlink(missing_ok=True)
    options = [] if "_K_" in kind else ["--pure", "--token-embedding-type", "q8_0"]
    return timed([tool, *options, source, target, kind, CPUS])[1]


def temper_quantize(temper, source, target, scheme):
    target.unlink(missing_ok=True)
    return timed([temper, "quantize", "--model", source, "--scheme", scheme, "--threads", CPUS, "--out", target])[1]


def same_tensors(python, one, other):
    """Whether two GGUF files hold the same tensors, byte for byte."""
    program = ("import gguf, sys\n"
               "a, b = ({t.name: (t.tensor_type, t.data.tobytes()) for t in gguf.GGUFReader(p).tensors} for p in sys.argv[1:])\n"
               "sys.exit(a != b)")
    return subprocess.run([str(python), "-c", program, str(one), str(other)], check=False).returncode == 0


CONTEXT = 512


def llama_perplexity(tool, model, text):
    """{"tokens_per_s", "perplexity"}."""
    done, seconds = timed([tool, "-m", model, "-f", text, "-c", CONTEXT, "-t", CPUS])
    said = done.stdout + done.stderr
    value, chunks = re.search(r"Final estimate: PPL = ([\d.]+)", said), re.search(r"over (\d+) chunks", said)
    if not value or not chunks:
        raise Failed("llama-perplexity: no estimate in its output")
    return {"tokens_per_s": int(chunks[1]) * CONTEXT / seconds, "perplexity": float(value[1])}


def temper_perplexity(temper, model, text, *options):
    done, seconds = timed([temper, "eval", "--model", model, "--text", text, "--windows", "llama-perplexity", "--context", CONTEXT,
                           "--threads", CPUS, "--json", *options])
    report = json.loads(done.stdout)
    return {"tokens_per_s": report["text_windows"] * CONTEXT / seconds, "perplexity": report["perplexity"]}


def llama_bench(tool, model, prompt, new):
    """Tokens/s that the tool itself reports: of a prompt, or of generation from an empty context. Loading is not in it."""
    done = check([tool, "-m", model, "-p", prompt, "-n", new, "-r", 1, "-t", CPUS, "-o", "json"])
    return json.loads(done.stdout)[0]["avg_ts"]


def temper_generate(temper, model, prompt, new):
    """The report of one greedy answer; loading is not in its seconds."""
    done = check([temper, "generate", "--model", model, "--raw", "--prompt", prompt, "--max-tokens", new, "--temperature", 0,
                  "--threads", CPUS, "--json"])
    return json.loads(done.stdout)
