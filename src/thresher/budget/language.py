"""The budget language: `sparsity=90%`, `params=10%`, `flops=25%`, `bytes=2MB`, alone or several at once."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, fields

from thresher.errors import BudgetError

_COUNTS = {"": 1.0, "k": 1e3, "m": 1e6, "g": 1e9}
_UNITS: dict[str, dict[str, float]] = {
    "sparsity": {"": 1.0},
    "params": _COUNTS,
    "flops": {**_COUNTS, "macs": 1.0, "kmacs": 1e3, "mmacs": 1e6, "gmacs": 1e9},
    "bytes": {**_COUNTS, "b": 1.0, "kb": 1e3, "mb": 1e6, "gb": 1e9, "kib": 2.0**10, "mib": 2.0**20, "gib": 2.0**30},
    "latency": {"": 1.0, "s": 1.0, "ms": 1e-3, "us": 1e-6},
}
_NUMBER = re.compile(r"^\s*([0-9]*\.?[0-9]+(?:e[+-]?[0-9]+)?)\s*(%|[a-z]*)\s*$", re.IGNORECASE)
_SPELLINGS = (
    "sparsity=90%, params=10%, flops=25% (or 40MMACs), bytes=2MB (or 20%), latency=5ms (or 60%); "
    "several joined by commas"
)


@dataclass(frozen=True)
class Amount:
    """An upper limit: a `share` of the dense model's value, or an `absolute` number (parameters, MACs, bytes)."""

    share: float | None = None
    absolute: float | None = None

    def limit(self, whole: float) -> float:
        """The limit in absolute units, given the dense model's value."""
        if self.share is not None:
            return math.floor(self.share * whole + 1e-9)
        assert self.absolute is not None
        return self.absolute

    def __str__(self) -> str:
        if self.share is not None:
            return f"{self.share * 100:.15g}%"
        assert self.absolute is not None
        # A bare number up to 1 would be read back as a share.
        return f"{self.absolute:.15g}" if self.absolute > 1 else f"{self.absolute / 1000:.15g}k"


@dataclass(frozen=True, kw_only=True)
class Budget:
    """What the pruned network may cost.

    Args:
        sparsity: share of exact zeros over the prunable tensors, met to one weight.
        params: upper limit on the non-zero parameters of the whole model (unprunable ones count whole).
        flops: upper limit on the multiply-adds of convolutions and linear layers, zeros not counted.
        bytes: upper limit on the size of the file that `thresher.save` writes.
        latency: upper limit on the seconds of one forward pass: of `thresher.shrink` measured on the network; of
            `thresher.prune` in the sparse engine, by a table of its layers' times.

    With several, each holds, and the tightest is met as closely as one weight allows.

    >>> Budget.parse("sparsity=90%, flops=25%")
    Budget(sparsity=0.9, params=None, flops=Amount(share=0.25, absolute=None), bytes=None, latency=None)
    >>> str(Budget.parse("bytes=500KB"))
    'bytes=500000'

    Errors: BudgetError on anything else.
    """

    sparsity: float | None = None
    params: Amount | None = None
    flops: Amount | None = None
    bytes: Amount | None = None
    latency: Amount | None = None

    def __post_init__(self) -> None:
        if all(getattr(self, item.name) is None for item in fields(self)):
            raise BudgetError("an empty budget", _SPELLINGS, "name at least one limit")
        if self.sparsity is not None and not 0 <= self.sparsity <= 1:
            raise BudgetError(f"sparsity={self.sparsity!r}", "a share of zeros from 0% to 100%", "correct the sparsity")
        for name in ("params", "flops", "bytes", "latency"):
            amount: Amount | None = getattr(self, name)
            if amount is None:
                continue
            if amount.share is not None and not 0 <= amount.share <= 1:
                raise BudgetError(f"{name}={amount}", "a share from 0% to 100%", f"correct {name}")
            if amount.absolute is not None and not 0 <= amount.absolute < float("inf"):
                raise BudgetError(f"{name}={amount}", "a finite number, not negative", f"correct {name}")

    @classmethod
    def parse(cls, given: str | Mapping[str, object] | Budget) -> Budget:
        """A budget from text, a mapping such as `{"sparsity": 0.9}`, or a Budget (returned as it is)."""
        if isinstance(given, Budget):
            return given
        if isinstance(given, str):
            pairs: list[tuple[str, object]] = []
            for part in filter(None, (piece.strip() for piece in given.split(","))):
                key, equals, value = part.partition("=")
                if not equals:
                    raise BudgetError(f"budget {given!r}", _SPELLINGS, "write each limit as NAME=VALUE")
                pairs.append((key.strip(), value.strip()))
        elif isinstance(given, Mapping):
            pairs = [(str(key), value) for key, value in given.items()]
        else:
            raise BudgetError(
                f"a budget of type {type(given).__name__} ({given!r})",
                _SPELLINGS,
                'write it as text, e.g. budget="sparsity=90%"',
            )
        values: dict[str, object] = {}
        for name, setting in pairs:
            if name in values:
                raise BudgetError(f"{name} twice in {given!r}", "each limit once", "remove one")
            values[name] = cls._value(name, setting)
        return cls(**values)  # type: ignore[arg-type]

    @staticmethod
    def _value(name: str, value: object) -> float | Amount:
        if name not in _UNITS:
            raise BudgetError(f"budget {name!r}", _SPELLINGS, "use one of these names")
        if isinstance(value, Amount):
            return value
        match = _NUMBER.match(str(value))
        unit = match.group(2).lower() if match else "?"
        if match is None or (unit != "%" and unit not in _UNITS[name]) or isinstance(value, bool):
            raise BudgetError(f"{name}={value}", _SPELLINGS, "correct the number or its unit")
        number = float(match.group(1))
        if name == "sparsity":
            return number / 100 if unit == "%" else number
        if unit == "%":
            return Amount(share=number / 100)
        if unit == "" and name == "latency":
            raise BudgetError(f"latency={value}", "a time with its unit, or a share", "write latency=5ms or 60%")
        if unit == "" and number <= 1:
            return Amount(share=number)
        return Amount(absolute=number * _UNITS[name][unit])

    def __str__(self) -> str:
        parts = [] if self.sparsity is None else [f"sparsity={self.sparsity * 100:.15g}%"]
        parts += [f"{name}={amount}" for name in ("params", "flops", "bytes") if (amount := getattr(self, name))]
        if self.latency is not None:
            time = self.latency.absolute
            parts.append(f"latency={self.latency}" if time is None else f"latency={time * 1e3:.15g}ms")
        return ",".join(parts)
