"""Numbers about a network: given, or measured without the run noticing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from thresher.errors import InputError

Measure = Callable[[nn.Module], float]


def number(name: str, value: float | Measure | Any, network: nn.Module) -> float:
    """`value`, or what it measures on `network`; torch's generators are put back afterwards.

    >>> number("loss", lambda network: torch.rand(()) * 0, nn.Identity())
    0.0

    Errors: InputError for what is no number.
    """
    if callable(value):
        # Even iterating a DataLoader in order draws a number from torch's generator; the run must not notice.
        places = {tensor.device for tensor in network.state_dict().values() if tensor.is_cuda}
        with torch.random.fork_rng(devices=sorted(place.index or 0 for place in places)):
            value = value(network)
    try:
        return float(value)  # numbers of numpy and torch too
    except (TypeError, ValueError) as error:
        raise InputError(f"{name}={value!r}", "a finite number", f"correct {name}") from error
