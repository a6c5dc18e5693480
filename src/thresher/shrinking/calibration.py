"""The calibration batches: gone through again, held in memory, or read only once."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain, islice
from typing import Any

import torch
from torch import Tensor, nn

from thresher.budget.counts import overhear
from thresher.errors import InputError
from thresher.recovery.moments import inputs_of, placed
from thresher.recovery.ranks import all_agree
from thresher.structure.trying import few

# What is alive at a stop, as a multiple of what the layer there is given: the stream beside it, and the layer before.
ALIVE = 3
# Threads beyond which batches do not walk side by side.
MOST_WALKERS = 64


@dataclass(frozen=True, eq=False)
class Calibration:
    """first: inputs of the first batch, on the model's device. example: two samples of it, where the
    model takes so few.

    held: the inputs of every batch, when they may walk through the network side by side; None: `batches` is gone
    through for each layer, or, with `once`, for all layers together.
    """

    batches: Iterable[Any]
    first: Any
    example: Any
    once: bool
    held: Sequence[Any] | None = None

    def again(self) -> Iterable[Any]:
        """What a pass reads."""
        return self.batches if self.held is None else self.held


def opened(calibration: Iterable[Any], model: nn.Module) -> Calibration:
    """Look at the first batch. Errors: InputError when there is none."""
    if isinstance(calibration, (Tensor, Mapping)):
        calibration = [calibration]
    once = isinstance(calibration, Iterator)
    batches = iter(calibration)
    try:
        head = next(batches)
    except StopIteration:
        raise InputError(
            "no batches", "at least one batch of inputs", "pass a loader that is not empty or used up"
        ) from None
    place = next((tensor.device for tensor in model.parameters()), torch.device("cpu"))
    first = placed(inputs_of(head), place)
    return Calibration(chain([head], batches) if once else calibration, first, few(model, first), once)


def held(data: Calibration, model: nn.Module, stops: Sequence[str], *, limit: int | None, memory: int) -> Calibration:
    """`data` with every batch in memory, when what has to be alive at once stays below `memory` bytes."""
    sizes = _given(model, data.example, stops)
    samples = max(count_of(data.example), 1)
    place = next((tensor.device for tensor in model.parameters()), torch.device("cpu"))
    if not all_agree(sizes is not None and memory > 0, place):
        return data
    assert sizes is not None
    share = ALIVE * max(sizes, default=0) / samples
    found, total, fits = [], 0, True
    batches = iter(data.batches)
    for batch in islice(batches, limit):
        inputs = inputs_of(batch)
        found.append(inputs)
        total += count_of(inputs)
        fits = total * share + sum(map(bytes_of, found)) <= memory and len(found) <= MOST_WALKERS
        if not fits:
            break
    # Of several processes all walk side by side, or none: they add up their moments layer by layer.
    if not all_agree(fits, place):
        rest = chain(found, batches) if data.once else data.batches
        return Calibration(rest, data.first, data.example, data.once)
    return Calibration((), data.first, data.example, data.once, tuple(found))


def _given(model: nn.Module, example: Any, stops: Sequence[str]) -> list[int] | None:
    """Bytes that each stop is given; None when one of them is not called exactly once."""
    seen: dict[str, list[int]] = {name: [] for name in stops}

    def note(name: str, module: nn.Module, args: tuple[Any, ...]) -> None:
        seen[name].append(bytes_of(args))

    handles = [model.get_submodule(name).register_forward_pre_hook(partial(note, name)) for name in stops]
    overhear(model, example, handles)
    return [sizes[0] for sizes in seen.values()] if all(len(sizes) == 1 for sizes in seen.values()) else None


def head_of(inputs: Any, count: int) -> Any:
    """The first `count` samples of a batch, tensors along their first axis.

    >>> head_of({"x": torch.zeros(5, 2), "scale": torch.tensor(3.0)}, 2)["x"].shape
    torch.Size([2, 2])
    """
    if isinstance(inputs, Tensor):
        return inputs[:count] if inputs.ndim else inputs
    if isinstance(inputs, Mapping):
        return {key: head_of(value, count) for key, value in inputs.items()}
    return type(inputs)(head_of(value, count) for value in inputs) if isinstance(inputs, (tuple, list)) else inputs


def count_of(inputs: Any) -> int:
    """Samples of a batch: the length of its first tensor."""
    if isinstance(inputs, Tensor):
        return len(inputs) if inputs.ndim else 0
    values = inputs.values() if isinstance(inputs, Mapping) else inputs if isinstance(inputs, (tuple, list)) else ()
    return next((count for count in map(count_of, values) if count), 0)


def bytes_of(inputs: Any) -> int:
    """Bytes of all tensors of a batch."""
    if isinstance(inputs, Tensor):
        return inputs.nbytes
    values = inputs.values() if isinstance(inputs, Mapping) else inputs if isinstance(inputs, (tuple, list)) else ()
    return sum(map(bytes_of, values))
