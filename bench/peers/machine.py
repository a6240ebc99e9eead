"""What was measured on: processor, instruction sets, versions, commit."""
import platform
import re
import subprocess
from pathlib import Path

# Flags of /proc/cpuinfo that change what a matrix product costs.
TELLING_FLAGS = ("avx2", "fma", "f16c", "avx_vnni", "avx512f", "avx512_vnni", "avx512_bf16", "avx512_fp16", "amx_tile", "amx_bf16",
                 "amx_int8")


def cpu_info():
    """(model name, set of flags) of the first processor."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    value = lambda key: next((line.split(":", 1)[1].strip() for line in lines if re.match(rf"{key}\s*:", line)), "")
    return value("model name") or platform.processor(), set(value("flags").split())


def git(*arguments):
    done = subprocess.run(["git", *arguments], capture_output=True, text=True, check=False)
    return done.stdout.strip()


def memory_bytes():
    return int(re.search(r"MemTotal:\s*(\d+) kB", Path("/proc/meminfo").read_text())[1]) * 1024


def describe(cpus, isa, packages):
    model, flags = cpu_info()
    return {
        "cpu": model,
        "cpus": cpus,
        "flags": [flag for flag in TELLING_FLAGS if flag in flags],
        "memory_bytes": memory_bytes(),
        "kernel": platform.release(),
        "isa": isa,
        "commit": git("rev-parse", "--short", "HEAD") + ("+changes" if git("status", "--porcelain", "--", "src", "bench") else ""),
        "peers": packages,
    }

