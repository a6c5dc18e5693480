"""Thresher: prune PyTorch networks with thresholds, exactly to a budget, really smaller, measured."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from thresher.budget.language import Budget
    from thresher.budget.report import Report
    from thresher.deploy.storage import load, load_state, save
    from thresher.errors import BudgetError, InputError, NumericsError, StateError, ThresherError
    from thresher.methods import Gmp, Lats, Magnitude, Random
    from thresher.session import Pruner, Trace, prune
    from thresher.targets import Rule, bound, dense, exclude, include

__version__ = "0.1.0"

__all__ = [
    "Budget",
    "BudgetError",
    "Gmp",
    "InputError",
    "Lats",
    "Magnitude",
    "NumericsError",
    "Pruner",
    "Random",
    "Report",
    "Rule",
    "StateError",
    "ThresherError",
    "Trace",
    "bound",
    "dense",
    "exclude",
    "include",
    "load",
    "load_state",
    "prune",
    "save",
]

_HOMES = {
    "thresher.budget.language": ("Budget",),
    "thresher.budget.report": ("Report",),
    "thresher.deploy.storage": ("load", "load_state", "save"),
    "thresher.errors": ("BudgetError", "InputError", "NumericsError", "StateError", "ThresherError"),
    "thresher.methods": ("Gmp", "Lats", "Magnitude", "Random"),
    "thresher.session": ("Pruner", "Trace", "prune"),
    "thresher.targets": ("Rule", "bound", "dense", "exclude", "include"),
}

if not TYPE_CHECKING:

    def __getattr__(name: str) -> Any:
        # On first use, not before: `thresher --help` and reading a report shall not wait for torch.
        for home, names in _HOMES.items():
            if name in names:
                value = globals()[name] = getattr(importlib.import_module(home), name)
                return value
        try:
            return importlib.import_module(f"{__name__}.{name}")
        except ModuleNotFoundError as error:
            if error.name != f"{__name__}.{name}":
                raise
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}") from None

    def __dir__() -> list[str]:
        return sorted({*globals(), *__all__})
