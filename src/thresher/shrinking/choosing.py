"""Which groups may be cut, and between which sizes: scope, rules, fixed sizes, rounding."""

from __future__ import annotations

import difflib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from torch import nn

from thresher.errors import InputError
from thresher.recovery.reading import readable
from thresher.structure import CoupledGroup, LeftWhole
from thresher.targets import Rule

SCOPES = ("inside", "across")


@dataclass(frozen=True, eq=False)
class Choice:
    """A group that may be cut, and the sizes it may have in rising order (the last one is what is there)."""

    group: CoupledGroup
    sizes: tuple[int, ...]


def candidates(
    model: nn.Module,
    groups: Sequence[CoupledGroup],
    *,
    rules: Sequence[Rule] = (),
    keep: Mapping[str, int | float] | None = None,
    round_to: int = 1,
    scope: str = "inside",
) -> tuple[list[Choice], list[LeftWhole]]:
    """The groups to work on and those left whole by scope or rule.

    Args:
        rules: matched against the layers that make the units. `exclude` and `dense` leave a group whole, `bound` limits
            the share of units that goes, `include` takes in a group that `scope` leaves.
        keep: name pattern of a making layer to units (int) or share of units (float up to 1) to keep, exactly.

    Errors: InputError for a rule or a key that matches no group, for sizes that cannot be.
    """
    if scope not in SCOPES:
        raise InputError(f"scope={scope!r}", "'inside' or 'across'", "correct the scope")
    if type(round_to) is not int or round_to < 1:
        raise InputError(f"round_to={round_to!r}", "a whole number, at least 1", "correct round_to")
    used, used_keys = [False] * len(rules), set()
    chosen, left = [], []
    for group in groups:
        wanted, low, high, why = (
            scope == "across" or not group.across,
            0.0,
            1.0,
            "made by several layers; scope='across'",
        )
        for place, rule in enumerate(rules):
            if not any(rule.matches(name, "weight", model.get_submodule(name)) for name in group.producers):
                continue
            used[place] = True
            if rule.action == "bound":
                low, high = rule.min_sparsity, rule.max_sparsity
            else:
                wanted, why = rule.action == "include", f"excluded by rule {rule.label!r}"
        keys = [key for key in keep or {} if any(fnmatchcase(name, key) for name in group.producers)]
        used_keys.update(keys)
        unread = [each.module for each in group.readers if not readable(model.get_submodule(each.module))]
        if unread and wanted:
            kind = type(model.get_submodule(unread[0])).__name__
            wanted, why = False, f"what {unread[0]}, a {kind}, reads cannot be weighed"
        if not wanted:
            left.append(LeftWhole(group.name, why))
            continue
        fixed = (_fixed(group, keys[-1], (keep or {})[keys[-1]]),) if keys else ()
        chosen.append(Choice(group, fixed or _sizes(group.units, low, high, round_to)))
    names = [name for group in groups for name in group.producers]
    idle = [rule.label for rule, hit in zip(rules, used, strict=True) if not hit]
    idle += [key for key in keep or {} if key not in used_keys]
    if idle:
        close = difflib.get_close_matches(idle[0], names, n=3, cutoff=0.4)
        raise InputError(
            f"{idle[0]!r}, which matches no group of units",
            f"a pattern for one of: {', '.join(names[:12])}" + (" ..." if len(names) > 12 else ""),
            f"did you mean {' or '.join(map(repr, close))}?" if close else "correct the pattern",
        )
    if not chosen:
        raise InputError(
            f"a {type(model).__name__} with no group of units to cut"
            + "".join(f"; {each.name}: {each.reason}" for each in left[:5]),
            "at least one layer whose hidden units only other layers read",
            "loosen the rules, or set scope='across'",
        )
    return chosen, left


def _fixed(group: CoupledGroup, key: str, value: int | float) -> int:
    whole = type(value) is int and 1 <= value <= group.units
    share = isinstance(value, float) and 0 < value <= 1
    if not whole and not share:
        raise InputError(
            f"keep {key!r}: {value!r}", f"1 to {group.units} units, or a share above 0 up to 1.0", "correct keep"
        )
    return int(value) if whole else max(round(value * group.units), 1)


def _sizes(units: int, low: float, high: float, round_to: int) -> tuple[int, ...]:
    least = max(math.ceil(units * (1 - high) - 1e-9), 1)
    most = max(math.floor(units * (1 - low) + 1e-9), least)
    sizes = [size for size in range(least, most + 1) if size % round_to == 0 or size == units]
    return tuple(sizes) or (most,)
