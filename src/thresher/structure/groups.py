"""Coupled groups: hidden units, the layers that make them, carry them along and read them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from thresher.structure.cuts import Attribute, Cut, GroupPlan


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

    def ordered(self, units: Sequence[int]) -> list[int]:
        """All indices of the axis, with those of unit `units[i]` where those of unit i are now."""
        order = list(range(self.size))
        for old, new in zip(self.index, (self.index[unit] for unit in units), strict=True):
            for place, index in zip(old, new, strict=True):
                order[place] = index
        return order


@dataclass(frozen=True, kw_only=True)
class Counter:
    """A number that a module keeps about its units (heads, or their joint width): `size` now, in proportion to them."""

    module: str
    name: str
    size: int


@dataclass(frozen=True, kw_only=True)
class CoupledGroup:
    """Units that can only be cut together in all `members`.

    name: the layer that makes them (the first of several). producers: layers with weights that make them. readers:
    members on the side "in", which read the units. exact: whether cutting a unit equals zeroing what its readers read
    of it (not so with norms over channels). across: whether a sum ties several producers, as on a residual stream; a
    product (a gate) or attention does not. kind: "units", or "heads" of attention. counters: numbers to keep right.
    proven: whether it has been tried on this network (see `proven`).
    """

    name: str
    units: int
    members: tuple[Member, ...]
    producers: tuple[str, ...]
    exact: bool = True
    across: bool = False
    kind: str = "units"
    counters: tuple[Counter, ...] = ()
    proven: bool = False

    @property
    def readers(self) -> tuple[Member, ...]:
        """The members that read the units."""
        return tuple(member for member in self.members if member.axis == "in")

    def plan(self, keep: Iterable[int]) -> GroupPlan:
        """The plan that keeps the units `keep`."""
        kept = tuple(sorted(int(unit) for unit in keep))
        return GroupPlan(
            name=self.name,
            units=self.units,
            keep=kept,
            kind=self.kind,
            cuts=tuple(member.cut(kept) for member in self.members),
            attributes=tuple(
                Attribute(module=each.module, name=each.name, size=each.size, kept=each.size // self.units * len(kept))
                for each in self.counters
            ),
        )


@dataclass(frozen=True)
class LeftWhole:
    """A layer whose outputs are not cut, and why."""

    name: str
    reason: str
