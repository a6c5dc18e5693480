"""Coupled groups: hidden units, the layers that make them, carry them along and read them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from thresher.structure.plan import Cut, GroupPlan


@dataclass(frozen=True, kw_only=True)
class Member:
    """One axis of one module that a group runs through: unit i owns the indices `index[i]` of it."""

    module: str
    axis: str
    size: int
    index: tuple[tuple[int, ...], ...]

    def cut(self, keep: Iterable[int]) -> Cut:
        """The cut that keeps the units `keep`, and everything on the axis that belongs to other groups."""
        mine = {index for indices in self.index for index in indices}
        stay = {index for unit in keep for index in self.index[unit]}
        kept = tuple(index for index in range(self.size) if index not in mine or index in stay)
        return Cut(module=self.module, axis=self.axis, size=self.size, keep=kept)


@dataclass(frozen=True, kw_only=True)
class CoupledGroup:
    """Units that can only be cut together in all `members`.

    name: the layer that makes them (the first of several). producers: layers with weights that make them; several where
    a residual sum ties them (`across`). readers: members on the side "in", which read the units. exact: whether cutting
    a unit equals zeroing what its readers read of it (not so with norms over channels).
    """

    name: str
    units: int
    members: tuple[Member, ...]
    producers: tuple[str, ...]
    exact: bool = True

    @property
    def across(self) -> bool:
        """Whether several layers make the units, as on a residual stream."""
        return len(self.producers) > 1

    @property
    def readers(self) -> tuple[Member, ...]:
        """The members that read the units."""
        return tuple(member for member in self.members if member.axis == "in")

    def plan(self, keep: Iterable[int]) -> GroupPlan:
        """The plan that keeps the units `keep`."""
        kept = tuple(sorted(int(unit) for unit in keep))
        return GroupPlan(
            name=self.name, units=self.units, keep=kept, cuts=tuple(member.cut(kept) for member in self.members)
        )


@dataclass(frozen=True)
class LeftWhole:
    """A layer whose outputs are not cut, and why."""

    name: str
    reason: str
