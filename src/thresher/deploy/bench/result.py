"""What a bench found: rows with every round, and what they mean against the best dense engine of their case."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any

from torch import nn

from thresher.deploy.bench.orders import LayerTime
from thresher.deploy.bench.patterns import NONE, Point, at_equal_accuracy, pattern_of
from thresher.errors import InputError

VERSION = 1
# Engines add up in another order; beyond this something else was computed.
TOLERANCE = {"float32": 1e-3, "bfloat16": 1e-1}
NOISY = 0.3


@dataclass(frozen=True, kw_only=True)
class Variant:
    """A model: bytes of the file that `thresher.save` writes, zeros among its matrices and kernels and the pattern that
    they have (see `thresher.deploy.bench.patterns`), accuracy in %."""

    bytes: int
    zeros: int
    entries: int
    accuracy: float | None
    pattern: str = NONE

    @classmethod
    def of(cls, model: nn.Module, size: int, accuracy: float | None) -> Variant:
        """Count a plain model."""
        weights = [parameter for parameter in model.parameters() if parameter.dim() >= 2]
        zeros = sum(int((weight == 0).sum()) for weight in weights)
        entries = sum(weight.numel() for weight in weights)
        return cls(bytes=size, zeros=zeros, entries=entries, accuracy=accuracy, pattern=pattern_of(model))


@dataclass(frozen=True, kw_only=True)
class Skipped:
    """What was not run, and why."""

    engine: str
    reason: str


@dataclass(frozen=True, kw_only=True)
class Row:
    """One engine on one model; `rounds`: seconds per call in each. `difference` from torch's float32 outputs.

    `layers`: each by itself, for as many samples as the engine takes at once (`note`), where the engine times them.
    """

    engine: str
    variant: str
    batch: int
    threads: int
    precision: str
    rounds: tuple[float, ...]
    difference: float
    note: str = ""
    build_seconds: float = 0.0
    layers: tuple[LayerTime, ...] = ()

    @property
    def seconds(self) -> float:
        """Median over the rounds."""
        return median(self.rounds)

    @property
    def case(self) -> tuple[str, int, int]:
        """(precision, threads, batch)."""
        return self.precision, self.threads, self.batch

    @property
    def agrees(self) -> bool:
        """Whether the outputs are those of torch, within what the precision allows."""
        return self.difference <= TOLERANCE[self.precision]

    @property
    def spread(self) -> float:
        """(third quartile − first) / median of the rounds."""
        ordered = sorted(self.rounds)
        quarter = len(ordered) // 4
        return (ordered[-1 - quarter] - ordered[quarter]) / self.seconds


@dataclass(frozen=True, kw_only=True)
class Bench:
    """All rows. `isolated`: each engine had a process of its own."""

    machine: Mapping[str, Any]
    engines: Mapping[str, str | None]
    variants: Mapping[str, Variant]
    rows: tuple[Row, ...]
    skipped: tuple[Skipped, ...]
    isolated: bool

    def cases(self) -> Iterator[list[Row]]:
        """Rows that may be compared with each other, in the order in which they were measured."""
        for case in dict.fromkeys(row.case for row in self.rows):
            yield [row for row in self.rows if row.case == case]

    def best_dense(self, rows: Sequence[Row]) -> Row | None:
        """The fastest engine on the dense model whose outputs agree."""
        dense = [row for row in rows if row.variant == "dense" and row.agrees]
        return min(dense, key=lambda row: row.seconds, default=None)

    def eager(self, rows: Sequence[Row]) -> Row | None:
        """Torch eager on the dense model."""
        return next((row for row in rows if row.variant == "dense" and row.engine == "torch"), None)

    def equal_accuracy(self, rows: Sequence[Row]) -> list[tuple[float, dict[str, float]]]:
        """Of rows of one case: accuracy to the speedup that each pattern has there, each model on its fastest engine;
        where the models of at least two patterns span that accuracy."""
        best, points = self.best_dense(rows), dict[str, list[Point]]()
        for name, variant in self.variants.items():
            speeds = [ratio(best, row) for row in rows if row.variant == name and row.agrees]
            known = [speed for speed in speeds if speed is not None]
            if name != "dense" and variant.accuracy is not None and known:
                points.setdefault(variant.pattern, []).append((variant.accuracy, max(known)))
        return at_equal_accuracy(points)

    def noisy(self) -> list[Row]:
        """Rows whose rounds scatter so much that a difference of a third means nothing."""
        return [row for row in self.rows if row.spread > NOISY]

    def to_dict(self) -> dict[str, Any]:
        """Plain data, with the speedups."""
        rows = []
        for case in self.cases():
            best, eager = self.best_dense(case), self.eager(case)
            for row in case:
                ratios = {"speedup": ratio(best, row), "speedup_over_torch": ratio(eager, row), "agrees": row.agrees}
                plain = {**asdict(row), "rounds": list(row.rounds), "layers": [asdict(one) for one in row.layers]}
                rows.append({**plain, "milliseconds": 1000 * row.seconds, **ratios})
        return {
            "version": VERSION,
            "machine": dict(self.machine),
            "engines": dict(self.engines),
            "variants": {name: asdict(variant) for name, variant in self.variants.items()},
            "rows": rows,
            "skipped": [asdict(one) for one in self.skipped],
            "isolated": self.isolated,
        }

    @classmethod
    def from_dict(cls, record: Mapping[str, Any]) -> Bench:
        """What `to_dict` wrote. Errors: InputError for another version."""
        if record.get("version") != VERSION:
            raise InputError(f"a bench of version {record.get('version')!r}", f"version {VERSION}", "measure again")
        derived = ("milliseconds", "speedup", "speedup_over_torch", "agrees")
        rows = [
            {**{key: value for key, value in row.items() if key not in derived}, "layers": _layers(row)}
            for row in record["rows"]
        ]
        return cls(
            machine=record["machine"],
            engines=record["engines"],
            variants={name: Variant(**variant) for name, variant in record["variants"].items()},
            rows=tuple(Row(**{**row, "rounds": tuple(row["rounds"])}) for row in rows),
            skipped=tuple(Skipped(**one) for one in record["skipped"]),
            isolated=record["isolated"],
        )


def _layers(row: Mapping[str, Any]) -> tuple[LayerTime, ...]:
    return tuple(LayerTime(**layer) for layer in row.get("layers", ()))


def ratio(baseline: Row | None, row: Row) -> float | None:
    """Median over the rounds of baseline / row, None without a baseline: above 1, `row` is the faster.

    >>> about = {"batch": 1, "threads": 1, "precision": "float32", "difference": 0.0}
    >>> a = Row(engine="torch", variant="dense", rounds=(2.0, 6.0, 3.0), **about)
    >>> ratio(a, Row(engine="thresher", variant="pruned", rounds=(1.0, 2.0, 1.0), **about))
    3.0
    """
    if baseline is None:
        return None
    return median(a / b for a, b in zip(baseline.rounds, row.rounds, strict=True))
