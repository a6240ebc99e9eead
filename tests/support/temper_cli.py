"""temper's command line for tests: the program and the model come from the environment variables TEMPER and TEMPER_MODEL."""
import json
import os
import subprocess
import tempfile
import unittest
from pathlib import Path

# Many test machines share few CPUs; threads that spin while they wait would steal from each other.
ENVIRONMENT = {**os.environ, "OMP_WAIT_POLICY": "passive"}


def program():
    return os.environ["TEMPER"]


def model():
    return os.environ["TEMPER_MODEL"]


def run(*arguments, **options):
    """The finished process; never raises for its status."""
    return subprocess.run([program(), *map(str, arguments)], capture_output=True, text=True, env=ENVIRONMENT, timeout=600,
                          **options)


def ok(*arguments):
    """stdout of a command that must succeed."""
    done = run(*arguments)
    if done.returncode != 0:
        raise AssertionError(f"temper {' '.join(map(str, arguments))}: status {done.returncode}\n{done.stdout}{done.stderr}")
    return done.stdout


def ok_json(*arguments):
    return json.loads(ok(*arguments, "--json"))


def shown_ids(model_path, data_path, row=1):
    """Token ids of one row and whether each is learnt, out of `data inspect --verbose`."""
    lines = ok("data", "inspect", "--model", model_path, "--data", data_path, "--row", row, "--verbose").splitlines()
    header = next(i for i, line in enumerate(lines) if line.split() == ["index", "id", "loss", "token"])
    ids, learnt = [], []
    for line in lines[header + 1:]:
        fields = line.split()
        if len(fields) < 3 or not fields[0].isdigit():
            break
        ids.append(int(fields[1]))
        learnt.append(fields[2] == "yes")
    return ids, learnt


def word_problems(count, first=0):
    """Short conversations; a few with characters beyond ASCII."""
    rows = []
    for i in range(first, first + count):
        a, b = 3 + 7 * i % 50, 2 + 11 * i % 40
        name = ["Anna", "Zoë", "李雷", "Omar"][i % 4]
        rows.append({"messages": [
            {"role": "user", "content": f"{name} has {a} apples and buys {b} more. How many apples are there now?"},
            {"role": "assistant", "content": f"{a} + {b} = {a + b}. The answer is {a + b}."}]})
    return rows


def write_jsonl(path, rows):
    Path(path).write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return Path(path)


class TemperTest(unittest.TestCase):
    """A class with a folder of its own, `cls.folder`, removed at the end."""

    @classmethod
    def setUpClass(cls):
        cls.temporary_ = tempfile.TemporaryDirectory(prefix="temper_test_")
        cls.addClassCleanup(cls.temporary_.cleanup)
        cls.folder = Path(cls.temporary_.name)


def say(text):
    """One line of figures in the test's output."""
    print("  " + text, flush=True)
