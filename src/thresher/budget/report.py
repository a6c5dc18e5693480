"""What was asked and what was got: a record per layer and in total, as a table and as JSON."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from thresher.budget.latency import milliseconds
from thresher.budget.rich_text import html_table
from thresher.errors import InputError


@dataclass(frozen=True, kw_only=True)
class LayerReport:
    """One tensor: entries and exact zeros, multiply-adds dense and left (None when unknown), bytes in the file."""

    name: str
    shape: tuple[int, ...]
    entries: int
    zeros: int
    macs: float | None
    macs_left: float | None
    bytes: int

    @property
    def sparsity(self) -> float:
        """Share of zeros in [0, 1]."""
        return self.zeros / self.entries if self.entries else 0.0


@dataclass(frozen=True, kw_only=True)
class Report:
    """The outcome of a pruning run.

    `asked` is the budget as text, `got` the measured value of each of its terms; `touched` counts entries
    whose keep-or-prune state the final projection changed. `skipped` names weights left out and why.
    `latency`, where that was asked, in seconds: the limit, the network as it was given (dense), what the table of
    layers says of the pruned one (predicted) and what that took (measured); engine and threads.
    `l1` is the L1 coefficient that the run stood for: its median, and lowest and highest as shares of it (see
    `thresher.diagnostics.l1_spread`; None when no threshold moved with training).
    Zeros are counted on the exported weights. `params` counts non-zero parameters of the whole model.
    """

    method: str
    asked: str
    got: Mapping[str, float]
    layers: tuple[LayerReport, ...]
    params: int
    total_params: int
    macs: float | None
    total_macs: float | None
    bytes: int
    dense_bytes: int
    touched: int = 0
    skipped: tuple[tuple[str, str], ...] = ()
    notes: tuple[str, ...] = ()
    latency: Mapping[str, Any] | None = None
    l1: Mapping[str, float] | None = None

    @property
    def entries(self) -> int:
        """Entries of the prunable tensors."""
        return sum(layer.entries for layer in self.layers)

    @property
    def zeros(self) -> int:
        """Exact zeros among them."""
        return sum(layer.zeros for layer in self.layers)

    @property
    def sparsity(self) -> float:
        """Zeros over entries of the prunable tensors."""
        return self.zeros / self.entries if self.entries else 0.0

    def to_dict(self) -> dict[str, Any]:
        """Plain data, JSON-ready, with a version."""
        return {"version": 1, "sparsity": self.sparsity, "zeros": self.zeros, "entries": self.entries, **asdict(self)}

    @classmethod
    def from_dict(cls, record: Mapping[str, Any]) -> Report:
        """The report that `to_dict` wrote. Errors: InputError on another version."""
        fields = {key: value for key, value in record.items() if key not in ("sparsity", "zeros", "entries")}
        if fields.pop("version", None) != 1:
            raise InputError("a report of another version", "version 1", "use the release of thresher that wrote it")
        fields["layers"] = tuple(LayerReport(**{**row, "shape": tuple(row["shape"])}) for row in fields["layers"])
        fields["skipped"] = tuple((name, reason) for name, reason in fields.get("skipped", ()))
        fields["notes"] = tuple(fields.get("notes", ()))
        return cls(**fields)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the report as JSON, to a temporary name first."""
        write_text(Path(path), json.dumps(self.to_dict(), indent=1))

    def _rows(self) -> list[tuple[str, ...]]:
        rows = [("tensor", "shape", "entries", "zeros", "sparsity", "MACs left", "bytes")]
        for layer in self.layers:
            left = "?" if layer.macs_left is None else f"{layer.macs_left:,.0f}"
            shape = "x".join(map(str, layer.shape))
            counts = (f"{layer.entries:,}", f"{layer.zeros:,}", f"{layer.sparsity:.2%}", left, f"{layer.bytes:,}")
            rows.append((layer.name, shape, *counts))
        left = "?" if self.macs is None else f"{self.macs:,.0f}"
        counts = (f"{self.entries:,}", f"{self.zeros:,}", f"{self.sparsity:.4%}", left, f"{self.bytes:,}")
        return [*rows, ("total", "", *counts)]

    def _lines(self) -> list[str]:
        left = "?" if self.macs is None else f"{self.macs:,.0f}"
        got = ", ".join(f"{name}={value:.6g}" for name, value in self.got.items())
        share = f" = {self.macs / self.total_macs:.2%} of dense" if self.macs is not None and self.total_macs else ""
        lines = [
            f"method {self.method}; asked {self.asked}; got {got}",
            f"the final projection changed {self.touched:,} of {self.entries:,} entries "
            f"({self.touched / max(self.entries, 1):.3%})",
            f"whole model: {self.params:,} of {self.total_params:,} parameters non-zero, {left} multiply-adds{share}, "
            f"{self.bytes:,} of {self.dense_bytes:,} bytes",
        ]
        if self.latency is not None:
            times = {name: milliseconds(self.latency[name]) for name in ("dense", "predicted", "measured", "limit")}
            lines.append(
                f"latency: {times['measured']} measured, {times['predicted']} predicted, limit {times['limit']}, "
                f"{times['dense']} before; engine {self.latency['engine']}, {self.latency['threads']} threads"
            )
        if self.l1 is not None:
            lines += [
                f"L1 coefficient: median {self.l1['median']:.3g}, {self.l1['low']:.2f} to {self.l1['high']:.2f} of it"
            ]
        lines += [f"left dense: {name} ({reason})" for name, reason in self.skipped]
        return [*lines, *(f"note: {note}" for note in self.notes)]

    def __str__(self) -> str:
        return "\n".join([*aligned(self._rows()), "", *self._lines()])

    def _repr_html_(self) -> str:
        """The same for notebooks."""
        return html_table(self._rows(), title=f"{self.method}: asked {self.asked}", lines=self._lines())


def aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """Text columns: the first to the left, the others to the right, a rule under the head."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = [
        "  ".join(
            cell.ljust(width) if column == 0 else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in rows
    ]
    return [lines[0], "-" * len(lines[0]), *lines[1:]]


def write_text(path: Path, text: str) -> None:
    """Write to a temporary name in the same folder, then rename: a crash leaves the old file."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        temporary.write_text(text, encoding="utf-8")
        os.replace(temporary, path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise InputError(
            f"{path}, which cannot be written ({error.strerror})", "a writable path", "choose another"
        ) from error
