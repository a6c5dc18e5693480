"""Numbers that may not be numbers, and how a number is written for people."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

UNKNOWN = "–"


def number(value: object) -> float | None:
    """A finite float, or None for anything else: run folders may hold any JSON.

    >>> number(3), number("3"), number(True), number(float("nan"))
    (3.0, None, None, None)
    """
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    try:
        result = float(value)
    except OverflowError:
        return None
    return result if math.isfinite(result) else None


def first(*values: object) -> float | None:
    """The first of `values` that is a number."""
    return next((found for value in values if (found := number(value)) is not None), None)


def percent(value: float | None, digits: int = 2) -> str:
    """`percent(91.734)` is "91.73 %"; the value is in percent already."""
    return UNKNOWN if value is None else f"{value:.{digits}f} %"


def share(value: float | None, digits: int = 2) -> str:
    """`share(0.9)` is "90.00 %"."""
    return UNKNOWN if value is None else percent(value * 100, digits)


def count(value: float | None) -> str:
    """`count(12345.0)` is "12,345"."""
    return UNKNOWN if value is None else f"{value:,.0f}"


def size(value: float | None) -> str:
    """Bytes in decimal units: `size(128400)` is "128.4 KB"."""
    if value is None:
        return UNKNOWN
    for unit, scale in (("GB", 1e9), ("MB", 1e6), ("KB", 1e3)):
        if abs(value) >= scale:
            return f"{value / scale:.1f} {unit}"
    return f"{value:.0f} B"


def plain(value: float | None) -> str:
    """Four significant digits: `plain(0.000381234)` is "0.0003812"."""
    return UNKNOWN if value is None else f"{value:.4g}"


def short(value: float | None) -> str:
    """Three significant digits, for times: `short(0.080121)` is "0.0801"."""
    return UNKNOWN if value is None else f"{value:.3g}"


def text(value: object, limit: int = 160) -> str:
    """Any JSON value as one short line; a budget's mapping as `name=value` pairs."""
    if value is None:
        return UNKNOWN
    if isinstance(value, Mapping):
        line = ", ".join(f"{key}={text(item, 40)}" for key, item in list(value.items())[:12])
    elif isinstance(value, float):
        line = f"{value:.6g}"
    else:
        line = str(value)
    line = " ".join(line.split())
    return line if len(line) <= limit else line[: limit - 1] + "…"


def flat(config: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Nested settings as one level of `outer.inner` names with short texts.

    >>> flat({"lr": 0.05, "method": {"kind": "lats"}})
    {'lr': '0.05', 'method.kind': 'lats'}
    """
    found: dict[str, str] = {}
    for key, value in config.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping) and value and prefix.count(".") < 3:
            found |= flat(value, f"{name}.")
        else:
            found[text(name, 80)] = text(value)
    return found
