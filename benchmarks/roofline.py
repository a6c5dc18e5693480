"""What loads and multiply-adds allow: the least time in which a masked network could run on this processor.

A weight that is not zero costs one multiply-add of a vector of 16 floats for every 16 output positions. In free form
each of them reads its input from memory; where four output channels share their zeros, or there are none, one read
serves four. `rates` measures how many of either a thread does in a second, on registers and from the first-level
cache, aligned; `least_seconds` adds up, layer by layer, the longer of the two. Caches that miss, taps that straddle two
lines, activations, pooling and half-empty vectors are all above this bound.

    python benchmarks/roofline.py       # the rates of this machine
"""

from __future__ import annotations

import ctypes
import subprocess
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path

import torch
from torch import Tensor, nn

from thresher.budget.counts import count_positions, counted_weights

SOURCE = Path(__file__).parent / "native" / "roofline.cpp"
LANES = 16
FLAGS = ("-O3", "-std=c++17", "-shared", "-fPIC", "-ffp-contract=fast", "-mavx512f", f"-DTHR_VL={LANES}")
ROUNDS = 200_000  # of 192 multiply-adds: some hundredths of a second


@cache
def _library() -> ctypes.CDLL:
    with tempfile.TemporaryDirectory() as folder:
        built = Path(folder) / "roofline.so"
        subprocess.run(["g++", *FLAGS, str(SOURCE), "-o", str(built)], check=True)
        library = ctypes.CDLL(str(built))
    library.multiply_adds.restype = ctypes.c_int64
    library.multiply_adds.argtypes = [ctypes.c_int, ctypes.c_int64, ctypes.c_void_p, ctypes.c_void_p]
    return library


def rates(threads: int) -> dict[str, float]:
    """Vector multiply-adds a second of all `threads` together: on "registers", and with "loads". Best of five."""
    library = _library()
    memory = [torch.full((4096,), 1e-3) for _ in range(threads)]
    aligned = [m.data_ptr() + (-m.data_ptr()) % 64 for m in memory]

    def one(loads: int, place: int) -> int:
        return int(library.multiply_adds(loads, ROUNDS, place, place + 64 * 224))

    found = {}
    with ThreadPoolExecutor(threads) as pool:
        for name, loads in (("registers", 0), ("loads", 1)):
            best = 0.0
            for _ in range(5):
                started = time.perf_counter()
                done = sum(pool.map(lambda place, loads=loads: one(loads, place), aligned))
                best = max(best, done / (time.perf_counter() - started))
            found[name] = best
    return found


def least_seconds(model: nn.Module, example: Tensor, blocks: bool, rate: dict[str, float]) -> float:
    """Of one call of `model` on `example`; `blocks`: four neighbouring output channels share their zeros."""
    positions = count_positions(model, example)
    total = 0.0
    for name, (module, tensor) in counted_weights(model).items():
        weight = getattr(module, tensor)
        nonzeros = int((weight != 0).sum())
        vectors = nonzeros * positions[name] * len(example) / LANES
        shared = (blocks and len(weight) % 4 == 0) or nonzeros == weight.numel()
        total += max(vectors / rate["registers"], vectors / (4 if shared else 1) / rate["loads"])
    return total


if __name__ == "__main__":
    for threads in (1, 2):
        print(threads, {name: f"{rate / 1e9:.2f} G/s" for name, rate in rates(threads).items()})
