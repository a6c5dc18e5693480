"""Compiles the kernel library with the C++ compiler that is there: three copies of the kernels, chosen at run time.

Only the standard library is imported, so that the package's build can run this file by itself.
"""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

NATIVE = Path(__file__).parent / "native"
LIBRARY = Path(__file__).parent / ("_kernels.dll" if sys.platform == "win32" else "_kernels.so")
SHARED = ("program.cpp", "ops.cpp", "pack.cpp", "masks.cpp", "team.cpp")
COMMON = ("-std=c++20", "-O3", "-ffp-contract=fast", "-fPIC", "-fvisibility=hidden", "-pthread")
# Name of the table of kernels, floats a vector, flags. Never -march=native: the file may run elsewhere.
X86 = (
    ("portable", 4, ()),
    ("avx2", 8, ("-mavx2", "-mfma")),
    (
        "avx512",
        16,
        ("-mavx512f", "-mavx512dq", "-mavx512bw", "-mavx512vl", "-mavx2", "-mfma", "-mprefer-vector-width=512"),
    ),
)
OTHER = (("portable", 4, ()),)


def compiler() -> str | None:
    """The C++ compiler: $CXX, else c++, g++ or clang++ on the path; None when there is none.

    >>> compiler() is None or isinstance(compiler(), str)
    True
    """
    names = (os.environ.get("CXX", ""), "c++", "g++", "clang++")
    return next((found for name in names if name and (found := shutil.which(name))), None)


def is_stale(library: Path = LIBRARY) -> bool:
    """Whether `library` is missing or older than a source."""
    sources = [path for path in NATIVE.iterdir() if path.suffix in {".cpp", ".h"}]
    return not library.exists() or library.stat().st_mtime < max(path.stat().st_mtime for path in sources)


def build(target: Path = LIBRARY, *, flags: Sequence[str] = (), main: Path | None = None) -> Path:
    """Compiles to the shared library `target`, or with `main` to a program; `flags` go to every step.

    Errors: FileNotFoundError without a compiler; subprocess.CalledProcessError, with what the compiler said.
    """
    cxx = compiler()
    if cxx is None:
        raise FileNotFoundError("no C++ compiler: set CXX, or install g++ or clang++")
    variants = X86 if platform.machine().lower() in {"x86_64", "amd64"} else OTHER
    with tempfile.TemporaryDirectory() as folder:
        jobs: list[tuple[Path, str, Sequence[str]]] = [(NATIVE / name, f"{name}.o", ()) for name in SHARED]
        jobs += [
            (NATIVE / "kernels.cpp", f"{name}.o", (f"-DTHR_VL={width}", f"-DTHR_KERNELS=kernels_{name}", *special))
            for name, width, special in variants
        ]
        jobs += [(main, "main.o", (f"-I{NATIVE}",))] if main else []

        def one(job: tuple[Path, str, Sequence[str]]) -> str:
            source, name, special = job
            result = str(Path(folder) / name)
            _run(cxx, *COMMON, *special, *flags, "-c", str(source), "-o", result)
            return result

        with ThreadPoolExecutor(os.cpu_count()) as pool:
            objects = list(pool.map(one, jobs))
        static = [] if main or sys.platform == "darwin" else ["-static-libstdc++", "-static-libgcc"]
        kind = [] if main else ["-shared"]
        fresh = target.with_name(f"{target.name}.{os.getpid()}")  # replaced at once: others may be loading it
        _run(cxx, *kind, *objects, *static, *flags, "-pthread", "-o", str(fresh))
        fresh.replace(target)
    return target


def _run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise subprocess.CalledProcessError(done.returncode, command, done.stdout, done.stderr)
