"""Ranges to tune in, and where a search looks: first the usual setting and a quasi-random spread, then by a model."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from torch.quasirandom import SobolEngine

from thresher.errors import InputError, require
from thresher.methods import parse_method

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution
    from optuna.samplers import BaseSampler

SHARED = ("lr", "weight_decay")
"""Settings of a run that may be searched, by orders of magnitude; all else belongs to a method."""
_NEAR = 4.0


@dataclass(frozen=True, kw_only=True)
class Range:
    """Low to high of a setting. `what`: "lr", "weight_decay", or METHOD:FIELD. `whole`: only whole numbers."""

    what: str
    low: float
    high: float
    whole: bool = False

    @property
    def log(self) -> bool:
        """Whether it is searched by orders of magnitude."""
        return self.what in SHARED

    def concerns(self, method: str) -> bool:
        """Whether a search for `method` (with or without settings of its own) includes this range."""
        name, colon, _ = self.what.partition(":")
        return not colon or name == method.partition(":")[0]

    def at(self, share: float) -> float:
        """The value a `share` of the way from low to high.

        >>> Range(what="lr", low=0.01, high=1.0).at(0.5)
        0.1
        """
        if self.whole:
            return min(int(self.low + share * (self.high - self.low + 1)), int(self.high))
        if self.log:
            return rounded(math.exp(math.log(self.low) + share * math.log(self.high / self.low)))
        return rounded(self.low + share * (self.high - self.low))

    def distribution(self) -> BaseDistribution:
        """The range as the search library knows it."""
        kinds = require("optuna.distributions", extra="sweep", why="tuning")
        made: BaseDistribution
        if self.whole:
            made = kinds.IntDistribution(int(self.low), int(self.high))
        else:
            made = kinds.FloatDistribution(self.low, self.high, log=self.log)
        return made


def rounded(value: float) -> float:
    """Four significant digits: what a person would write down, and nothing that a search could tell apart."""
    return float(f"{value:.4g}")


def parse_range(text: str, methods: Sequence[str]) -> Range:
    """`lr=LOW..HIGH`, `weight_decay=LOW..HIGH` or `METHOD:FIELD=LOW..HIGH`.

    >>> parse_range("lats:settle=0.5..0.95", ["lats:mode=early", "gmp"])
    Range(what='lats:settle', low=0.5, high=0.95, whole=False)

    Errors: InputError for other spellings, a method that is not swept, a field that it does not have, and values that
    it does not take.
    """
    what, _, ends = (part.strip() for part in text.partition("="))
    first, _, last = (part.strip() for part in ends.partition(".."))
    try:
        low, high = float(first), float(last)
    except ValueError:
        low = high = math.nan
    if not -math.inf < low < high < math.inf:
        raise InputError(
            f"search {text!r}", "e.g. lr=0.01..0.2 or lats:settle=0.5..0.95, the lower end first", "correct the search"
        )
    if what in SHARED:
        if low <= 0:
            raise InputError(f"search {text!r}", f"{what} above 0: it is searched by orders of magnitude", "raise it")
        return Range(what=what, low=low, high=high)
    name, colon, field = what.partition(":")
    swept = [method for method in methods if method.partition(":")[0] == name]
    if not colon or not swept:
        names = dict.fromkeys(method.partition(":")[0] for method in methods)
        raise InputError(
            f"search {text!r}",
            f"{' or '.join(SHARED)}, or METHOD:FIELD with METHOD one of {', '.join(names)}",
            "correct the search",
        )
    ends_read = [
        getattr(parse_method(with_fields(method, {field: end})), field) for method in swept for end in (first, last)
    ]
    return Range(what=what, low=low, high=high, whole=all(isinstance(end, int) for end in ends_read))


def ranges_for(search: Sequence[str], method: str, methods: Sequence[str], lr: float) -> tuple[Range, ...]:
    """What is searched for `method`: the learning rate always, a quarter to four times `lr` unless a range is given."""
    found = [each for text in search if (each := parse_range(text, methods)).concerns(method)]
    if all(each.what != "lr" for each in found):
        found.insert(0, Range(what="lr", low=rounded(lr / _NEAR), high=rounded(lr * _NEAR)))
    return tuple(found)


def with_fields(method: str, fields: Mapping[str, object]) -> str:
    """The text form of `method` with `fields` set, too.

    >>> with_fields("lats:mode=early", {"settle": 0.6})
    'lats:mode=early,settle=0.6'
    """
    name, _, rest = method.partition(":")
    parts = [part for part in rest.split(",") if part and part.partition("=")[0].strip() not in fields]
    parts += [f"{field}={value}" for field, value in fields.items()]
    return f"{name}:{','.join(parts)}" if parts else name


def settings_from(method: str, params: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of a run that a point of the search stands for: its method's text, and those that all runs have."""
    values = {what: value if isinstance(value, int) else rounded(value) for what, value in params.items()}
    fields = {what.partition(":")[2]: value for what, value in values.items() if ":" in what}
    return {"method": with_fields(method, fields), **{what: value for what, value in values.items() if what in SHARED}}


def first_points(ranges: Sequence[Range], usual: Mapping[str, Any], count: int) -> list[dict[str, float]]:
    """The points that a search of `count` runs begins with: half of them (at least five), the usual setting first where
    the ranges hold it, then a scrambled Sobol sequence, the same at every call."""
    # A field that the method itself decides has no usual value: the middle of its range stands in.
    first = {each.what: each.at(0.5) if usual[each.what] is None else usual[each.what] for each in ranges}
    points = [first] if all(each.low <= first[each.what] <= each.high for each in ranges) else []
    engine = SobolEngine(len(ranges), scramble=True, seed=0)
    wanted = min(count, max(5, (count + 1) // 2))
    while len(points) < wanted:
        shares = engine.draw(1)[0].tolist()
        points.append({each.what: each.at(share) for each, share in zip(ranges, shares, strict=True)})
    return points[:wanted]


def usual_settings(ranges: Sequence[Range], method: str, base: Mapping[str, Any]) -> dict[str, Any]:
    """What a run without tuning would use for each range; None where the method decides by itself."""
    configured = parse_method(method)
    return {
        each.what: base[each.what] if each.what in SHARED else getattr(configured, each.what.partition(":")[2])
        for each in ranges
    }


def sampler(number: int) -> BaseSampler:
    """Tree-structured Parzen estimator: proposes where good runs were frequent. `number` of the run is its seed, so
    that two workers never draw the same point."""
    import warnings

    samplers = require("optuna.samplers", extra="sweep", why="tuning")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # constant_liar was experimental in earlier releases
        made: BaseSampler = samplers.TPESampler(seed=number, n_startup_trials=3, constant_liar=True)
    return made
