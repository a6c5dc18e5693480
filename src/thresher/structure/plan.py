"""ShrinkPlan: which indices of which layers stay, as plain data that cuts any fresh copy of the network again."""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from thresher.budget.report import aligned
from thresher.errors import InputError
from thresher.structure.cuts import GroupPlan, group_of, read, sequence
from thresher.structure.cutting import Taken, cut_module, width_of
from thresher.structure.separate import SeparateAttention, apart, parts_of, put

VERSION = 1
KIND = "shrink-plan"


@dataclass(frozen=True, kw_only=True)
class ShrinkPlan:
    """What is cut from a network of class `model`; apply it to any plain copy of it.

    >>> from thresher.structure.cuts import Cut
    >>> cuts = (Cut(module="0", axis="out", size=3, keep=(0, 2)), Cut(module="1", axis="in", size=3, keep=(0, 2)))
    >>> plan = ShrinkPlan(model="Sequential", groups=(GroupPlan(name="0", units=3, keep=(0, 2), cuts=cuts),))
    >>> plan.apply(nn.Sequential(nn.Linear(4, 3), nn.Linear(3, 1)))[1].in_features
    2
    >>> ShrinkPlan.from_json(plan.to_json()) == plan
    True
    """

    model: str
    groups: tuple[GroupPlan, ...]

    def apply(self, model: nn.Module) -> nn.Module:
        """A new, smaller model; `model` itself is left as it is. Parameters are new objects: make a new optimizer.

        Batch-norm statistics move with their channels, ties stay ties, training mode and requires_grad are kept. An
        nn.MultiheadAttention that loses heads becomes a `SeparateAttention`.
        Errors: InputError naming each module that is missing, of another kind, or of another width.
        """
        twin = copy.deepcopy(model)
        self.cut(twin)
        return twin

    def cut(self, model: nn.Module) -> None:
        """Cut `model` itself, which needs no second copy in memory. Errors: as `apply`, before anything is changed."""
        numbers = self._numbers()
        parts, kept = _apart(model, self._by_module())
        for name, axes in kept.items():
            module = _module(model, name, self.model, parts)
            for axis, (size, _) in axes.items():
                width = width_of(module, axis)
                if width != size:
                    raise InputError(
                        f"{name}, a {type(module).__name__} whose {axis} is {width} wide",
                        f"{size} wide, as in the {self.model} that the plan was made for",
                        "apply the plan to a dense model of the same configuration",
                    )
        for (name, attribute), (size, _) in numbers.items():
            found = vars(_module(model, name, self.model)).get(attribute)
            if type(found) is not int or found != size:
                raise InputError(
                    f"{name} with {attribute}={found!r}", f"{attribute}={size}", "apply the plan to a dense model"
                )
        put(model, parts)
        taken: Taken = {}
        with torch.no_grad():
            for name, axes in kept.items():
                trimmed = {axis: keep for axis, (size, keep) in axes.items() if len(keep) < size}
                if trimmed:
                    cut_module(name, model.get_submodule(name), trimmed, taken)
        for (name, attribute), (_, value) in numbers.items():
            setattr(model.get_submodule(name), attribute, value)

    def check_cut(self, model: nn.Module) -> None:
        """Errors: InputError naming the first module of `model` that is not as wide as the plan leaves it."""
        for name, axes in _apart(model, self._by_module())[1].items():
            module = _module(model, name, self.model)
            for axis, (_, keep) in axes.items():
                width = width_of(module, axis)
                if width != len(keep):
                    raise InputError(
                        f"{name}, a {type(module).__name__} whose {axis} is {width} wide",
                        f"{len(keep)} wide, as the plan leaves it",
                        "give the model that the plan made",
                    )

    def _numbers(self) -> dict[tuple[str, str], tuple[int, int]]:
        found: dict[tuple[str, str], tuple[int, int]] = {}
        for each in (each for group in self.groups for each in group.attributes):
            size, now = found.get((each.module, each.name), (each.size, each.size))
            if size != each.size:
                raise InputError(f"{each.module}.{each.name} of {size} and {each.size}", "one size", "correct the plan")
            found[each.module, each.name] = size, now - (each.size - each.kept)
        return found

    def _by_module(self) -> dict[str, dict[str, tuple[int, list[int]]]]:
        # A concatenation is cut by several groups: each keeps everything outside its own part, so what all keep stays.
        kept: dict[str, dict[str, tuple[int, list[int]]]] = {}
        for cut in (cut for group in self.groups for cut in group.cuts):
            size, before = kept.setdefault(cut.module, {}).get(cut.axis, (cut.size, list(range(cut.size))))
            if size != cut.size:
                raise InputError(f"{cut.module} {cut.axis} of {size} and {cut.size}", "one size", "correct the plan")
            kept[cut.module][cut.axis] = size, sorted(set(before) & set(cut.keep))
        return kept

    def kept(self) -> dict[tuple[str, str], list[int]]:
        """(module, axis) to the indices that stay."""
        return {(name, axis): keep for name, axes in self._by_module().items() for axis, (_, keep) in axes.items()}

    def widths(self) -> dict[str, dict[str, int]]:
        """Module name and axis to the width after the cut."""
        return {name: {axis: len(keep) for axis, (_, keep) in axes.items()} for name, axes in self._by_module().items()}

    def table(self) -> str:
        """The plan to be read before anything is cut."""
        rows, places = [("group", "units", "kept", "share")], ["cuts", "----"]
        for group in self.groups:
            places.append(", ".join(f"{cut.module} {cut.axis}" for cut in group.cuts))
            share = len(group.keep) / group.units
            units = f"{group.units} heads" if group.kind == "heads" else str(group.units)
            rows.append((group.name, units, str(len(group.keep)), f"{share:.0%}"))
        return "\n".join(f"{line}  {place}" for line, place in zip(aligned(rows), places, strict=True))

    def to_dict(self) -> dict[str, Any]:
        """Plain data, JSON-ready, with a version."""
        groups = [
            {
                **vars(group),
                "keep": list(group.keep),
                "cuts": [{**vars(cut), "keep": list(cut.keep)} for cut in group.cuts],
                "attributes": [dict(vars(each)) for each in group.attributes],
            }
            for group in self.groups
        ]
        return {"version": VERSION, "kind": KIND, "model": self.model, "groups": groups}

    def to_json(self) -> str:
        """JSON text of `to_dict`."""
        return json.dumps(self.to_dict())

    @classmethod
    def from_dict(cls, record: Mapping[str, Any]) -> ShrinkPlan:
        """The plan that `to_dict` wrote. Errors: InputError for another version, an unknown or a missing key."""
        if not isinstance(record, Mapping) or (record.get("version"), record.get("kind")) != (VERSION, KIND):
            raise InputError("a plan of another version or kind", f"{KIND} version {VERSION}", "use a matching release")
        rest = {key: value for key, value in record.items() if key not in ("version", "kind")}
        rest["groups"] = tuple(group_of(group) for group in sequence(rest, "groups"))
        return read(cls, rest)

    @classmethod
    def from_json(cls, text: str) -> ShrinkPlan:
        """The plan that `to_json` wrote."""
        try:
            return cls.from_dict(json.loads(text))
        except json.JSONDecodeError as error:
            raise InputError(f"a plan that is no JSON ({error})", "what to_json writes", "take another file") from error


_Kept = dict[str, dict[str, tuple[int, list[int]]]]


def _apart(model: nn.Module, kept: _Kept) -> tuple[dict[str, SeparateAttention], _Kept]:
    """Layers of `model` that have to be taken apart to be cut, and what of `kept` is not about layers left together."""
    inside = {name: parent for name in kept if (parent := apart(model, name)) is not None}
    gone = {name for name, axes in kept.items() if any(len(keep) < size for size, keep in axes.values())}
    split = {parent for name, parent in inside.items() if name in gone}
    wanted = {name: axes for name, axes in kept.items() if name not in inside or inside[name] in split}
    return parts_of(model, sorted(split)), wanted


def _module(model: nn.Module, name: str, planned: str, parts: Mapping[str, nn.Module] | None = None) -> nn.Module:
    parent, _, child = name.rpartition(".")
    try:
        return (parts or {})[parent].get_submodule(child) if parent in (parts or {}) else model.get_submodule(name)
    except AttributeError as error:
        raise InputError(
            f"a {type(model).__name__} without {name!r}",
            f"the modules of the {planned} that the plan was made for",
            "apply the plan to a model of that class and configuration",
        ) from error
