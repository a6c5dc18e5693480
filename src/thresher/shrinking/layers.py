"""One group at a time: its problem from data, and writing the choice back into the reading weights."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd

from thresher.errors import InputError
from thresher.recovery import Part, Problem, Recovery, refit
from thresher.recovery.moments import SecondMoments, collect
from thresher.recovery.reading import can_unfold, readable, reading_weight, taps_of
from thresher.structure import CoupledGroup, Member, removed_indices

# Rows of C up to which channel-taps are worth their memory (8 bytes * rows squared) and time; above, channels alone.
MOST_ROWS = 4608


@dataclass(frozen=True, eq=False)
class Watched:
    """The readers of one group with their accumulators."""

    group: CoupledGroup
    readers: Mapping[str, SecondMoments]
    taps: bool


@dataclass(frozen=True, eq=False)
class Gathered:
    """A group's problem from data: what its moments are over, and from how many input samples."""

    problem: Problem
    taps: bool
    samples: int

    @property
    def kind(self) -> str:
        """In words."""
        return "channel-taps" if self.taps else "channels only"


def channels_by_unit(member: Member) -> Tensor:
    """The indices of the member's axis, unit after unit."""
    return torch.tensor(member.index, dtype=torch.int64).flatten()


def watch(model: nn.Module, group: CoupledGroup, *, most_rows: int = MOST_ROWS) -> Watched:
    """Accumulators for every reader of `group`. Errors: InputError for a reader whose input cannot be weighed."""
    modules = {member.module: model.get_submodule(member.module) for member in group.readers}
    for name, module in modules.items():
        if not readable(module):
            raise InputError(
                f"{name}, a {type(module).__name__}, as a reader", "a plain layer", f"exclude {group.name}"
            )
    taps = all(
        can_unfold(module) and taps_of(module) * channels_by_unit(member).numel() <= most_rows
        for member, module in zip(group.readers, modules.values(), strict=True)
    )
    readers = {
        member.module: SecondMoments(modules[member.module], channels_by_unit(member), taps=taps)
        for member in group.readers
    }
    return Watched(group, readers, taps)


def problem_of(model: nn.Module, watched: Watched) -> Problem:
    """The recovery problem of a group whose accumulators are full. With several readers each counts by its own energy,
    so that the loss is the mean of their relative errors."""
    parts = []
    for member in watched.group.readers:
        module, channels = model.get_submodule(member.module), channels_by_unit(member)
        weight = reading_weight(module, channels, taps=watched.taps).to(torch.float64)
        block = len(member.index[0]) * (taps_of(module) if watched.taps else 1)
        moments = watched.readers[member.module].result()
        if len(watched.group.readers) > 1:
            energy = float(((weight @ moments) * weight).sum()) / 2
            weight = weight / max(energy * len(watched.group.readers), 1e-300) ** 0.5
        parts.append(Part(moments=moments, weight=weight, block=block))
    return Problem(tuple(parts))


def gather(
    model: nn.Module, groups: Sequence[CoupledGroup], batches: Iterable[Any], *, most_rows: int, limit: int | None
) -> dict[str, Gathered]:
    """One pass over `batches`: group name to its problem."""
    watched = [watch(model, group, most_rows=most_rows) for group in groups]
    shared: dict[str, list[SecondMoments]] = {}
    for each in watched:
        for name, moments in each.readers.items():
            shared.setdefault(name, []).append(moments)
    collect(model, batches, {name: _Several(found) for name, found in shared.items()}, limit=limit)  # type: ignore[misc]
    found = {}
    for each in watched:
        problem = problem_of(model, each)
        samples = max(moments.items for moments in each.readers.values())
        found[each.group.name] = Gathered(problem, each.taps, samples)
    return found


class _Several:
    """A reader behind a concatenation serves several groups."""

    def __init__(self, moments: list[SecondMoments]) -> None:
        self._moments = moments

    def add(self, inputs: Tensor, mask: Tensor | None = None) -> None:
        for each in self._moments:
            each.add(inputs, mask)


def write(
    model: nn.Module, group: CoupledGroup, problem: Problem, found: Recovery, *, debias: bool, taps: bool
) -> bool:
    """Zero what the readers read of the units that go, and refit or scale what stays, in place.

    Returns: whether every reader was refitted. Grouped convolutions, and moments over channels alone, have no refit.
    """
    support = found.support.cpu()
    kept = support.tolist()
    refitted = debias
    with torch.no_grad():
        for member, part in zip(group.readers, problem.parts, strict=True):
            module = model.get_submodule(member.module)
            weight: Tensor = module.weight  # type: ignore[assignment]
            if isinstance(module, _ConvNd) and module.groups > 1:
                refitted = False  # its filters do not read every channel
                wide, share = weight.shape[0] // module.groups, weight.shape[1]
                for gone in removed_indices(member, kept).tolist():
                    first = gone // share * wide
                    weight[first : first + wide, gone % share] = 0
                continue
            index = channels_by_unit(member).reshape(group.units, -1)[support].flatten().to(weight.device)
            if debias and taps:
                whole = reading_weight(module, channels_by_unit(member)).to(torch.float64)
                new = refit(Part(moments=part.moments, weight=whole, block=part.block), found.support)
                weight[:, index] = new.reshape(weight[:, index].shape).to(weight.dtype)
            elif found.scale is not None:
                scale = found.scale.to(weight).repeat_interleave(len(member.index[0]))
                weight[:, index] *= scale.reshape(1, -1, *[1] * (weight.ndim - 2))
            refitted = refitted and taps
            weight[:, removed_indices(member, kept).to(weight.device)] = 0
    return refitted
