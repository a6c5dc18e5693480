"""What a run leaves behind step by step: thresholds per tensor against the clock of effective learning rates."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass
class Trace:
    """Thresholds over time.

    Every `every`-th step: `steps` (count), `clock` (sum of effective learning rates since the start, mean over
    tensors), `thresholds` (one list per record, weight units, in the order of `names`).
    """

    names: tuple[str, ...]
    every: int = 1
    steps: list[int] = field(default_factory=lambda: [0])
    clock: list[float] = field(default_factory=lambda: [0.0])
    thresholds: list[list[float]] = field(default_factory=list)
    _elapsed: float = 0.0

    def __post_init__(self) -> None:
        if not self.thresholds:
            self.thresholds.append([0.0] * len(self.names))

    def record(self, step: int, rates: Sequence[float], thresholds: Sequence[float]) -> None:
        """Note step `step` (from 1), at which the tensors had these effective rates and thresholds."""
        self._elapsed += sum(rates) / len(rates)
        if step % self.every == 0:
            self.steps.append(step)
            self.clock.append(self._elapsed)
            self.thresholds.append([float(value) for value in thresholds])

    def state_dict(self) -> dict[str, Any]:
        """Plain lists, JSON-ready."""
        return {
            "names": list(self.names),
            "every": self.every,
            "steps": list(self.steps),
            "clock": list(self.clock),
            "thresholds": [list(row) for row in self.thresholds],
            "elapsed": self._elapsed,
        }

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> Trace:
        """The trace that `state_dict` gave."""
        trace = cls(tuple(state["names"]), state["every"], list(state["steps"]), list(state["clock"]))
        trace.thresholds = [list(row) for row in state["thresholds"]]
        trace._elapsed = float(state["elapsed"])
        return trace
