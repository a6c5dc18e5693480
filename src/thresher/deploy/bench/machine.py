"""What this machine is: processor, instructions, cores, memory, compiler."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

# Flags as Linux spells them, in the order in which a kernel would prefer them.
INSTRUCTIONS = {
    "AMX int8": "amx_int8",
    "AMX bf16": "amx_bf16",
    "AVX-512": "avx512f",
    "AVX-512 bf16": "avx512_bf16",
    "AVX-512 VNNI": "avx512_vnni",
    "AVX-VNNI": "avx_vnni",
    "AVX2": "avx2",
    "FMA": "fma",
    "SVE": "sve",
    "NEON": "asimd",
    "NEON bf16": "bf16",
}


@dataclass(frozen=True, kw_only=True)
class Machine:
    """`cores`: those that this process may use. `memory`: bytes, None where the system does not say."""

    processor: str
    system: str
    instructions: tuple[str, ...]
    cores: int
    memory: int | None
    compiler: str | None
    load: float | None

    def to_dict(self) -> dict[str, Any]:
        """Plain data."""
        return {**asdict(self), "instructions": list(self.instructions)}


def machine() -> Machine:
    """This machine, as the operating system describes it."""
    flags, name = _processor(Path("/proc/cpuinfo"))
    return Machine(
        processor=name,
        system=f"{platform.system()} {platform.machine()}",
        instructions=instructions_in(flags),
        cores=cores(),
        memory=_memory(),
        compiler=compiler(),
        load=os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
    )


def cores() -> int:
    """Cores that this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def instructions_in(flags: set[str]) -> tuple[str, ...]:
    """The instruction sets that matter here.

    >>> instructions_in({"avx2", "fma", "sse"})
    ('AVX2', 'FMA')
    """
    return tuple(name for name, flag in INSTRUCTIONS.items() if flag in flags)


@cache
def compiler() -> str | None:
    """First line of `c++ --version`, None without a compiler."""
    path = next(
        (found for name in (os.environ.get("CXX"), "c++", "g++", "clang++") if name and (found := shutil.which(name))),
        None,
    )
    if path is None:
        return None
    try:
        done = subprocess.run([path, "--version"], capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.SubprocessError):
        return None
    return (done.stdout.splitlines() or [Path(path).name])[0].strip() if done.returncode == 0 else None


def _processor(file: Path) -> tuple[set[str], str]:
    flags: set[str] = set()
    name = platform.processor() or platform.machine()
    try:
        text = file.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return flags, name
    for line in text.splitlines():
        key, _, value = line.partition(":")
        if key.strip().lower() in ("flags", "features") and not flags:
            flags = set(value.split())
        elif key.strip().lower() == "model name":
            name = value.strip()
    return flags, name


def _memory() -> int | None:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return None
