"""Sets the peers up under build/peers, from PyPI alone: torch and its company in a virtual environment; llama.cpp's tools, built
from the source that the llama-cpp-python package carries. What is there already is kept."""
import shutil
import subprocess
import sys
from pathlib import Path

from machine import cpu_info
from runs import CPUS, Failed, check

TOOLS = ("llama-quantize", "llama-perplexity", "llama-bench")

# llama.cpp's options of instruction sets, and the processor's flags that each needs. Named one by one: its own detection of
# the build machine has made programs with illegal instructions.
LLAMA_SETS = {
    "GGML_SSE42": ("sse4_2",),
    "GGML_AVX": ("avx",),
    "GGML_AVX2": ("avx2",),
    "GGML_FMA": ("fma",),
    "GGML_F16C": ("f16c",),
    "GGML_BMI2": ("bmi2",),
    "GGML_AVX_VNNI": ("avx_vnni",),
    "GGML_AVX512": ("avx512f", "avx512cd", "avx512vl", "avx512dq", "avx512bw"),
    "GGML_AVX512_VBMI": ("avx512vbmi",),
    "GGML_AVX512_VNNI": ("avx512_vnni",),
    "GGML_AVX512_BF16": ("avx512_bf16",),
    "GGML_AMX_TILE": ("amx_tile",),
    "GGML_AMX_INT8": ("amx_int8",),
    "GGML_AMX_BF16": ("amx_bf16",),
}


def say(text):
    print(f"==> {text}", file=sys.stderr, flush=True)


def llama_options():
    _, flags = cpu_info()
    return {option: all(flag in flags for flag in needed) for option, needed in LLAMA_SETS.items()}


class Peers:
    """Where the peers are. `python()` and `llama(tool)` set them up at the first call; Failed where that fails."""

    def __init__(self, folder, packages, llama_package):
        self.folder, self.packages, self.llama_package = Path(folder), packages, llama_package
        self.folder.mkdir(parents=True, exist_ok=True)

    def python(self):
        """The interpreter of the virtual environment that has the pinned packages."""
        venv, stamp = self.folder / "venv", self.folder / "venv" / "packages"
        wanted = " ".join(self.packages)
        if not stamp.exists() or stamp.read_text() != wanted:
            say(f"installing {wanted} into {venv} (several GB)")
            if not (venv / "bin" / "python").exists():
                check([sys.executable, "-m", "venv", venv])
            check([venv / "bin" / "pip", "install", "--quiet", *self.packages])
            stamp.write_text(wanted)
        return venv / "bin" / "python"

    def llama(self, tool):
        """One of TOOLS, built with the processor's instruction sets."""
        home, stamp = self.folder / "llama.cpp", self.folder / "llama.cpp" / "options"
        options = llama_options()
        wanted = f"{self.llama_package} {options}"
        if not stamp.exists() or stamp.read_text() != wanted:
            self._build_llama(home, options)
            stamp.write_text(wanted)
        return home / "bin" / tool

    def _build_llama(self, home, options):
        say(f"building llama.cpp of {self.llama_package}: {', '.join(o for o, on in options.items() if on)}")
        source = self._llama_source(home)
        switches = [f"-D{option}={'ON' if on else 'OFF'}" for option, on in options.items()]
        with open(home / "build.log", "w") as log:
            run = lambda *command: subprocess.run([str(c) for c in command], stdout=log, stderr=log, check=True)
            try:
                run("cmake", "-S", source, "-B", home / "cmake", "-G", "Ninja", "-DCMAKE_BUILD_TYPE=Release",
                    "-DGGML_NATIVE=OFF", *switches, "-DBUILD_SHARED_LIBS=OFF", "-DLLAMA_BUILD_TESTS=OFF",
                    "-DLLAMA_BUILD_EXAMPLES=OFF", "-DLLAMA_BUILD_SERVER=OFF", "-DLLAMA_CURL=OFF", "-DLLAMA_OPENSSL=OFF")
                run("cmake", "--build", home / "cmake", "-j", CPUS, "--target", *TOOLS)
            except subprocess.CalledProcessError as error:
                raise Failed(f"llama.cpp does not build; see {home / 'build.log'}") from error
        (home / "bin").mkdir(exist_ok=True)
        for tool in TOOLS:
            shutil.copy2(home / "cmake" / "bin" / tool, home / "bin" / tool)

    def _llama_source(self, home):
        home.mkdir(exist_ok=True)
        if not list(home.glob("llama_cpp_python-*.tar.gz")):
            check([sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-binary", ":all:", "-d", home,
                   self.llama_package])
        (home / "source").mkdir(exist_ok=True)
        check(["tar", "-xzf", next(home.glob("llama_cpp_python-*.tar.gz")), "-C", home / "source", "--wildcards",
               "*/vendor/llama.cpp/*"])
        return next((home / "source").glob("*/vendor/llama.cpp"))
