"""What a file says about itself: the record, with the plan, the report and the settings that made the model."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from thresher.errors import InputError

PLAN, REPORT, CONFIG = "plan", "report", "config"


def file_record(
    record: Mapping[str, Any] | None = None, *, plan: Any = None, report: Any = None, config: Any = None
) -> dict[str, Any]:
    """`record` with "plan", "report" and "config" beside its own entries, each only when given.

    Each is a mapping, or anything with `to_dict()` or `to_json()`, or JSON text: a ShrinkPlan, a Report, a pydantic
    model with `model_dump(mode="json")`.

    >>> file_record({"epoch": 3}, plan='{"kind": "shrink-plan"}')
    {'epoch': 3, 'plan': {'kind': 'shrink-plan'}}

    Errors: InputError for anything else, and for a record that holds such an entry already.
    """
    if not isinstance(record or {}, Mapping):
        raise InputError(f"a record of type {type(record).__name__}", "a dict", "wrap it in one")
    found = dict(record or {})
    for name, value in ((PLAN, plan), (REPORT, report), (CONFIG, config)):
        if value is None:
            continue
        if name in found:
            raise InputError(f"{name}= and a record with {name!r}", "one of the two", "leave one out")
        found[name] = _plain(name, value)
    return found


def _plain(name: str, value: Any) -> dict[str, Any]:
    for turn in ("to_dict", "to_json", "model_dump"):
        if not isinstance(value, (str, Mapping)) and callable(getattr(value, turn, None)):
            value = getattr(value, turn)(mode="json") if turn == "model_dump" else getattr(value, turn)()
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except ValueError as error:
            raise _unfit(name, f"text that is no JSON ({error})") from error
    if not isinstance(value, Mapping):
        raise _unfit(name, type(value).__name__)
    return dict(value)


def _unfit(name: str, given: str) -> InputError:
    return InputError(
        f"{name}= {given}", "a mapping, JSON text, or an object with to_dict() or to_json()", "convert it"
    )
