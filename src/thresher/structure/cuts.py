"""The records of a plan: cuts along axes, numbers that modules keep, and the group that both belong to."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, TypeVar

from thresher.errors import InputError

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Cut:
    """Along `axis` of `module`, `size` wide, the indices `keep` stay.

    axis: "in", "out", "width" where both are one, or "NAME:2" for axis 2 of a tensor that the module holds itself.
    """

    module: str
    axis: str
    size: int
    keep: tuple[int, ...]

    def __post_init__(self) -> None:
        known = self.axis in ("in", "out", "width") or re.fullmatch(r"\w+:\d+", self.axis)
        sound = known and all(type(index) is int for index in self.keep)
        rising = all(low < high for low, high in zip(self.keep, self.keep[1:], strict=False))
        if not (sound and rising and self.keep and self.keep[0] >= 0 and self.keep[-1] < self.size):
            raise InputError(
                f"a cut of {self.module} {self.axis} of {self.size} that keeps {list(self.keep)[:8]}",
                "an axis 'in', 'out', 'width' or 'TENSOR:DIM', and at least one index below its size, in rising order",
                "take plans as ShrinkPlan.to_json writes them",
            )


@dataclass(frozen=True, kw_only=True)
class Attribute:
    """The number `name` of `module`, `size` before the cut, is `kept` after it."""

    module: str
    name: str
    size: int
    kept: int

    def __post_init__(self) -> None:
        if not (self.name.isidentifier() and not self.name.startswith("_") and 1 <= self.kept <= self.size):
            raise InputError(
                f"{self.module}.{self.name} from {self.size} to {self.kept}",
                "a name without leading underscore, and 1 <= kept <= size",
                "take plans as ShrinkPlan.to_json writes them",
            )


@dataclass(frozen=True, kw_only=True)
class GroupPlan:
    """One coupled group: of `units` units those of `keep` stay, and with them what `cuts` and `attributes` say.

    kind: what a unit is, "units" (neurons, channels) or "heads".
    """

    name: str
    units: int
    keep: tuple[int, ...]
    cuts: tuple[Cut, ...]
    attributes: tuple[Attribute, ...] = ()
    kind: str = "units"

    def __post_init__(self) -> None:
        if not self.keep or not set(self.keep) <= set(range(self.units)):
            raise InputError(
                f"group {self.name} of {self.units} units that keeps {list(self.keep)[:8]}",
                "at least one unit, each below the number of units",
                "keep at least one unit",
            )


def sequence(record: Any, key: str) -> Sequence[Any]:
    """The list under `key`. Errors: InputError when there is none."""
    value = record.get(key) if isinstance(record, Mapping) else None
    if not isinstance(value, (list, tuple)):
        raise InputError(f"a plan without a list {key!r}", "what to_json writes", "take another file")
    return value


def group_of(record: Any) -> GroupPlan:
    """A group from plain data. Errors: InputError for keys or types that are not its own."""
    cuts = tuple(read(Cut, cut) for cut in sequence(record, "cuts"))
    # Plans written before heads could be cut have neither attributes nor kind.
    attributes = tuple(read(Attribute, each) for each in sequence({"attributes": (), **record}, "attributes"))
    return read(GroupPlan, {"kind": "units", **record, "cuts": cuts, "attributes": attributes})


def read(kind: type[T], record: Mapping[str, Any]) -> T:
    """A record of class `kind`. Errors: InputError for keys or types that are not its own."""
    known = {item.name for item in fields(kind)}  # type: ignore[arg-type]
    if not isinstance(record, Mapping) or set(record) != known:
        given = sorted(record) if isinstance(record, Mapping) else type(record).__name__
        raise InputError(f"keys {given} of a {kind.__name__}", f"exactly {sorted(known)}", "correct the keys")
    types = {"name": str, "kind": str, "model": str, "module": str, "axis": str, "units": int, "size": int, "kept": int}
    for key, value in record.items():
        if key in types and type(value) is not types[key]:
            raise InputError(f"{key}={value!r} of a {kind.__name__}", f"a {types[key].__name__}", "correct the plan")
    values = {**record, "keep": tuple(sequence(record, "keep"))} if "keep" in known else dict(record)
    return kind(**values)
