"""Two plans one after another as one plan of the network that the first was made for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from thresher.errors import InputError
from thresher.structure import Cut, GroupPlan, ShrinkPlan


def composed(first: ShrinkPlan, then: ShrinkPlan) -> ShrinkPlan:
    """The plan whose `apply` equals `then.apply(first.apply(model))`.

    Errors: InputError when `then` was not made for what `first` leaves.

    >>> def plan(size: int, keep: tuple[int, ...]) -> ShrinkPlan:
    ...     cut = Cut(module="0", axis="out", size=size, keep=keep)
    ...     return ShrinkPlan(model="Net", groups=(GroupPlan(name="0", units=size, keep=keep, cuts=(cut,)),))
    >>> composed(plan(4, (0, 2, 3)), plan(3, (1, 2))).groups[0].keep
    (2, 3)
    """
    standing = _standing(first)
    before = {group.name: group for group in first.groups}
    groups = []
    for group in then.groups:
        old = before.pop(group.name, None)
        cuts = [_through(cut, standing.get((cut.module, cut.axis))) for cut in group.cuts]
        touched = {(cut.module, cut.axis) for cut in cuts}
        units, keep, attributes = group.units, group.keep, group.attributes
        if old is not None:
            _fits(f"group {group.name}", group.units, len(old.keep))
            units, keep = old.units, tuple(old.keep[unit] for unit in group.keep)
            cuts += [cut for cut in old.cuts if (cut.module, cut.axis) not in touched]
            sizes = {(each.module, each.name): each.size for each in old.attributes}
            attributes = tuple(
                replace(each, size=sizes.get((each.module, each.name), each.size)) for each in attributes
            )
        groups.append(GroupPlan(name=group.name, units=units, keep=keep, cuts=tuple(cuts), attributes=attributes))
    return ShrinkPlan(model=first.model, groups=(*groups, *before.values()))


def _standing(plan: ShrinkPlan) -> dict[tuple[str, str], tuple[int, Sequence[int]]]:
    """What stays of each axis: a concatenation is cut by several groups, and what all of them keep stays."""
    found: dict[tuple[str, str], tuple[int, Sequence[int]]] = {}
    for cut in (cut for group in plan.groups for cut in group.cuts):
        size, kept = found.get((cut.module, cut.axis), (cut.size, range(cut.size)))
        found[cut.module, cut.axis] = size, sorted(set(kept) & set(cut.keep))
    return found


def _through(cut: Cut, standing: tuple[int, Sequence[int]] | None) -> Cut:
    if standing is None:
        return cut
    size, kept = standing
    _fits(f"{cut.module} {cut.axis}", cut.size, len(kept))
    return Cut(module=cut.module, axis=cut.axis, size=size, keep=tuple(kept[index] for index in cut.keep))


def _fits(what: str, size: int, left: int) -> None:
    if size != left:
        raise InputError(
            f"a second plan for {what} of {size}", f"{left}, which the first plan leaves", "make it for that network"
        )
