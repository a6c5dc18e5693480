"""Picks kernel, tile, blocks, thread split and chains of a program by timing, within a limit of seconds."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from thresher.deploy.engine.capturing.graph import Step
from thresher.deploy.engine.library import ISAS
from thresher.deploy.engine.programs.layout import Group, group, is_pointwise
from thresher.deploy.engine.programs.program import Blocking, Program, is_ranged

WIDTHS = {"portable": 4, "avx2": 8, "avx512": 16}
MOST = {"sparse": 14, "block4": 6, "bitmask": 2}
DENSE_FILL = 0.75  # of four rows' shared columns: above, only the 4x1 kernel is worth a trial
SPARSE_FILL = 0.27  # below, only the sparse one; one row of four alone is 0.25
L1 = 32 * 1024


@dataclass
class Tuner:
    """Timings are remembered by shape and density, so that equal layers are tried once."""

    limit: float = 3.0
    known: dict[tuple[object, ...], tuple[Blocking, float]] = field(default_factory=dict)
    started: float = field(default_factory=time.perf_counter)

    def over(self) -> bool:
        """Whether the time is up: what follows takes the first guess."""
        return time.perf_counter() - self.started > self.limit

    def tune(self, program: Program, weights: dict[int, Tensor], threads: int) -> dict[int, float]:
        """Packs every convolution, sets the chains; seconds of each step by itself."""
        steps = program.graph.steps
        singles = [Group(n, n + 1) for n in range(len(steps))]
        program.regroup(singles)
        seconds: dict[int, float] = {}
        for number, weight in weights.items():
            key = _key(program, steps[number], weight, threads)
            if key in self.known:
                blocking, seconds[number] = self.known[key]
                program.pack(number, blocking, weight)
                continue
            blocking, seconds[number] = self._one(program, number, weight, threads)
            if not self.over():
                self.known[key] = blocking, seconds[number]
        for number in range(len(steps)):
            if number not in seconds and not self.over():
                seconds[number] = program.time(number, number + 1, threads=threads, rounds=2)
        self._chain(program, seconds, threads)
        return seconds

    def _one(self, program: Program, number: int, weight: Tensor, threads: int) -> tuple[Blocking, float]:
        """Descends one choice at a time: kernel and tile, then channels, then rows or tiles, then the split."""

        def timed(blocking: Blocking, *, pack: bool = True) -> float:
            program.pack(number, blocking, weight if pack else None)
            taken = program.time(number, number + 1, threads=threads, rounds=2)
            repeats = max(1, min(50, int(2e-4 / max(taken, 1e-7))))
            return min(taken, program.time(number, number + 1, threads=threads, rounds=3, repeats=repeats))

        step = program.graph.steps[number]
        kernels = _kernels(weight, step)
        if program.takes_masks(number):
            kernels = ["bitmask"] if program.flat else ["bitmask", *kernels]
        if self.over():
            kernels = kernels[:1]
        out = program.graph.blobs[step.write]
        vectors = program.vectors[out.h, out.w] * (16 // WIDTHS[ISAS[program.isa]])
        best: tuple[float, Blocking] | None = None
        split = "rows" if threads > 1 and vectors < 8 * threads else "positions"
        share = vectors if split == "rows" else -(-vectors // threads)
        for kernel in kernels:
            packed = False
            for tile in (2, 1) if kernel == "bitmask" else _tiles(share, MOST[kernel], 4):
                start = Blocking(kernel=kernel, tile=tile, split=split, channels=_channels(program, step, tile)[0])
                if self.over() and best is None:
                    program.pack(number, start, weight)
                    return start, 0.0
                if packed and best is not None and best[1].channels == start.channels and best[1].kernel == kernel:
                    taken = timed(start, pack=False)
                else:
                    taken = timed(start)
                packed = True
                best = min(best or (taken, start), (taken, start), key=lambda pair: pair[0])
                if self.over():
                    break
        assert best is not None
        for change in self._changes(program, step, best[1], vectors, threads):
            if self.over() or best[1].kernel == "bitmask":
                break
            choice = replace(best[1], **change)  # type: ignore[arg-type]
            if choice != best[1]:
                best = min(best, (timed(choice), choice), key=lambda pair: pair[0])
        program.pack(number, best[1], weight)
        return best[1], best[0]

    def _changes(
        self, program: Program, step: Step, best: Blocking, vectors: int, threads: int
    ) -> Iterator[dict[str, object]]:
        for channels in _channels(program, step, best.tile)[1:]:
            yield {"channels": channels}
        if vectors > best.tile:
            yield {"rows": 1, "tiles": 0}
            yield {"rows": 32, "tiles": 4}
        if threads > 1:
            yield {"split": "rows" if best.split == "positions" else "positions"}

    def _chain(self, program: Program, seconds: dict[int, float], threads: int) -> None:
        """Times how many positions at a time each chain should work on."""
        chains = group(program.graph, program.vectors)
        for chain in chains:
            if chain.last - chain.first > 1:
                for n in range(chain.first, chain.last):
                    if program.blockings.get(n, Blocking()).split == "rows":
                        program.pack(n, replace(program.blockings[n], split="positions"), None)
        program.regroup(chains)
        stripes = [0] * len(chains)
        for at, chain in enumerate(chains):
            if chain.last - chain.first < 2 or self.over() or not is_ranged(program.graph.steps[chain.first]):
                continue
            step = program.graph.steps[chain.first]
            out = program.graph.blobs[step.write]
            share = -(-program.vectors[out.h, out.w] // threads)
            times = {}
            for parts in (1, 2, 4, 8):
                stripe = -(-share // parts)
                if parts > 1 and stripe < 12:
                    continue
                program.regroup(None, [*stripes[:at], stripe, *stripes[at + 1 :]])
                times[stripe] = program.time(at, at + 1, threads=threads, rounds=3)
            stripes[at] = min(times, key=lambda stripe: times[stripe])
        program.regroup(None, stripes)


def _key(program: Program, step: Step, weight: Tensor, threads: int) -> tuple[object, ...]:
    x, y = program.graph.blobs[step.reads[0]], program.graph.blobs[step.write]
    density = round(float((weight != 0).float().mean()), 1 if weight.numel() < 4096 else 2)
    attributes = step.attributes
    return (
        tuple(weight.shape), (x.h, x.w), (y.h, y.w), attributes["groups"], attributes["stride"], density,
        step.residual is None, step.activation, threads, program.images, program.lanes, program.isa, program.flat,
    )  # fmt: skip


def _kernels(weight: Tensor, step: Step) -> list[str]:
    """Which kernels are worth a trial, from how far neighbouring rows share their columns."""
    rows, groups = weight.shape[0], step.attributes["groups"]
    if (rows // groups % 4 and groups > 1) or rows < 4:
        return ["sparse"]
    whole = rows // 4 * 4
    nonzero = (weight[:whole] != 0).reshape(whole // 4, 4, -1)
    shared = int(nonzero.any(1).sum())
    if not shared:
        return ["sparse"]
    fill = int(nonzero.sum()) / (4 * shared)
    if fill >= DENSE_FILL:
        return ["block4"]
    return ["sparse"] if fill <= SPARSE_FILL else ["sparse", "block4"]


def _tiles(vectors: int, most: int, count: int) -> list[int]:
    """Tiles of equal size that cover `vectors`: the largest first.

    >>> _tiles(14, 14, 3)
    [14, 7, 5]
    """
    fewest = -(-vectors // most)
    found = dict.fromkeys(-(-vectors // parts) for parts in range(fewest, fewest + 8 * count))
    sizes = [tile for tile in found if tile >= min(3, vectors)]
    if vectors > 2 * most:  # enough tiles for the last one not to matter
        sizes = list(dict.fromkeys(min(size, most) for size in (most, most - 2, most // 2 + 1, most // 2)))
    return sizes[:count]


def _channels(program: Program, step: Step, tile: int) -> list[int]:
    """Sizes of a block of input channels: first the guess that fills half the L1 cache."""
    _, channels, kh, _ = step.attributes["shape"]
    if step.attributes["groups"] > 1:
        return [0]
    width = WIDTHS[ISAS[program.isa]] * 4
    bytes_each = tile * width * (1 if is_pointwise(step) else kh)
    fits = max(8, 1 << (max(1, L1 // bytes_each).bit_length() - 1))
    sizes = [size if size < channels else 0 for size in (2 * fits, 4 * fits, fits, 16 * fits)]
    return list(dict.fromkeys(sizes))


def dense_seconds(step: Step, x: tuple[int, int], rounds: int = 3) -> float:
    """Seconds of torch's own dense convolution or product of this shape, for one picture: the report's comparison."""
    clock = time.process_time if torch.get_num_threads() == 1 else time.perf_counter
    a = step.attributes
    rows, channels, kh, kw = a["shape"]
    weight, bias = torch.randn(rows, channels, kh, kw), torch.zeros(rows)
    with torch.no_grad():
        if (kh, kw) == (1, 1) and x[0] == 1:
            source, flat = torch.randn(x[1], channels), weight.flatten(1)
            call = lambda: torch.nn.functional.linear(source, flat, bias)  # noqa: E731
        else:
            image = torch.randn(1, channels * a["groups"], *x)
            call = lambda: torch.nn.functional.conv2d(  # noqa: E731
                image, weight, bias, a["stride"], a["pad"], a["dilation"], a["groups"]
            )
        times = []
        for _ in range(rounds + 1):
            start = clock()
            call()
            times.append(clock() - start)
    return min(times[1:])
