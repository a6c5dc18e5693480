"""What a trial needs: a few samples, a look at what readers read, a cut that is taken back."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from thresher.budget.counts import call, eval_mode
from thresher.structure.groups import CoupledGroup
from thresher.structure.plan import ShrinkPlan

SAMPLES = 2


@contextmanager
def watched(model: nn.Module, groups: Sequence[CoupledGroup]) -> Iterator[dict[str, Tensor]]:
    """Inside the block: reader name to the input of its first call, as it comes in."""
    seen: dict[str, Tensor] = {}

    def note(name: str, module: nn.Module, args: tuple[Any, ...]) -> None:
        if name not in seen:
            seen[name] = args[0].detach().clone()

    handles = [
        model.get_submodule(name).register_forward_pre_hook(partial(note, name))
        for name in dict.fromkeys(member.module for group in groups for member in group.readers)
    ]
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def cut_for_a_trial(
    model: nn.Module, groups: Sequence[CoupledGroup], keeps: Sequence[Sequence[int]]
) -> Iterator[dict[tuple[str, str], list[int]]]:
    """Inside the block `model` is cut: of each group the units of its entry in `keeps` stay. Gives the indices that
    stay of each (module, axis)."""
    plans = tuple(group.plan(keep) for group, keep in zip(groups, keeps, strict=True))
    plan = ShrinkPlan(model=type(model).__name__, groups=plans)
    with put_back(model, groups):
        plan.cut(model)
        yield plan.kept()


@contextmanager
def put_back(model: nn.Module, groups: Sequence[CoupledGroup]) -> Iterator[None]:
    """After the block the modules of `groups` hold the very tensors and numbers that they held before it."""
    names = {member.module for group in groups for member in group.members}
    names |= {counter.module for group in groups for counter in group.counters}
    stored = []
    for module in (model.get_submodule(name) for name in names):
        stored.append((module, dict(vars(module)), dict(module._parameters), dict(module._buffers)))
    try:
        yield
    finally:
        for module, fields, parameters, buffers in stored:
            module._parameters.clear()
            module._parameters.update(parameters)
            module._buffers.clear()
            module._buffers.update(buffers)
            # What a forward pass noted in the meantime (training flags, hooks) lies in shared containers and stays.
            vars(module).update(fields)


def few(model: nn.Module, example: Any) -> Any:
    """The first samples of `example` where the model takes them, else `example`: a trial needs no more."""
    leading = [tensor for tensor in _tensors(example) if tensor.ndim]
    if not leading or len(leading[0]) <= SAMPLES:
        return example
    short = _first(example, len(leading[0]))
    try:
        with torch.no_grad(), eval_mode(model):
            call(model, short)
    except Exception:  # a batch of fixed size
        return example
    return short


def _tensors(example: Any) -> Iterator[Tensor]:
    if isinstance(example, Tensor):
        yield example
    elif isinstance(example, (Mapping, tuple, list)):
        for value in example.values() if isinstance(example, Mapping) else example:
            yield from _tensors(value)


def _first(example: Any, batch: int) -> Any:
    if isinstance(example, Tensor):
        return example[:SAMPLES] if example.ndim and len(example) == batch else example
    if isinstance(example, Mapping):
        return {key: _first(value, batch) for key, value in example.items()}
    return type(example)(_first(value, batch) for value in example) if isinstance(example, (tuple, list)) else example
