"""What `sensitivity` found: one curve per layer, what it says of the layer, as a table and as JSON."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from thresher.budget.counts import kept_count
from thresher.budget.report import aligned, write_text
from thresher.errors import InputError

VERSION = 1


@dataclass(frozen=True, kw_only=True)
class CurvePoint:
    """One measurement. `asked`: the sparsity asked for; `sparsity`: the zeros that the layer then had, as a share (less
    than asked where guards or rules forbid more); `value`: the metric, minus infinity where it was not a number."""

    asked: float
    sparsity: float
    value: float


@dataclass(frozen=True, kw_only=True)
class LayerCurve:
    """The metric while this tensor alone is pruned. `zeros`: those that it had before; points by rising sparsity."""

    name: str
    shape: tuple[int, ...]
    entries: int
    zeros: int
    points: tuple[CurvePoint, ...]

    def held_back(self, point: CurvePoint) -> bool:
        """Whether a pattern, a guard or a rule kept entries that the sparsity asked for would have taken."""
        return round(point.sparsity * self.entries) < self.entries - kept_count(point.asked, self.entries)


@dataclass(frozen=True, kw_only=True)
class Sensitivity:
    """How the metric falls when each layer is pruned alone, in one shot, without training.

    Args:
        dense: the metric of the network as it was, higher is better.
        sparsities: the shares of zeros that were asked for, rising.
        layers: one curve per prunable tensor, in module order.
        groups: what was pruned as one.
        skipped: tensors left out, and why.
        about: what was measured, in the caller's words (network, data, images), JSON-ready.
    """

    dense: float
    sparsities: tuple[float, ...]
    layers: tuple[LayerCurve, ...]
    groups: str = "weight"
    skipped: tuple[tuple[str, str], ...] = ()
    about: Mapping[str, Any] = field(default_factory=dict)

    def layer(self, name: str) -> LayerCurve:
        """The curve of the tensor `name`. Errors: InputError naming the layers that there are."""
        for layer in self.layers:
            if layer.name == name:
                return layer
        raise InputError(f"layer {name!r}", f"one of {', '.join(each.name for each in self.layers)}", "correct it")

    def safe_sparsity(self, layer: str, drop: float) -> float:
        """The sparsity at which the metric has first fallen by `drop`, linear between the points that were measured.

        Units: `drop` in those of the metric, not negative; a share of zeros comes back. The curve begins at the
        zeros that the layer had, with the dense metric. A layer that never falls so far is safe up to the most that
        was measured. Source: choice.

        >>> point = CurvePoint(asked=0.5, sparsity=0.5, value=88.0)
        >>> curve = LayerCurve(name="fc.weight", shape=(2, 2), entries=4, zeros=0, points=(point,))
        >>> Sensitivity(dense=90.0, sparsities=(0.5,), layers=(curve,)).safe_sparsity("fc.weight", drop=1.0)
        0.25
        """
        floor = self._floor(drop)
        curve = self.layer(layer)
        at, value = curve.zeros / max(curve.entries, 1), self.dense
        for point in curve.points:
            if point.value < floor:
                # Minus infinity has no slope: nothing is known to be safe beyond the point before.
                share = (value - floor) / (value - point.value) if math.isfinite(point.value) else 0.0
                return at + share * (point.sparsity - at)
            at, value = point.sparsity, point.value
        return at

    def fragile(self, drop: float) -> tuple[str, ...]:
        """Names of the layers that cannot be pruned alone: at the smallest sparsity the metric falls by more than
        `drop`."""
        floor = self._floor(drop)
        return tuple(layer.name for layer in self.layers if layer.points[0].value < floor)

    def table(self, drop: float | None = None) -> str:
        """Aligned text: a row per layer, the metric at each sparsity, with `drop` the safe sparsity too.

        A star marks a value measured at less than the sparsity asked, see `LayerCurve.held_back`.
        """
        head = ["layer", "entries", *(percent(share) for share in self.sparsities)]
        rows = [head + (["safe sparsity"] if drop is not None else [])]
        for layer in self.layers:
            row = [layer.name, f"{layer.entries:,}"]
            row += [f"{point.value:.2f}" + "*" * layer.held_back(point) for point in layer.points]
            if drop is not None:
                safe = self.safe_sparsity(layer.name, drop)
                end = safe == layer.points[-1].sparsity and layer.points[-1].value >= self.dense - drop
                row.append((">=" if end else "") + percent(safe, 1))
            rows.append(row)
        lines = aligned(rows)
        for layer in self.layers:
            if layer.held_back(layer.points[-1]):
                most = percent(layer.points[-1].sparsity, 2)
                lines.append(f"* {layer.name}: at most {most}, its pattern, a guard or a rule keeps the rest")
        return "\n".join(lines)

    def to_dict(self) -> dict[str, Any]:
        """Plain data, JSON-ready, with a version; minus infinity becomes null."""
        record = {"version": VERSION, "kind": "sensitivity", **asdict(self), "about": dict(self.about)}
        for layer in record["layers"]:
            for point in layer["points"]:
                point["value"] = point["value"] if math.isfinite(point["value"]) else None
        return record

    @classmethod
    def from_dict(cls, record: Mapping[str, Any]) -> Sensitivity:
        """The record that `to_dict` wrote, also when it went through JSON.

        Errors: InputError on another version or kind, and on records that are incomplete.
        """
        fields = dict(record)
        if (fields.pop("version", None), fields.pop("kind", None)) != (VERSION, "sensitivity"):
            raise InputError(
                f"a record of kind {record.get('kind')!r}, version {record.get('version')!r}",
                f"kind 'sensitivity', version {VERSION}",
                "pass what Sensitivity.save wrote, or use the release of thresher that wrote it",
            )
        try:
            layers = tuple(_layer(row) for row in fields.pop("layers"))
            skipped = tuple((name, reason) for name, reason in fields.pop("skipped", ()))
            return cls(**{**fields, "sparsities": tuple(fields["sparsities"]), "layers": layers, "skipped": skipped})
        except (KeyError, TypeError, ValueError) as error:
            raise InputError(
                f"a sensitivity record that cannot be read ({error})", "what Sensitivity.save wrote", "measure it again"
            ) from error

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write it as JSON: whole, or not at all. Errors: InputError when the path cannot be written."""
        write_text(Path(path), json.dumps(self.to_dict(), indent=1))

    def _floor(self, drop: float) -> float:
        if not 0 <= drop < math.inf:
            raise InputError(f"drop={drop!r}", "a finite number, not negative, in units of the metric", "correct drop")
        return self.dense - drop


def percent(share: float, digits: int | None = None) -> str:
    """`percent(0.9)` is "90%"; with `digits`, that many after the point."""
    return f"{100 * share:.6g}%" if digits is None else f"{100 * share:.{digits}f}%"


def _layer(row: Mapping[str, Any]) -> LayerCurve:
    points = tuple(
        CurvePoint(**{**point, "value": -math.inf if point["value"] is None else point["value"]})
        for point in row["points"]
    )
    return LayerCurve(**{**row, "shape": tuple(row["shape"]), "points": points})
