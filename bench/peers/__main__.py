"""temper beside the tools people would otherwise use, measured in one run on the same cores: `./dev bench peers`."""
import argparse
import json
import os
import re
import sys
from datetime import date
from pathlib import Path

import machine
import rows
import table
from runs import CPUS, check
from setup import Peers

ROOT = Path(__file__).resolve().parents[2]


def default_text(folder):
    """English of some 20 windows: what this repository says of itself."""
    path = folder / "text.txt"
    path.write_text("\n".join(file.read_text() for file in (ROOT / "README.md", ROOT / "LICENSE", *sorted((ROOT / "docs").glob("*.md")))))
    return path


def results_file(found):
    cpu = re.sub(r"[^a-z0-9]+", "-", found["cpu"].lower()).strip("-")
    return ROOT / "bench" / "results" / f"{date.today()}-{cpu}-{found['isa']}.json"


def main():
    options = argparse.ArgumentParser(prog="./dev bench peers", description=__doc__)
    options.add_argument("--only", nargs="+", default=[], metavar="NAME",
                         help="measurements whose name holds this: step, compiled, quantize, perplexity-Q8_0, generate, prompt …")
    options.add_argument("--json", metavar="FILE", help="where results go; default: bench/results/DATE-CPU-ISA.json, if all were measured")
    options.add_argument("--repeats", type=int, default=3)
    options.add_argument("--text", type=Path, help="what perplexity is measured on; default: this repository's documentation")
    options.add_argument("--torch-limit", type=int, default=900, metavar="SECONDS",
                         help="a torch process that is not done by then is a failed row (compilation takes minutes)")
    given = options.parse_args()

    build, model = Path(os.environ["TEMPER_BUILD"]).resolve(), Path(os.environ["TEMPER_MODEL"]).resolve()
    packages = os.environ["TEMPER_PEERS"].split()
    llama = os.environ["TEMPER_LLAMA_CPP"]
    peers = Peers(ROOT / "build" / "peers", packages, llama)
    bench = rows.Bench(peers, build, model, given.text or default_text(peers.folder), given.repeats, given.torch_limit)
    found = machine.describe(CPUS, temper_isa(build), packages + [llama])

    measured = rows.measure(bench, given.only)
    print(", ".join(f"{key}: {' '.join(value) if isinstance(value, list) else value}" for key, value in found.items()))
    print(table.text(measured))
    if given.json or not given.only:
        path = Path(given.json) if given.json else results_file(found)
        path.write_text(json.dumps({"machine": found, "repeats": given.repeats, "rows": [row.to_json() for row in measured]}, indent=1) + "\n")
        print(f"written: {path}", file=sys.stderr)
    return 1 if any(row.error for row in measured) else 0


def temper_isa(build):
    """What temper says at start-up that it runs on."""
    said = check([build / "temper", "inspect", "--model", os.environ["TEMPER_MODEL"]]).stderr
    return re.search(r"instruction set (\S+)", said)[1]


if __name__ == "__main__":
    sys.exit(main())
