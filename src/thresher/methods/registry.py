"""Methods by name: the classes, the presets that papers name, and the text form of the command line."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any, get_args, get_type_hints

from thresher.config import from_record, to_record
from thresher.contracts import Method
from thresher.errors import InputError
from thresher.methods.asl import Asl
from thresher.methods.lats import Lats
from thresher.methods.ltp import Ltp
from thresher.methods.magnitude import Gmp, Magnitude, Random
from thresher.methods.power import Power
from thresher.methods.reparameterized import Str
from thresher.methods.st3 import St3

REGISTRY: dict[str, type[Any]] = {kind.name: kind for kind in (Magnitude, Gmp, Random, Lats, Power, St3, Asl, Ltp, Str)}

PRESETS: dict[str, tuple[str, dict[str, Any]]] = {
    "slats": ("lats", {"schedule": "slats"}),
    "pgh": ("lats", {"schedule": "pgh:beta=0.01"}),
    "lats-early": ("lats", {"schedule": "coupled:beta=0.1", "mode": "early"}),
    "lats-init": ("lats", {"schedule": "coupled", "mode": "init"}),
}


def method_names() -> list[str]:
    """Every name that `parse_method` knows."""
    return [*REGISTRY, *PRESETS]


def parse_method(text: str | Method) -> Method:
    """`name` or `name:field=value,...` -> a configured method; a method is returned as it is.

    >>> parse_method("lats:schedule=pgh:beta=0.05,mode=early").settle_at
    0.7
    >>> parse_method("gmp:end=0.75")
    Gmp(start=0.0, end=0.75, updates=100, scope='global', allow_regrow=False)

    Errors: InputError on an unknown name, field or value.
    """
    if not isinstance(text, str):
        if isinstance(text, type) or not hasattr(text, "begin"):
            raise InputError(f"method {text!r}", "a configured method", "write e.g. thresher.Lats()")
        return text
    name, _, rest = text.strip().partition(":")
    if name not in REGISTRY and name not in PRESETS:
        raise InputError(f"method {name!r}", f"one of {', '.join(method_names())}", "correct the name")
    base, values = PRESETS.get(name, (name, {}))
    kind, values = REGISTRY[base], dict(values)
    hints = get_type_hints(kind)
    known = [field.name for field in fields(kind)]
    for part in filter(None, rest.split(",")):
        key, _, value = (piece.strip() for piece in part.partition("="))
        if key not in known:
            raise InputError(f"{key!r} for {name}", f"one of {', '.join(known)}", f"write e.g. {name}:{known[0]}=...")
        values[key] = _read(name, key, value, hints[key])
    return kind(**values)  # type: ignore[no-any-return]


def method_record(method: Method) -> dict[str, Any]:
    """JSON-ready form of a configured method, with a version."""
    return to_record(method, method.name)


def method_from_record(record: Mapping[str, Any]) -> Method:
    """The method that `method_record` wrote. Errors: InputError on unknown versions, kinds or keys."""
    return from_record(record, REGISTRY)  # type: ignore[no-any-return]


def _read(name: str, key: str, value: str, hint: Any) -> Any:
    allowed = [kind for kind in (*get_args(hint), hint) if isinstance(kind, type)]
    if value.lower() in ("true", "false") and bool in allowed:
        return value.lower() == "true"
    for kind in (int, float):
        if kind in allowed:
            try:
                return kind(value)
            except ValueError:
                continue
    if str in allowed or not ({int, float, bool} & set(allowed)):
        return value
    raise InputError(f"{name}:{key}={value}", f"a {hint}", "correct the value")
