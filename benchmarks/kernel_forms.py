"""What the weights of a free-form sparse product should be: float32, pairs in bfloat16, quads in 8 bits.

    python benchmarks/kernel_forms.py        # a quarter of a minute; benchmarks/results/kernel_forms.json

The engine's kernel multiplies one float32 value at a time and finds its input by a 32-bit offset: 8 bytes. Processors
with dot products multiply two bfloat16 or four 8-bit values at once, if the inputs of two or four channels lie
interleaved. Then a unit of two or four weights is stored as soon as one of them is not zero. This times the bare
product, the same kernel in every form and with offsets of 32 and 16 bits. Inputs are interleaved and rounded
beforehand, which a network would have to pay for; taps of the 3x3 layer are read from planes of their own. Beside
them torch's dense product of the same layer with no zeros skipped, in bfloat16 and in 8 bits: what a sparse product in
fewer bits has to beat.

Zeros at random; blocks of input channels of four sizes, the fastest counts. Enough copies of the weights take turns
that none waits in the second-level cache. One thread, processor time, forms in turn, medians over rounds. Needs g++
and a processor with AVX-512, VNNI and bfloat16.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import subprocess
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from engine import processor

SOURCE = Path(__file__).parent / "native" / "kernel_forms.cpp"
RESULTS = Path(__file__).parent / "results" / "kernel_forms.json"
FLAGS = ("-O3", "-std=c++17", "-shared", "-fPIC", "-mavx512f", "-mavx512bw", "-mavx512vnni", "-mavx512bf16")
FORMS = {"float32": (0, 1), "bfloat16 pairs": (1, 2), "8-bit quads": (2, 4)}
# rows, columns, positions
LAYERS = {
    "FFN 768 to 3072, 128 tokens": (3072, 768, 128),
    "1x1, 1024 to 256, 14 x 14": (256, 1024, 208),
    "3x3, 512 to 512, 7 x 7": (512, 4608, 64),
}
BLOCKS = (64, 128, 256, 8192)
CACHES = 16 << 20  # bytes of copies that take turns


def built(folder: Path) -> ctypes.CDLL:
    """The compiled product."""
    library = folder / "kernel_forms.so"
    subprocess.run(["g++", *FLAGS, str(SOURCE), "-o", str(library)], check=True)
    return ctypes.CDLL(str(library))


def lines(values: torch.Tensor) -> torch.Tensor:
    """`values`, copied to where a line of 64 bytes begins."""
    room = torch.empty(values.numel() * values.element_size() + 64, dtype=torch.uint8)
    start = -room.data_ptr() % 64
    place = room[start : start + values.numel() * values.element_size()].view(values.dtype).view(values.shape)
    return place.copy_(values)


class Product:
    """One layer in one form with one block size: packed weights, interleaved inputs, the right answer."""

    def __init__(self, form: str, bits: int, weight: torch.Tensor, x: torch.Tensor, block: int) -> None:
        (self.number, unit), self.bits = FORMS[form], bits
        rows, columns = weight.shape
        positions = x.shape[1]
        self.rows, self.vectors = rows, positions // 16
        kind = {1: torch.float32, 2: torch.bfloat16, 4: torch.int8}[unit]
        stored = weight.to(kind) if unit < 4 else weight.round().to(kind)
        inputs = x.to(kind) if unit < 4 else x.round().clamp(0, 127).to(torch.uint8)
        self.right = stored.double() @ inputs.double()
        # (unit, position, channel within the unit)
        self.x = lines(inputs.view(columns // unit, unit, positions).transpose(1, 2).contiguous())
        units = stored.view(rows, columns // unit, unit)
        there = (units != 0).any(2).numpy()
        words = units.contiguous().view(torch.int32).reshape(rows, -1).numpy()
        per_block = max(block // unit, 1)
        values, offsets, starts = [], [], []
        self.blocks, total = 0, 0
        for first in range(0, there.shape[1], per_block):
            part = there[:, first : first + per_block]
            row, column = np.nonzero(part)
            values.append(words[row, first + column])
            offsets.append((first + column) * self.vectors * (1 if bits == 16 else 64))
            starts.append(total + np.concatenate([[0], part.sum(1).cumsum()]))
            total, self.blocks = total + len(row), self.blocks + 1
        self.units = total
        packed = np.concatenate(values), np.concatenate(offsets).astype({16: np.uint16, 32: np.int32}[bits])
        self.bytes = sum(array.nbytes for array in packed)
        copies = max(CACHES // self.bytes, 1)
        self.packed = [tuple(lines(torch.from_numpy(array)) for array in packed) for _ in range(copies)]
        self.starts = torch.from_numpy(np.concatenate(starts).astype(np.uint32).view(np.int32))
        self.y = lines(torch.zeros(rows, positions, dtype=torch.int32 if unit == 4 else torch.float32))
        self.turn = 0

    def __call__(self, library: ctypes.CDLL) -> None:
        """Once, with the next copy of the weights."""
        values, offsets = self.packed[self.turn % len(self.packed)]
        self.turn += 1
        pointers = [ctypes.c_void_p(t.data_ptr()) for t in (values, offsets, self.starts, self.x, self.y)]
        failed = library.product(
            self.number, self.bits, self.vectors, *pointers[:3], self.rows, self.blocks, *pointers[3:]
        )
        if failed:
            raise ValueError(f"{self.vectors} vectors of positions; expected: 4, 8 or 13")

    def error(self) -> float:
        """Largest difference from the right answer, relative to the largest output."""
        return float((self.y.double() - self.right).abs().max() / self.right.abs().max())

    def seconds(self, library: ctypes.CDLL, calls: int) -> float:
        """Processor seconds of one call."""
        started = time.process_time()
        for _ in range(calls):
            self(library)
        return (time.process_time() - started) / calls


def dense(weight: torch.Tensor, x: torch.Tensor) -> dict[str, Callable[[], torch.Tensor]]:
    """The whole product in torch, positions first, weights packed beforehand: bfloat16, and 8 bits to float32."""
    rows = len(weight)
    narrow, inputs = weight.bfloat16().t(), x.bfloat16().t().contiguous()
    packed = torch.ops.onednn.qlinear_prepack(weight.round().to(torch.int8), [x.shape[1], x.shape[0]])
    bytes_of = x.round().clamp(0, 127).to(torch.uint8).t().contiguous()
    scales, zeros = torch.ones(rows), torch.zeros(rows, dtype=torch.int64)
    plain = (None, 1.0, 0, torch.float32, "none", [], "")
    return {
        "dense bfloat16": partial(torch.mm, inputs, narrow),
        "dense 8 bits": partial(torch.ops.onednn.qlinear_pointwise, bytes_of, 1.0, 0, packed, scales, zeros, *plain),
    }


def measure(library: ctypes.CDLL, layer: str, sparsity: float, rounds: int) -> list[dict[str, Any]]:
    """A row for each form."""
    rows, columns, positions = LAYERS[layer]
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(rows, columns, generator=generator) * 20
    weight[weight.round() == 0] = 1.0  # what 8 bits would round away
    weight[torch.rand(rows, columns, generator=generator) < sparsity] = 0
    x = torch.rand(columns, positions, generator=generator) * 127
    found = []
    for form in FORMS:
        for bits in (32, 16):
            tried = [Product(form, bits, weight, x, block) for block in BLOCKS]
            for product in tried:
                product(library)
                assert product.error() < 1e-5, (form, bits, product.error())
            fastest = min(tried, key=lambda product: min(product.seconds(library, 3) for _ in range(3)))
            found.append((form, bits, fastest))
    calls: list[Callable[[], float]] = [partial(product.seconds, library, 10) for _, _, product in found]
    whole = dense(weight, x)
    calls += [partial(seconds, call) for call in whole.values()]
    times: list[list[float]] = [[] for _ in calls]
    for turn in range(rounds):
        for step in range(len(calls)):
            which = (turn + step) % len(calls)
            times[which].append(calls[which]())
    rivals = [
        {
            "layer": layer, "sparsity": sparsity, "form": form, "milliseconds": round(1e3 * median(taken), 4),
            "over_float32": round(median(p / t for p, t in zip(times[0], taken, strict=True)), 3),
        }
        for form, taken in zip(whole, times[len(found) :], strict=True)
    ]  # fmt: skip
    return [
        {
            "layer": layer, "sparsity": sparsity, "form": form, "offset_bits": bits,
            "units": product.units, "weights": int((weight != 0).sum()), "bytes": product.bytes,
            "milliseconds": round(1e3 * median(taken), 4),
            "over_float32": round(median(p / t for p, t in zip(times[0], taken, strict=True)), 3),
            "gflops": round(2e-9 * int((weight != 0).sum()) * positions / median(taken), 1),
        }
        for (form, bits, product), taken in zip(found, times, strict=False)
    ] + rivals  # fmt: skip


def seconds(call: Callable[[], torch.Tensor]) -> float:
    """Processor seconds of one call, of ten."""
    started = time.process_time()
    for _ in range(10):
        call()
    return (time.process_time() - started) / 10


def main() -> None:
    """All layers and sparsities."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sparsities", nargs="+", type=float, default=[0.8, 0.9, 0.95])
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--out", type=Path, default=RESULTS)
    args = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        library = built(Path(folder))
        rows = []
        for layer in LAYERS:
            for sparsity in args.sparsities:
                rows += measure(library, layer, sparsity, args.rounds)
                for row in rows[-8:]:
                    print(json.dumps(row), flush=True)
    args.out.write_text(json.dumps({"processor": processor(), "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
