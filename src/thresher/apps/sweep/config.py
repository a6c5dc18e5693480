"""What a sweep is asked: lists where a run has one value, the tuning, and the settings that all runs share."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from thresher.apps.sweep.search import parse_range
from thresher.apps.train.asking.config import TrainConfig
from thresher.apps.train.asking.reading import parse_config
from thresher.budget.language import Budget
from thresher.errors import InputError
from thresher.methods import parse_method

LISTS = {"methods": "method", "budgets": "budget", "seeds": "seed", "lr": "lr"}
"""Settings that hold a list, and the setting of a run that each one fills."""
HELD_OUT = 0.1


@dataclass(frozen=True, kw_only=True)
class SweepConfig:
    """Every combination of `methods`, `budgets`, `seeds` and `lr` is one run; all else comes from `base`.

    Args:
        methods, budgets: as `thresher prune` takes them.
        seeds: of start weights, data order and augmentation.
        lr: learning rates. With tuning there is one: where the search begins.
        tune: so many tuning runs for each method at each budget; 0: no tuning.
        search: ranges to tune in, e.g. "lr=0.01..0.2", "lats:settle=0.5..0.95"; see `parse_range`.
        tune_budget: tune at this budget alone, and use what was found at all; None: tune at each.
        held_out: share of the training images that tuning runs are tested on. Test images never decide a setting.
        base: a whole configuration of a run; its method, budget, seed and lr are placeholders.

    Errors: InputError for empty lists, twice the same entry, and whatever `thresher prune` would refuse.
    """

    methods: tuple[str, ...]
    budgets: tuple[str, ...]
    seeds: tuple[int, ...] = (0,)
    lr: tuple[float, ...] = (0.05,)
    tune: int = 0
    search: tuple[str, ...] = ()
    tune_budget: str | None = None
    held_out: float = HELD_OUT
    base: TrainConfig

    def __post_init__(self) -> None:
        for name in LISTS:
            values = getattr(self, name)
            if not values or len(set(values)) < len(values):
                raise InputError(f"{name}={_shown(values)}", "at least one entry, each once", f"correct {name}")
        for method in self.methods:
            if "=" in method.partition(":")[0]:
                raise InputError(
                    f"method {method!r}",
                    "NAME or NAME:FIELD=VALUE",
                    "where a method itself holds a comma, separate the methods by semicolons",
                )
            parse_method(method)
        for budget in self.budgets:
            Budget.parse(budget)
        if self.tune < 0 or not 0 < self.held_out < 1:
            raise InputError(
                f"tune={self.tune}, held_out={self.held_out:g}",
                "0 or more tuning runs, on a share of the training images between 0 and 1",
                "correct them",
            )
        if self.tune and len(self.lr) > 1:
            raise InputError(
                f"lr={_shown(self.lr)} with tune={self.tune}",
                "one learning rate to begin with, or a range",
                f"write --search lr={min(self.lr):g}..{max(self.lr):g}, or leave --tune out",
            )
        if not self.tune and (self.search or self.tune_budget):
            raise InputError("a search without tuning", "a number of tuning runs", "add --tune N")
        if self.tune_budget is not None and self.tune_budget not in self.budgets:
            raise InputError(
                f"tune_budget={self.tune_budget!r}", f"one of {', '.join(self.budgets)}", "tune at one of the budgets"
            )
        for text in self.search:
            parse_range(text, self.methods)

    def record(self) -> dict[str, Any]:
        """Plain data, JSON-ready, that `read_sweep` reads back: the sweep's own settings, then those of all runs."""
        own = {name: getattr(self, name) for name in (*LISTS, "tune", "search", "tune_budget", "held_out")}
        shared = self.base.model_dump(mode="json")
        return {
            **{name: list(value) if isinstance(value, tuple) else value for name, value in own.items()},
            **{name: value for name, value in shared.items() if name not in own and name not in LISTS.values()},
        }


def read_sweep(settings: Mapping[str, Any]) -> SweepConfig:
    """The configuration that `settings` spell: those of SweepConfig, beside those of a run; lists may be text.

    In text, commas separate; where an entry itself holds a comma, separate all by semicolons.

    >>> asked = {"methods": "gmp,lats", "budgets": "flops=25%,bytes=9KB;", "seeds": "0,1", "model": "mlp"}
    >>> read_sweep(asked).methods, read_sweep(asked).budgets, read_sweep(asked).seeds
    (('gmp', 'lats'), ('flops=25%,bytes=9KB',), (0, 1))

    Errors: InputError for what is missing, unknown or not allowed.
    """
    left = dict(settings)
    for plural in ("methods", "budgets", "seeds"):
        single = LISTS[plural]
        if single in left:
            raise InputError(f"the setting {single!r} for a sweep", f"a list, {plural!r}", f"write {plural} instead")
    default = TrainConfig.model_fields["lr"].default
    own: dict[str, Any] = {
        "methods": _listed("methods", left.pop("methods", ()), str),
        "budgets": _listed("budgets", left.pop("budgets", ()), str),
        "seeds": _listed("seeds", left.pop("seeds", (0,)), int),
        "lr": _listed("lr", left.pop("lr", (default,)), float),
        "tune": _one("tune", left.pop("tune", 0), int),
        "search": _listed("search", left.pop("search", ()), str),
        "tune_budget": left.pop("tune_budget", None),
        "held_out": _one("held_out", left.pop("held_out", HELD_OUT), float),
    }
    for name, example in (("methods", "gmp,lats"), ("budgets", "sparsity=90%,sparsity=95%")):
        if not own[name]:
            raise InputError(f"a sweep without {name}", f"a list, e.g. {example}", f"add --{name}")
    first = {single: own[plural][0] for plural, single in LISTS.items() if own[plural]}
    return SweepConfig(**own, base=parse_config({**left, **first}))


def _listed(name: str, given: Any, kind: Callable[[Any], Any]) -> tuple[Any, ...]:
    if isinstance(given, str):
        given = [part for piece in given.split(";" if ";" in given else ",") if (part := piece.strip())]
    entries = given if isinstance(given, (list, tuple)) else [given]
    return tuple(_one(name, entry, kind) for entry in entries)


def _one(name: str, given: Any, kind: Callable[[Any], Any]) -> Any:
    try:
        value = kind(given)
        if isinstance(given, bool) or (kind is int and float(given) != value):
            raise ValueError
    except (TypeError, ValueError) as error:
        word = {int: "whole numbers", float: "numbers"}.get(kind, "texts")  # type: ignore[call-overload]
        raise InputError(f"{name}={given!r}", f"{word}, joined by commas", f"correct {name}") from error
    return value


def _shown(values: tuple[Any, ...]) -> str:
    return ",".join(map(str, values))
