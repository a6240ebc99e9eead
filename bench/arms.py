"""Runs of temper that a table is made of ("arms"): each is trained or quantized once, scored on the same rows, and kept in a file, so
that a stopped table goes on."""
import json
import subprocess
import sys

# The setting of the README's table.
SETTING = ("--steps", "60", "--batch-size", "4", "--seq-len", "512", "--warmup-steps", "10", "--lora-r", "16", "--lora-alpha", "32",
           "--max-grad-norm", "0", "--packing", "stream", "--recompute", "none", "--checkpoint-every", "0")


def add_options(options, rates):
    """What every table of arms asks for."""
    options.add_argument("program")
    options.add_argument("model")
    options.add_argument("train", help="rows to learn from")
    options.add_argument("test", help="rows to score")
    options.add_argument("out", help="folder of runs and results.json")
    options.add_argument("--lr", nargs="+", default=rates)
    options.add_argument("--merge-dtype", default="f32", choices=("checkpoint", "f32"))
    options.add_argument("--rows", type=int, default=120)


class Arms:
    def __init__(self, given, out):
        self.given, self.out, self.file = given, out, out / "results.json"
        out.mkdir(parents=True, exist_ok=True)
        self.arms = json.loads(self.file.read_text()) if self.file.exists() else {}

    def temper(self, *words):
        """The JSON object that a run of temper prints, or its last line of complaint."""
        done = subprocess.run([self.given.program, *map(str, words), "--json"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        if done.returncode == 0:
            return json.loads(done.stdout)
        complaint = done.stderr.strip().splitlines()[-1]
        print(complaint, file=sys.stderr)
        return {"error": complaint}

    def arm(self, name, measure):
        if name not in self.arms:
            print(f"==> {name}", file=sys.stderr, flush=True)
            self.arms[name] = measure()
            self.file.write_text(json.dumps(self.arms, indent=1) + "\n")
        return self.arms[name]

    def score(self, *words):
        return self.temper("eval", *words, "--data", self.given.test, "--rows", self.given.rows)

    def trained(self, name, rate, *words, against=None, model=None):
        """An arm that is trained (unless its run is there), then scored, against the run `against` if one is given; with what training
        took. `model`: another base than the table's."""
        run = self.out / name.replace(" ", "-").replace("+", "and")

        def measure():
            if not (run / "run.json").exists():
                found = self.temper("train", "--model", model or self.given.model, "--data", self.given.train, "--lr", rate, *SETTING, "--out", run, *words)
                if "error" in found:
                    return found
            report = json.loads((run / "report.json").read_text())
            reference = ("--reference", against) if against else ()
            return {**self.score("--run", run, *reference), "run": str(run),
                    **{key: report[key] for key in ("tokens_per_s", "peak_rss_bytes")}}
        return self.arm(name, measure)

    def tuned(self):
        """(rate, run, figures) of the 16-bit adapters at their best learning rate: what recovery is measured against."""
        best = min(self.given.lr, key=lambda rate: self.trained(f"tuned {rate}", rate, "--scheme", "none").get("nll", float("inf")))
        return best, self.out / f"tuned-{best}", self.arms[f"tuned {best}"]

    def exported(self, name, *source):
        """A model or run as a 16-bit folder, made once."""
        folder = self.out / name
        if not folder.exists():
            self.temper("export", *source, "--to", "hf", "--out", folder)
        return folder

    def rounded_by_gptq(self, scheme, tuned):
        """The merged model of the run `tuned` with GPTQ's codes, a folder or a GGUF as the scheme has it."""
        rounded = self.out / f"tuned-gptq-{scheme}"
        if not rounded.exists():
            merged = self.exported("tuned-hf", "--run", tuned)
            self.temper("quantize", "--model", merged, "--scheme", scheme, "--method", "gptq", "--calibration", self.given.train,
                        "--calibration-tokens", self.given.calibration_tokens, "--out", rounded)
        return rounded


def lowest(arms):
    """The (name, figures) of the lowest NLL; None if no arm has one."""
    good = [(name, arm) for name, arm in arms if "nll" in arm]
    return min(good, key=lambda item: item[1]["nll"]) if good else None


def cell(arm, name=""):
    if arm is None:
        return "–"
    low, high = arm["nll_ci"]
    return f"{arm['nll']:.4f} [{low:.4f}, {high:.4f}]{name}"


def recovered(nearest, arm, tuned):
    return f"{100 * (nearest['nll'] - arm['nll']) / (nearest['nll'] - tuned['nll']):.0f} %"
