"""The few agreements that everything else speaks: what a method is told, and what it must answer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol, runtime_checkable

from torch import Tensor, nn
from torch.optim import Optimizer

from thresher.attach import Shell
from thresher.budget.planner import Planner
from thresher.operators import Groups
from thresher.targets import Target


@dataclass(frozen=True, kw_only=True)
class Job:
    """What a method is told when it begins.

    targets: the tensors to prune. groups: what is pruned as one. steps: optimizer steps from the start of
    pruning to its end (0: one shot). forecast: expected effective learning rate of each of those steps.
    planner: the budget, None when the user gave none. model, optimizer: for methods that rewind.
    """

    targets: tuple[Target, ...]
    groups: Groups
    steps: int
    forecast: Sequence[float]
    planner: Planner | None
    model: nn.Module
    optimizer: Optimizer | None


@runtime_checkable
class Process(Protocol):
    """A method at work on one model: a thin shell of state around pure functions.

    A process may also have `diagnostics() -> dict[str, float]`, numbers worth logging at any moment.
    """

    def shell(self, number: int) -> Shell:
        """The operator module for target `number`."""

    def before_step(self) -> None:
        """Called before each optimizer step: add the gradient of the method's own penalty to its thresholds."""

    def advance(self, step: int, rates: Sequence[float]) -> None:
        """Called once after attaching (step 0) and after each optimizer step that took place (1, 2, ...).

        `rates`: effective learning rate per target, lr * (1 - dampening) / (1 - momentum) for SGD, lr for others.
        """

    def penalty(self) -> Tensor | None:
        """The method's own loss term, for loops that want to add it explicitly; None when it has none.

        A function of leaf tensors that belong to the process. When its gradient has arrived there, `before_step` takes
        that gradient in place of its own.
        """

    def scores(self) -> list[Tensor]:
        """Per target, how strongly each entry stays (weight's shape, float32, not negative)."""

    def thresholds(self) -> list[float]:
        """Per target, the present threshold in weight units."""

    def export(self, number: int, keep: Tensor) -> Tensor:
        """The final weight of target `number`, non-zero only where `keep`."""

    def state_dict(self) -> dict[str, Any]:
        """Everything beyond the model's own state that a resumed run needs: plain numbers, lists and tensors."""

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take up the state that `state_dict` gave."""


@runtime_checkable
class Method(Protocol):
    """A pruning method's configuration: frozen, with a registry name, able to begin a process."""

    name: ClassVar[str]

    def begin(self, job: Job) -> Process:
        """Start the method on a model."""
