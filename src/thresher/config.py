"""JSON in and out for frozen configuration records: versioned, unknown keys refused."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from typing import Any, TypeVar

from thresher.errors import InputError

VERSION = 1
T = TypeVar("T")


def to_record(config: Any, kind: str) -> dict[str, Any]:
    """`{"version": 1, "kind": kind, field: value, ...}` of a dataclass instance.

    >>> @dataclasses.dataclass(frozen=True)
    ... class Point:
    ...     x: float = 0.5
    >>> to_record(Point(), "point")
    {'version': 1, 'kind': 'point', 'x': 0.5}
    """
    return {"version": VERSION, "kind": kind, **dataclasses.asdict(config)}


def from_record(record: Mapping[str, Any], kinds: Mapping[str, type[T]]) -> T:
    """The instance that `to_record` wrote; `kinds` maps each kind to its class.

    Errors: InputError on an unknown version, kind or key.
    """
    fields = dict(record)
    version, kind = fields.pop("version", None), fields.pop("kind", None)
    if version != VERSION:
        raise InputError(
            f"a configuration of version {version!r}",
            f"version {VERSION}",
            "use the release of thresher that wrote it",
        )
    if kind not in kinds:
        raise InputError(f"kind {kind!r}", f"one of {', '.join(sorted(kinds))}", "correct the kind")
    known = {field.name for field in dataclasses.fields(kinds[kind])}  # type: ignore[arg-type]
    unknown = sorted(set(fields) - known)
    if unknown:
        raise InputError(
            f"unknown key {', '.join(unknown)} for {kind}",
            f"keys among {', '.join(sorted(known))}",
            "remove or correct the key",
        )
    try:
        return kinds[kind](**fields)
    except TypeError as error:  # a key is missing, or a value is not of the type that its check compares with
        raise InputError(
            f"a {kind} that cannot be built: {error}", "values as to_record writes them", "correct it"
        ) from error


def dumps(config: Any, kind: str) -> str:
    """JSON text of `to_record`."""
    return json.dumps(to_record(config, kind))


def check_share(name: str, value: float, *, closed: bool = True) -> None:
    """Refuse a `value` outside [0, 1] (or (0, 1] when not `closed`), NaN included."""
    low_ok = value >= 0 if closed else value > 0
    if not (low_ok and value <= 1):
        raise InputError(f"{name}={value!r}", f"a number from 0 to 1{'' if closed else ', above 0'}", f"correct {name}")


def check_positive(name: str, value: float) -> None:
    """Refuse a `value` that is not a finite number above 0."""
    if not 0 < value < float("inf"):
        raise InputError(f"{name}={value!r}", "a finite number above 0", f"correct {name}")
