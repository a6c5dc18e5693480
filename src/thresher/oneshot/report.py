"""What one-shot pruning did: the budget report, and the output error of every layer."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from thresher.budget.report import Report, aligned, write_text


@dataclass(frozen=True, kw_only=True)
class LayerError:
    """One layer, measured on the inputs that the pruned prefix gives.

    masked: ‖WX − W₀X‖²/‖WX‖² with W₀ = W and zeros in place of what left. after: the same for the weights that are
    there now. They differ where a method changes the weights that stay. zeros: exact zeros. columns: vectors that X had
    (tokens, positions); 0 when no batch reached the layer, and then X counts as white noise.
    """

    name: str
    entries: int
    zeros: int
    masked: float
    after: float
    columns: int


@dataclass(frozen=True, kw_only=True)
class OneshotReport:
    """The outcome of `thresher.prune_oneshot`: `budget` (asked and got, per tensor and in total) and `errors`."""

    budget: Report
    errors: tuple[LayerError, ...]

    @property
    def entries(self) -> int:
        """Entries of the prunable tensors."""
        return self.budget.entries

    @property
    def zeros(self) -> int:
        """Exact zeros among them."""
        return self.budget.zeros

    @property
    def sparsity(self) -> float:
        """Zeros over entries."""
        return self.budget.sparsity

    @property
    def got(self) -> Mapping[str, float]:
        """The measured value of each term of the budget."""
        return self.budget.got

    def to_dict(self) -> dict[str, Any]:
        """Plain data, JSON-ready, with a version."""
        return {"version": 1, "budget": self.budget.to_dict(), "errors": [asdict(each) for each in self.errors]}

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the report as JSON, to a temporary name first."""
        write_text(Path(path), json.dumps(self.to_dict(), indent=1))

    def __str__(self) -> str:
        rows = [("layer", "zeros", "sparsity", "error, masked", "error, after", "columns")]
        for each in self.errors:
            share = each.zeros / each.entries
            rows.append(
                (
                    each.name,
                    f"{each.zeros:,}",
                    f"{share:.2%}",
                    f"{each.masked:.5f}",
                    f"{each.after:.5f}",
                    str(each.columns),
                )
            )
        return "\n".join([*aligned(rows), "", str(self.budget)])
