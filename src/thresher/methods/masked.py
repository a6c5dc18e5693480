"""w = mask * theta, gradient masked likewise: a fixed or moving support, shared by every method that freezes one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor

from thresher.attach import Shell, effective, latent
from thresher.budget.planner import Planner
from thresher.targets import Target


class MaskShell(Shell):
    """`forward(theta) = theta * mask`, or `before(theta)` as long as there is no mask.

    The mask is a boolean buffer of the weight's shape, saved with the model once it is set.
    Gradient: G where kept, 0 where pruned (when masked); that of `before` otherwise.
    """

    mask: Tensor | None

    def __init__(self, before: Callable[[Tensor], Tensor] | None = None) -> None:
        super().__init__()
        self.register_buffer("mask", None)
        self.before = before

    def forward(self, theta: Tensor) -> Tensor:
        """The effective weight."""
        if self.mask is not None:
            return theta * self.mask
        return theta if self.before is None else self.before(theta)

    def set_mask(self, mask: Tensor) -> None:
        """Put `mask` in force, in place when there was one."""
        if self.mask is None or self.mask.device != mask.device:
            self.mask = mask.clone()
        else:
            self.mask.copy_(mask)

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *rest: Any) -> None:
        # A checkpoint knows a mask that a freshly attached shell does not have yet, or the other way round.
        stored = state_dict.get(prefix + "mask")
        if stored is not None and self.mask is None:
            self.mask = torch.empty_like(stored)
        elif stored is None:
            self.mask = None
        super()._load_from_state_dict(state_dict, prefix, *rest)


Carried = TypeVar("Carried", bound=MaskShell)


class MaskableProcess(Generic[Carried]):
    """One shell for each target, whose support may be frozen, and no loss of its own: what most processes share."""

    _shells: list[Carried]

    def shell(self, number: int) -> Carried:
        """The operator module for target `number`."""
        return self._shells[number]

    @property
    def frozen(self) -> bool:
        """Whether the support is fixed."""
        return self._shells[0].mask is not None

    def before_step(self) -> None:
        """Nothing: no gradient is added."""

    def penalty(self) -> Tensor | None:
        """None: there is no loss to add."""
        return None


def freeze(
    targets: tuple[Target, ...], shells: list[MaskShell], keep: tuple[Tensor, ...], weights: list[Tensor]
) -> None:
    """Fix the support: theta becomes `weights` on it and exactly 0 off it."""
    with torch.no_grad():
        for target, shell, mask, weight in zip(targets, shells, keep, weights, strict=True):
            latent(target).copy_(weight * mask)
            shell.set_mask(mask)


def freeze_at_budget(
    targets: tuple[Target, ...],
    shells: Sequence[MaskShell],
    planner: Planner | None,
    scores: Sequence[Tensor],
    export: Callable[[int, Tensor], Tensor],
) -> int:
    """Fix the support that meets the budget exactly (the present one without a budget); how many entries that changed.

    scores: per target, how strongly each entry stays. export: (target number, keep) -> the weight from here on.
    """
    now = [effective(target) != 0 for target in targets]
    keep = tuple(now) if planner is None else planner.solve(scores).keep
    changed = sum(int((a ^ b).sum()) for a, b in zip(now, keep, strict=True))
    freeze(targets, list(shells), keep, [export(number, mask) for number, mask in enumerate(keep)])
    return changed


def saved_masks(shells: Sequence[MaskShell]) -> list[Tensor | None]:
    """Copies of the masks, so that a state taken now does not follow the run."""
    return [None if shell.mask is None else shell.mask.clone() for shell in shells]


def load_masks(targets: Sequence[Target], shells: Sequence[MaskShell], masks: Sequence[Tensor | None]) -> None:
    """Put saved masks in force, each where its tensor lives."""
    for target, shell, mask in zip(targets, shells, masks, strict=True):
        if mask is not None:
            shell.set_mask(mask.to(latent(target).device))
