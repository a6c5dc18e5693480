"""What speed zeros may bring on this machine, from a short measurement of one residual block."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn

from thresher.deploy.bench.comparing import Told, compare
from thresher.deploy.bench.engines import pick
from thresher.deploy.bench.machine import cores
from thresher.deploy.bench.orders import BFLOAT16, FLOAT32, Engine
from thresher.deploy.bench.result import NOISY, Bench, ratio

# Pattern and share of zeros; None: no zeros, but half the inner channels, which any engine can use.
PATTERNS: tuple[tuple[str, float | None], ...] = (
    ("free form", 0.8),
    ("free form", 0.9),
    ("free form", 0.95),
    ("block:4x1", 0.8),
    ("block:4x1", 0.9),
    ("2:4", 0.5),
    ("half the channels", None),
)
SPARSE_ENGINE = "thresher"
_SIZE = (1, 256, 14, 14)


@dataclass(frozen=True, kw_only=True)
class Expected:
    """`speedup` of the fastest engine on this pattern over the best dense engine; `low`, `high` over the rounds."""

    pattern: str
    sparsity: float | None
    engine: str
    speedup: float
    low: float
    high: float


@dataclass(frozen=True, kw_only=True)
class Expectation:
    """`best_dense`: the engine to beat and its milliseconds. `bfloat16`: how much faster dense bfloat16 is than it.

    `noise`: scatter of the rounds, the median over all rows; `load`: of the machine, before the measurement.
    """

    expected: tuple[Expected, ...]
    best_dense: str
    milliseconds: float
    bfloat16: float | None
    noise: float
    load: float | None
    bench: Bench

    @property
    def too_noisy(self) -> bool:
        """Whether the figures mean nothing: the rounds scatter, or others hold the processor."""
        return self.noise > NOISY or (self.load is not None and self.load > 1.5 * cores())

    def to_dict(self) -> dict[str, Any]:
        """Plain data."""
        return {
            "expected": [asdict(one) for one in self.expected],
            "best_dense": self.best_dense,
            "milliseconds": self.milliseconds,
            "bfloat16": self.bfloat16,
            "noise": self.noise,
            "load": self.load,
            "too_noisy": self.too_noisy,
            "skipped": [asdict(one) for one in self.bench.skipped],
        }


def expect(
    engines: Sequence[Engine] | None = None,
    *,
    rounds: int = 7,
    min_time: float = 0.02,
    size: tuple[int, int, int, int] = _SIZE,
    told: Told | None = None,
) -> Expectation:
    """Time a residual block (1x1, 3x3, 1x1) of `size`, one image, one thread: dense, and with zeros in each pattern.

    About ten seconds on a quiet machine. Random masks: an engine does not ask what a weight was. Dense engines run the
    dense block and the one with half the channels; zeros make no difference to them (`thresher bench` measures that).
    """
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else None
    chosen = pick("torch,onnxruntime,openvino,thresher") if engines is None else list(engines)
    channels = size[1]
    models: dict[str, nn.Module] = {"dense": block(channels, channels // 4)}
    keys: dict[str, tuple[str, float | None]] = {}
    for pattern, sparsity in PATTERNS:
        key = pattern if sparsity is None else f"{pattern} {sparsity:.0%}"
        keys[key] = pattern, sparsity
        model = models[key] = block(channels, channels // (8 if sparsity is None else 4))
        if sparsity is not None:
            _prune(model, pattern, sparsity)

    def wanted(engine: str, name: str) -> bool:
        return engine == SPARSE_ENGINE or name == "dense" or keys[name][1] is None

    bench = compare(
        models,
        torch.randn(size, generator=torch.Generator().manual_seed(0)),
        chosen,
        batches=(1,),
        precisions=(FLOAT32, BFLOAT16),
        rounds=rounds,
        min_time=min_time,
        isolate=False,  # one thread each: no pools that could disturb each other
        wanted=wanted,
        told=told,
    )
    return _read(bench, keys, load)


def block(channels: int, inner: int) -> nn.Sequential:
    """1x1 to `inner` channels, 3x3, 1x1 back: the layers that most of a ResNet consists of."""
    torch_state = torch.random.get_rng_state()
    torch.manual_seed(0)
    layers = nn.Sequential(
        nn.Conv2d(channels, inner, 1),
        nn.ReLU(),
        nn.Conv2d(inner, inner, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(inner, channels, 1),
    )
    torch.random.set_rng_state(torch_state)
    return layers.eval()


def random_mask(shape: tuple[int, ...], pattern: str, sparsity: float, generator: torch.Generator) -> Tensor:
    """True where a weight stays: `free form`, `block:4x1` (four neighbouring outputs) or `2:4` (of four inputs).

    >>> random_mask((4, 8), "2:4", 0.5, torch.Generator().manual_seed(0)).sum(1).tolist()
    [4, 4, 4, 4]
    """
    out, rest = shape[0], int(torch.Size(shape[1:]).numel())
    if pattern == "2:4":
        order = torch.rand(out, shape[1] // 4, 4, rest // shape[1], generator=generator).argsort(2).argsort(2)
        return (order < 2).reshape(shape)
    rows = out // 4 if pattern == "block:4x1" else out
    scores = torch.rand(rows * rest, generator=generator)
    kept = (scores.argsort().argsort() >= round(sparsity * len(scores))).reshape(rows, rest)
    return kept.repeat_interleave(out // rows, 0).reshape(shape)


def _prune(model: nn.Module, pattern: str, sparsity: float) -> None:
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for layer in model.modules():
            if isinstance(layer, nn.Conv2d):
                keep = random_mask(tuple(layer.weight.shape), pattern, sparsity, generator)
                layer.weight.copy_(torch.where(keep, layer.weight, 0))


def _read(bench: Bench, keys: dict[str, tuple[str, float | None]], load: float | None) -> Expectation:
    cases = {case[0].precision: case for case in bench.cases()}
    rows = cases[FLOAT32]
    best = bench.best_dense(rows)
    assert best is not None, "torch is always there, and agrees with itself"
    found = []
    for key, (pattern, sparsity) in keys.items():
        here = [row for row in rows if row.variant == key and row.agrees]
        if not here:
            continue
        row = min(here, key=lambda row: row.seconds)
        ratios = [a / b for a, b in zip(best.rounds, row.rounds, strict=True)]
        gain = ratio(best, row) or 0.0
        found.append(
            Expected(
                pattern=pattern, sparsity=sparsity, engine=row.engine, speedup=gain, low=min(ratios), high=max(ratios)
            )
        )
    half = bench.best_dense(cases.get(BFLOAT16, []))
    spreads = sorted(row.spread for row in bench.rows)
    return Expectation(
        expected=tuple(found),
        best_dense=best.engine,
        milliseconds=1000 * best.seconds,
        bfloat16=None if half is None else best.seconds / half.seconds,
        noise=spreads[len(spreads) // 2],
        load=load,
        bench=bench,
    )
