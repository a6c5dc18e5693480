"""The outcome of a run in a few numbers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from thresher.apps.runs import Run


@dataclass(frozen=True, kw_only=True)
class Result:
    """Accuracies in percent of the test images; bytes of the saved file and of the tensors stored dense.

    `milliseconds`: one forward pass of `timed_batch` images, the finished network; `milliseconds_dense`: the network
    before the run, measured in turn. `zeros`, `entries`, `sparsity`: of the prunable tensors (None, None, 0 for plain
    training). `asked`: the budget, `got`: the measured value of each of its terms. `macs`: multiply-adds for one image,
    zeros not counted. `touched`: entries that the final projection changed. `seconds`: of training and evaluation.
    """

    accuracy_before: float
    accuracy_after: float
    bytes: int
    dense_bytes: int
    sparsity: float
    zeros: int | None
    entries: int | None
    asked: str | None
    got: Mapping[str, float] = field(default_factory=dict)
    macs: float | None = None
    total_macs: float | None = None
    touched: int | None = None
    steps: int
    seconds: float
    milliseconds_dense: float
    milliseconds: float
    timed_batch: int

    def to_dict(self) -> dict[str, Any]:
        """Plain data, JSON-ready."""
        return asdict(self)

    @classmethod
    def of(cls, run: Run) -> Result | None:
        """The outcome that a run folder holds, None while the run is not finished."""
        record = run.result
        known = {entry.name for entry in fields(cls)}
        return None if record is None else cls(**{key: value for key, value in record.items() if key in known})
