"""What was cut, what it costs now, what was predicted and what was measured: a record and a table."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Any

from thresher.budget.report import aligned
from thresher.budget.rich_text import html_table
from thresher.shrinking.allocation.latency import LatencyReport
from thresher.shrinking.report.plotting import plot


@dataclass(frozen=True, kw_only=True)
class GroupReport:
    """One group.

    relative_error: ‖V‖²/‖U‖² of what its readers give, on inputs of the already pruned prefix, after the refit if there
    was one; `losses` are the ½‖V‖² after each iteration, before any refit, and `energy` is ½‖U‖². curve: units kept to
    ‖V‖²/‖U‖² on the dense network, after the refit if there is one, when a budget was given. p, exponent: fitted
    compressibility of the sorted hidden sizes, and the slope 1 − 2/p of log ‖V‖² that it predicts; covered: whether
    0 < p < 1, without which the theory promises nothing. decay: units kept, ‖V‖²/‖U‖² without any refit, and beside it
    s^(1 − 2/p), set equal to it at the size nearest to an eighth of the units; measured_slope: that of the former over
    its first half. residual: ‖V‖ per input sample, after the refit. moments: "channel-taps" (exact) or "channels only"
    (an approximation).
    """

    name: str
    units: int
    kept: int
    relative_error: float
    predicted_error: float | None
    losses: tuple[float, ...]
    energy: float
    curve: tuple[tuple[int, float], ...]
    decay: tuple[tuple[int, float, float], ...]
    p: float | None
    exponent: float | None
    covered: bool
    measured_slope: float | None
    residual: float
    moments: str
    refitted: bool


@dataclass(frozen=True, kw_only=True)
class ShrinkReport:
    """The outcome of `thresher.shrink_plan`.

    Multiply-adds are per sample. predicted_error: sqrt of the summed predicted squared errors of the output, relative;
    output_error: ‖f − f'‖/‖f‖ on the first calibration batch. error_per_sample: the same ‖f − f'‖ over sqrt(samples),
    beside `bound`, the propagated bound on it (see `thresher.shrinking.bounds.propagation`), None where none is known;
    bound_note says how it was found or why there is none. The bound holds on the first calibration batch.
    """

    method: str
    asked: str
    groups: tuple[GroupReport, ...]
    left_whole: tuple[tuple[str, str], ...]
    macs: float
    total_macs: float
    params: int
    total_params: int
    bytes: int
    total_bytes: int
    predicted_error: float | None
    output_error: float
    error_per_sample: float
    bound: float | None
    bound_proven: bool
    bound_note: str
    notes: tuple[str, ...] = ()
    latency: LatencyReport | None = None

    def to_dict(self) -> dict[str, Any]:
        """Plain data, JSON-ready, with a version."""
        return {"version": 1, **asdict(self)}

    def to_json(self) -> str:
        """JSON text of `to_dict`."""
        return json.dumps(self.to_dict(), indent=1)

    def _rows(self) -> list[tuple[str, ...]]:
        rows: list[tuple[str, ...]] = [("group", "units", "kept", "rel. error", "p", "1-2/p", "slope", "moments")]
        for group in self.groups:
            rows.append(
                (
                    group.name,
                    str(group.units),
                    str(group.kept),
                    f"{group.relative_error:.4f}",
                    _text(group.p),
                    _text(group.exponent),
                    _text(group.measured_slope),
                    group.moments,
                )
            )
        return rows

    def _lines(self) -> list[str]:
        lines = [
            f"method {self.method}; asked {self.asked}",
            f"multiply-adds {self.macs:,.0f} of {self.total_macs:,.0f} ({self.macs / max(self.total_macs, 1):.2%}), "
            f"parameters {self.params:,} of {self.total_params:,}, bytes {self.bytes:,} of {self.total_bytes:,}",
            f"relative output error: measured {self.output_error:.4f}"
            + (f", predicted {self.predicted_error:.4f}" if self.predicted_error is not None else ""),
            f"error per sample {self.error_per_sample:.4g}, bound "
            + (self.bound_note if self.bound is None else f"{self.bound:.4g} ({self.bound_note})"),
        ]
        lines += [] if self.latency is None else [str(self.latency)]
        lines += [f"left whole: {name} ({reason})" for name, reason in self.left_whole]
        return [*lines, *(f"note: {note}" for note in self.notes)]

    def plot(self, axes: Any = None) -> Any:
        """Residual curves of the groups beside their predicted decay; see `thresher.shrinking.report.plotting`."""
        return plot(self, axes)

    def __str__(self) -> str:
        return "\n".join([*aligned(self._rows()), "", *self._lines()])

    def _repr_html_(self) -> str:
        """The same for notebooks."""
        return html_table(self._rows(), title=f"{self.method}: asked {self.asked}", lines=self._lines())


def _text(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"
