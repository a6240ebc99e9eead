"""Running programs, and measuring several of them in turn."""
import os
import statistics
import subprocess
import time

CPUS = len(os.sched_getaffinity(0))


class Failed(Exception):
    """A program that did not do what was asked; the message says which and why."""


def check(command, **options):
    """Runs a command to its end. Returns its output; Failed, with the end of what it said, if its status is not 0."""
    done = subprocess.run([str(part) for part in command], stdin=subprocess.DEVNULL, capture_output=True, text=True, **options)
    if done.returncode != 0:
        said = (done.stdout + done.stderr).strip().splitlines()
        raise Failed(f"{os.path.basename(str(command[0]))}: status {done.returncode}: {' / '.join(said[-3:])}")
    return done


def timed(command):
    """(what `check` gives, seconds from start to end of the program), with nothing of earlier writes left to flush."""
    os.sync()
    begin = time.perf_counter()
    done = check(command)
    return done, time.perf_counter() - begin


def interleaved(contenders, repeats):
    """name → measurement, a function of no arguments. Each is called in turn, `repeats` times; returns name → list of what it
    returned. A drift of the machine so falls on all of them alike."""
    samples = {name: [] for name in contenders}
    for _ in range(repeats):
        for name, measure in contenders.items():
            samples[name].append(measure())
    return samples


def median(values):
    return statistics.median(values)
