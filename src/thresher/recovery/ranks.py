"""What all processes of a distributed run have to agree on; a single process agrees with itself."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import distributed


def distributed_run() -> bool:
    """Whether torch.distributed is initialised."""
    return distributed.is_available() and distributed.is_initialized()


def summed(values: Sequence[float], place: torch.device) -> list[float]:
    """Each value, added up over all processes; every process passes equally many.

    >>> summed([1.0, 2.0], torch.device("cpu"))
    [1.0, 2.0]
    """
    if not distributed_run():
        return list(values)
    total = torch.tensor(values, dtype=torch.float64, device=place)
    distributed.all_reduce(total)
    return [float(value) for value in total]


def all_agree(flag: bool, place: torch.device) -> bool:
    """Whether `flag` is true in every process."""
    return not any(summed([0.0 if flag else 1.0], place))


def of_first(values: Sequence[int], place: torch.device) -> list[int]:
    """The numbers of process 0, in every process."""
    if not distributed_run():
        return list(values)
    told = torch.tensor(values, dtype=torch.int64, device=place)
    distributed.broadcast(told, 0)
    return [int(value) for value in told]
