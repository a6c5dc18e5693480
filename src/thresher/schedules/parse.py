"""text → schedule: "slats", "pgh:beta=0.05", "lats:epochs=100"."""

from __future__ import annotations

from dataclasses import fields
from typing import get_type_hints

from thresher.errors import InputError

from .coupled import Coupled
from .lats import LatsCurve
from .pgh import Pgh
from .schedule import Curve
from .simple import Constant, Cubic, Linear
from .slats import SLats

REGISTRY: dict[str, type[Curve]] = {
    kind.name: kind for kind in (SLats, LatsCurve, Pgh, Coupled, Constant, Linear, Cubic)
}


def parse_schedule(text: str) -> Curve:
    """name[:field=number[,field=number …]] → schedule.

    Errors: InputError for an unknown name or field, a number that cannot be read, or one the schedule refuses.
    Source: choice.

    >>> parse_schedule("pgh:beta=0.05")
    Pgh(beta=0.05)
    """
    name, _, rest = text.strip().partition(":")
    kind = REGISTRY.get(name.strip().lower())
    if kind is None:
        raise InputError(f"schedule={text!r}", "one of " + ", ".join(REGISTRY), "name one of these")
    hints = get_type_hints(kind)
    types = {field.name: hints[field.name] for field in fields(kind)}  # type: ignore[arg-type]
    values = {}
    for part in filter(None, rest.split(",")):
        key, _, number = (piece.strip() for piece in part.partition("="))
        try:
            values[key] = types[key](number)
        except (KeyError, ValueError):
            expected = ", ".join(f"{field}=<{kind_.__name__}>" for field, kind_ in types.items()) or "no parameters"
            raise InputError(
                f"schedule={text!r}", f"{name}: {expected}", 'write e.g. "pgh:beta=0.05" or "lats:epochs=100"'
            ) from None
    return kind(**values)
