"""Descent on a handful of learned thresholds: momentum, or steps of a set size (Adam)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import torch
from torch import Tensor


class Descent(Protocol):
    """From gradients to steps: x becomes x - step(gradient, rates)."""

    def step(self, gradient: Tensor, rates: Tensor) -> Tensor:
        """What x loses. Shapes: (L,) all."""

    def state_dict(self) -> dict[str, Any]:
        """Copies of the running means."""

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Resume."""


class Momentum:
    """m = mu*m + (1 - mu)*g; x loses rate*m.

    SGD with momentum mu and learning rate rate*(1 - mu): `rate` is the effective one.

    >>> descent = Momentum(0.5)
    >>> [descent.step(torch.ones(1), torch.ones(1)).item() for _ in range(2)]
    [0.5, 0.75]
    """

    def __init__(self, mu: float) -> None:
        self._mu = mu
        self._mean: Tensor | None = None

    def step(self, gradient: Tensor, rates: Tensor) -> Tensor:
        """What x loses."""
        old = torch.zeros_like(gradient) if self._mean is None else self._mean.to(gradient)
        self._mean = self._mu * old + (1 - self._mu) * gradient
        return rates * self._mean

    def state_dict(self) -> dict[str, Any]:
        """The running mean."""
        return {"mean": None if self._mean is None else self._mean.clone()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Resume."""
        self._mean = None if state["mean"] is None else state["mean"].clone()


class Normalised:
    """m = b1*m + (1 - b1)*g, v = b2*v + (1 - b2)*g^2, bias-corrected; x loses rate*m/sqrt(v): Adam.

    A gradient that was 0 all along moves nothing.

    >>> descent = Normalised()
    >>> descent.step(torch.tensor([1e-6, -3.0, 0.0]), torch.full((3,), 0.5)).tolist()
    [0.5, -0.5, 0.0]
    """

    def __init__(self, b1: float = 0.9, b2: float = 0.99) -> None:
        self._b1, self._b2 = b1, b2
        self._count = 0
        self._mean: Tensor | None = None
        self._square: Tensor | None = None

    def step(self, gradient: Tensor, rates: Tensor) -> Tensor:
        """What x loses."""
        mean = torch.zeros_like(gradient) if self._mean is None else self._mean.to(gradient)
        square = torch.zeros_like(gradient) if self._square is None else self._square.to(gradient)
        self._count += 1
        self._mean = self._b1 * mean + (1 - self._b1) * gradient
        self._square = self._b2 * square + (1 - self._b2) * gradient.square()
        size = (self._square / (1 - self._b2**self._count)).sqrt()
        mean = self._mean / (1 - self._b1**self._count)
        return rates * torch.where(size > 0, mean / torch.where(size > 0, size, 1), 0)

    def state_dict(self) -> dict[str, Any]:
        """The running means and their count."""
        copies = [None if value is None else value.clone() for value in (self._mean, self._square)]
        return {"count": self._count, "mean": copies[0], "square": copies[1]}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Resume."""
        self._count = int(state["count"])
        self._mean, self._square = (None if state[key] is None else state[key].clone() for key in ("mean", "square"))
