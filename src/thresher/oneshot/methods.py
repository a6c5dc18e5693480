"""The one-shot methods by name."""

from __future__ import annotations

from dataclasses import fields
from typing import Any, ClassVar, Protocol

from torch import Tensor

from thresher.errors import InputError
from thresher.methods import Magnitude
from thresher.oneshot.problem import Problem
from thresher.oneshot.scored import Smallest, Wanda
from thresher.oneshot.sparsegpt import SparseGpt


class Oneshot(Protocol):
    """A configured method: `solve(problem)` gives the new weight and True where entries left."""

    name: ClassVar[str]

    def solve(self, problem: Problem) -> tuple[Tensor, Tensor]:
        """(W', gone), both of W's shape."""


ONESHOT: dict[str, type[Smallest | Wanda | SparseGpt]] = {kind.name: kind for kind in (Smallest, Wanda, SparseGpt)}


def parse_oneshot(given: Oneshot | Magnitude | str) -> tuple[Oneshot, str]:
    """`name` or `name:field=value,...`, or a configured method -> (method, allocation that it asks for by itself).

    >>> parse_oneshot("sparsegpt:block=64")
    (SparseGpt(block=64, quota='ranked', damping=0.01), 'uniform')
    >>> parse_oneshot(Magnitude(scope="global"))
    (Smallest(), 'global')

    Errors: InputError on anything else.
    """
    if isinstance(given, Magnitude):
        return Smallest(), "global" if given.scope == "global" else "uniform"
    if not isinstance(given, str):
        if isinstance(given, type) or not hasattr(given, "solve"):
            raise InputError(f"method {given!r}", "a configured one-shot method", "write e.g. thresher.SparseGpt()")
        return given, "uniform"
    name, _, rest = given.strip().partition(":")
    if name not in ONESHOT:
        raise InputError(
            f"method {name!r}",
            f"one of {', '.join(ONESHOT)}",
            "correct the name; methods that train go to thresher.prune, whole units to thresher.shrink",
        )
    defaults = {field.name: field.default for field in fields(ONESHOT[name])}
    values = {}
    for part in filter(None, rest.split(",")):
        key, _, value = (piece.strip() for piece in part.partition("="))
        if key not in defaults:
            known = ", ".join(defaults) or "no settings"
            raise InputError(f"{key!r} for {name}", f"one of {known}", "correct the setting")
        kind: Any = type(defaults[key])
        try:
            values[key] = kind(value)
        except ValueError:
            raise InputError(f"{key}={value}", f"a value of type {kind.__name__}", f"correct {key}") from None
    return ONESHOT[name](**values), "uniform"
