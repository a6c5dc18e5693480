"""One group at a time: its problem from data, and writing the choice back into the reading weights."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd

from thresher.budget.linear import matrix_of
from thresher.errors import InputError
from thresher.recovery import Part, Problem, Recovery, refit
from thresher.recovery.columns import Columns
from thresher.recovery.moments import SecondMoments
from thresher.recovery.reading import can_unfold, readable, reading_weight, taps_of
from thresher.structure import CoupledGroup, Member, removed_indices

# Rows of C up to which channel-taps are worth their memory (8 bytes * rows squared) and time; above, channels alone.
MOST_ROWS = 4608


# Samples whose moments a curve needs at least, and columns that do for C of any size: two for each row of the largest.
FEWEST, MOST_COLUMNS = 64, 2 * MOST_ROWS


class Accumulated:
    """What one reader of a group is given: its moments, and some of its columns if a score needs them."""

    def __init__(self, moments: SecondMoments, columns: Columns | None) -> None:
        self.moments, self.columns = moments, columns

    @property
    def full(self) -> bool:
        """Whether the moments have enough."""
        return self.moments.full

    def add(self, inputs: Tensor, mask: Tensor | None = None) -> None:
        """Take in one input of the reader."""
        if self.columns is not None and not self.full:
            self.columns.add(inputs, mask)
        self.moments.add(inputs, mask)

    def clear(self) -> None:
        """Free the memory."""
        self.moments.clear()
        self.columns = None


@dataclass(frozen=True, eq=False)
class Watched:
    """The readers of one group with their accumulators."""

    group: CoupledGroup
    readers: Mapping[str, Accumulated]
    taps: bool


@dataclass(frozen=True, eq=False)
class Gathered:
    """A group's problem from data: what its moments are over, from how many input samples, and per reader some columns
    of H when they were kept."""

    problem: Problem
    taps: bool
    samples: int
    hidden: tuple[Tensor, ...] | None = None

    @property
    def kind(self) -> str:
        """In words."""
        return "channel-taps" if self.taps else "channels only"


def channels_by_unit(member: Member) -> Tensor:
    """The indices of the member's axis, unit after unit."""
    return torch.tensor(member.index, dtype=torch.int64).flatten()


def watch(
    model: nn.Module,
    group: CoupledGroup,
    *,
    most_rows: int = MOST_ROWS,
    columns: int = 0,
    enough: int | None = None,
) -> Watched:
    """Accumulators for every reader of `group`; `columns`, `enough`: as in `thresher.shrinking.passes`.

    Errors: InputError for a reader whose input cannot be weighed.
    """
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
    readers = {}
    for member in group.readers:
        module, channels = modules[member.module], channels_by_unit(member)
        rows = channels.numel() * (taps_of(module) if taps else 1)
        least = None if enough is None else (FEWEST, min(enough * rows, MOST_COLUMNS))
        moments = SecondMoments(module, channels, taps=taps, enough=least)
        kept = Columns(module, channels, taps=taps, most=columns) if columns else None
        readers[member.module] = Accumulated(moments, kept)
    return Watched(group, readers, taps)


def problem_of(model: nn.Module, watched: Watched) -> Problem:
    """The recovery problem of a group whose accumulators are full. With several readers each counts by its own energy,
    so that the loss is the mean of their relative errors."""
    parts = []
    for member in watched.group.readers:
        module, channels = model.get_submodule(member.module), channels_by_unit(member)
        weight = reading_weight(module, channels, taps=watched.taps).to(torch.float64)
        block = len(member.index[0]) * (taps_of(module) if watched.taps else 1)
        moments = watched.readers[member.module].moments.result()
        if len(watched.group.readers) > 1:
            energy = float(((weight @ moments) * weight).sum()) / 2
            weight = weight / max(energy * len(watched.group.readers), 1e-300) ** 0.5
        parts.append(Part(moments=moments, weight=weight, block=block))
    return Problem(tuple(parts))


def gathered_of(model: nn.Module, watched: Watched) -> Gathered:
    """What the accumulators of a group have come to."""
    problem = problem_of(model, watched)
    samples = max(each.moments.items for each in watched.readers.values())
    kept = [each.columns for each in watched.readers.values()]
    hidden = tuple(columns.result() for columns in kept if columns is not None)
    return Gathered(problem, watched.taps, samples, hidden or None)


@contextmanager
def weights_of(model: nn.Module, group: CoupledGroup) -> Iterator[None]:
    """What the readers of `group` hold is put back after the block."""
    weights = [matrix_of(model.get_submodule(member.module)) for member in group.readers]
    stored = [weight.detach().clone() for weight in weights]
    try:
        yield
    finally:
        with torch.no_grad():
            for weight, old in zip(weights, stored, strict=True):
                weight.copy_(old)


def tied(model: nn.Module, name: str) -> bool:
    """Whether another module holds the same weight, as embeddings do that also classify: a refit would change both."""
    weight = model.get_submodule(name)._parameters.get("weight")
    holders = [module for module in model.modules() if any(each is weight for each in module._parameters.values())]
    return weight is not None and len(holders) > 1


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
            weight = matrix_of(module)
            if isinstance(module, _ConvNd) and module.groups > 1:
                refitted = False  # its filters do not read every channel
                wide, share = weight.shape[0] // module.groups, weight.shape[1]
                for gone in removed_indices(member, kept).tolist():
                    first = gone // share * wide
                    weight[first : first + wide, gone % share] = 0
                continue
            index = channels_by_unit(member).reshape(group.units, -1)[support].flatten().to(weight.device)
            if debias and taps and not tied(model, member.module):
                if len(problem.parts) > 1:  # there each reader's weight is scaled by its own energy
                    whole = reading_weight(module, channels_by_unit(member)).to(torch.float64)
                    part = Part(moments=part.moments, weight=whole, block=part.block)
                new = refit(part, found.support)
                weight[:, index] = new.reshape(weight[:, index].shape).to(weight.dtype)
            elif found.scale is not None:
                scale = found.scale.to(weight).repeat_interleave(len(member.index[0]))
                weight[:, index] *= scale.reshape(1, -1, *[1] * (weight.ndim - 2))
            refitted = refitted and taps and not tied(model, member.module)
            weight[:, removed_indices(member, kept).to(weight.device)] = 0
    return refitted
