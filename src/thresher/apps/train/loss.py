"""The mean loss of an epoch, and the step at which it stopped being finite, without waiting for the device."""

from __future__ import annotations

import torch
from torch import Tensor

from thresher.errors import NumericsError


class LossMeter:
    """Sums losses on the device and notes the first step with NaN or infinity.

    Args:
        patience: that many steps without a finite loss, one after another, count as failure; above 1 for a gradient
            scaler, which skips such steps and lowers its scale.
    """

    def __init__(self, device: torch.device, *, patience: int = 1) -> None:
        self._sum = torch.zeros((), dtype=torch.float64, device=device)
        self._count = torch.zeros((), dtype=torch.int64, device=device)
        self._streak = torch.zeros((), dtype=torch.int64, device=device)
        self._bad = torch.full((), -1, dtype=torch.int64, device=device)
        self._patience = patience
        # Reading a number back makes a GPU wait; on the CPU it costs nothing.
        self.eager = device.type == "cpu"

    def add(self, loss: Tensor, step: int) -> None:
        """Take in the loss of step `step`."""
        loss = loss.detach()
        finite = torch.isfinite(loss)
        self._sum += torch.where(finite, loss, 0.0)
        self._count += finite
        self._streak = torch.where(finite, 0, self._streak + 1)
        failed = (self._bad < 0) & (self._streak >= self._patience)
        self._bad = torch.where(failed, step, self._bad)

    def check(self) -> None:
        """Errors: NumericsError when the loss stopped being finite."""
        bad = int(self._bad)
        if bad >= 0:
            raise diverged(f"a loss that is NaN or infinite at step {bad}")

    def mean(self) -> float:
        """Mean of the finite losses since the last `reset`; 0 when there are none."""
        count = int(self._count)
        return float(self._sum) / count if count else 0.0

    def reset(self) -> None:
        """A new epoch begins."""
        self._sum.zero_()
        self._count.zero_()

    def state_dict(self) -> dict[str, float | int]:
        """Sum and count, for an epoch that goes on after a resume."""
        return {"sum": float(self._sum), "count": int(self._count), "streak": int(self._streak)}

    def load_state_dict(self, state: dict[str, float | int]) -> None:
        """Take up an epoch in its middle."""
        self._sum.fill_(state["sum"])
        self._count.fill_(state["count"])
        self._streak.fill_(state["streak"])


def diverged(given: str) -> NumericsError:
    """The error of a run whose numbers ran away."""
    return NumericsError(
        given,
        "finite numbers",
        "lower the learning rate, add warm-up epochs or use fp32; the last good checkpoint, if there is one, was kept",
    )
