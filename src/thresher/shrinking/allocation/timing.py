"""Seconds that narrower layers save: each layer timed by itself at a few widths."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.conv import _ConvNd

from thresher.budget.counts import eval_mode, overhear
from thresher.deploy.latency import measure_ratio
from thresher.structure import CoupledGroup, Member
from thresher.structure.cutting import cut_module

# Shares of a group's units at which a layer is timed; straight in between.
SHARES = (0.25, 0.5, 0.75)
MIN_TIME = 0.01
_Inputs = tuple[tuple[Any, ...], dict[str, Any]]


def seconds_of(run: Callable[[], object]) -> float:
    """Median seconds of `run` in eval mode, without gradients."""
    with torch.inference_mode():
        return measure_ratio(run, run, rounds=2, min_time=MIN_TIME).a.seconds


class LatencyTable:
    """`saved(kept)`: seconds that narrower layers save, each layer timed by itself.

    A layer that is cut on both sides saves as if the two shares multiplied. Layers of the same kind, shape and input
    are timed once. What is no layer (activations, sums) is in `scale` only, which `verified` sets from whole networks.
    """

    def __init__(self, model: nn.Module, example: Any, groups: Sequence[CoupledGroup]) -> None:
        self._model, self.scale = model, 1.0
        self._known: dict[tuple[Any, ...], float] = {}
        self._inputs = _inputs_of(model, example, {member.module for group in groups for member in group.members})
        # module -> seconds whole, and (group, {units kept: share of the time}) for each of its cut axes
        self._whole: dict[str, float] = {}
        self._curves: dict[str, list[tuple[str, dict[int, float]]]] = {}
        with eval_mode(model):
            for group in groups:
                for member in group.members:
                    if ":" not in member.axis and member.module in self._inputs:
                        curve = self._curve(group, member)
                        self._curves.setdefault(member.module, []).append((group.name, curve))
        self._units = {group.name: group.units for group in groups}

    def saved(self, kept: Mapping[str, int]) -> float:
        """Seconds saved with `kept` units of each group, before `scale`."""
        total = 0.0
        for module, curves in self._curves.items():
            share = 1.0
            for name, curve in curves:
                share *= _between(curve, kept.get(name, self._units[name]))
            total += self._whole[module] * (1 - share)
        return total

    def seconds(self, whole: float, kept: Mapping[str, int]) -> float:
        """Of the network that takes `whole` seconds uncut."""
        return whole - self.scale * self.saved(kept)

    def _curve(self, group: CoupledGroup, member: Member) -> dict[int, float]:
        whole = self._time(member, None)
        self._whole[member.module] = whole
        curve, least = {group.units: 1.0}, 1.0
        for share in sorted(SHARES, reverse=True):
            units = max(round(group.units * share), 1)
            if units < group.units:
                # Noise must not make a narrower layer dearer.
                least = min(least, self._time(member, member.cut(range(units)).keep) / whole)
                curve[units] = least
        return curve

    def _time(self, member: Member, keep: tuple[int, ...] | None) -> float:
        module = self._model.get_submodule(member.module)
        args, kwargs = self._inputs[member.module]
        shapes = tuple(tuple(value.shape) for value in args if isinstance(value, Tensor))
        key = (str(module), shapes, member.axis if keep else "", len(keep or ()))
        if key not in self._known:
            if keep is not None:
                module = copy.deepcopy(module)
                cut_module(member.module, module, {member.axis: keep}, {})
                if member.axis != "out":
                    args = (_narrowed(module, args[0], keep), *args[1:])
            self._known[key] = max(seconds_of(partial(module, *args, **kwargs)), 1e-9)
        return self._known[key]


def _inputs_of(model: nn.Module, example: Any, names: set[str]) -> dict[str, _Inputs]:
    """What each module is called with (the first time), modules without a tensor argument left out."""
    found: dict[str, _Inputs] = {}

    def note(name: str, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if name not in found and args and isinstance(args[0], Tensor):
            found[name] = args, kwargs

    handles = [
        model.get_submodule(name).register_forward_pre_hook(partial(note, name), with_kwargs=True)
        for name in sorted(names)
    ]
    overhear(model, example, handles)
    return found


def _narrowed(module: nn.Module, inputs: Tensor, keep: Sequence[int]) -> Tensor:
    """The first channels of an input, as many as stay."""
    if isinstance(module, nn.Embedding):
        return inputs
    channels_first = isinstance(module, (_ConvNd, _NormBase, nn.GroupNorm, nn.PReLU))
    return inputs.narrow(1 if channels_first else inputs.ndim - 1, 0, len(keep)).contiguous()


def _between(curve: Mapping[int, float], size: int) -> float:
    """Straight between known sizes; below the least, straight towards nothing at half of its time."""
    known = sorted(curve)
    if size <= known[0]:
        return curve[known[0]] * (0.5 + 0.5 * size / known[0])
    for low, high in pairwise(known):
        if size <= high:
            return curve[low] + (curve[high] - curve[low]) * (size - low) / (high - low)
    return 1.0
