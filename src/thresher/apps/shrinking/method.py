"""Selections as the command line spells them: NAME, or NAME:field=value,..."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields, is_dataclass, replace
from typing import Any

from thresher.errors import InputError
from thresher.shrinking import SELECTIONS, Selection, parse_selection
from thresher.shrinking.selections.torch_pruners import KINDS
from thresher.structure import CoupledGroup


def selection_of(text: str) -> Selection:
    """The selection that `text` spells.

    >>> selection_of("ispasp:iterations=5,debias=false")
    ISpaSP(iterations=5, debias=False)

    Errors: InputError on an unknown name, field or value.
    """
    name, _, rest = text.strip().partition(":")
    if name not in SELECTIONS:
        raise InputError(f"method {name!r}", f"one of {', '.join((*SELECTIONS, *KINDS))}", "correct the name")
    selection = parse_selection(name)
    known: set[str] = {field.name for field in fields(selection) if field.init} if is_dataclass(selection) else set()
    values: dict[str, Any] = {}
    for part in filter(None, rest.split(",")):
        key, _, value = (piece.strip() for piece in part.partition("="))
        if key not in known:
            raise InputError(f"{key!r} for {name}", f"one of {', '.join(sorted(known)) or 'nothing'}", "correct it")
        values[key] = _read(name, key, value, getattr(selection, key))
    return replace(selection, **values) if values else selection  # type: ignore[type-var]


def _read(name: str, key: str, value: str, default: object) -> object:
    if isinstance(default, bool):
        if value.lower() in ("true", "false"):
            return value.lower() == "true"
        raise InputError(f"{name}:{key}={value}", "true or false", "correct the value")
    for kind in (int, float):
        if isinstance(default, kind):
            try:
                return kind(value)
            except ValueError:
                raise InputError(f"{name}:{key}={value}", f"a number like {default}", "correct the value") from None
    return value


class Told:
    """A selection that says which group it works on: `say(group, sizes)` at each call of `recover`."""

    def __init__(self, selection: Selection, say: Callable[[CoupledGroup, int], None]) -> None:
        self._selection, self._say = selection, say

    def recover(self, problem: Any, sizes: Any, view: Any) -> Any:
        """What the selection recovers."""
        self._say(view.group, len(sizes))
        return self._selection.recover(problem, sizes, view)

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._selection, name)
        if name == "prepared":  # the selection that it makes tells, too
            return lambda *given: Told(found(*given), self._say)
        return found

    def __repr__(self) -> str:
        return repr(self._selection)
