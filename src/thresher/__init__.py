"""Thresher: prune PyTorch networks with thresholds, exactly to a budget, really smaller, measured."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from thresher.budget.language import Budget
    from thresher.budget.report import Report
    from thresher.deploy.engine import compile, load_compiled
    from thresher.deploy.storage import load_state, save
    from thresher.errors import BudgetError, InputError, NumericsError, StateError, ThresherError
    from thresher.methods import Asl, Gmp, Lats, Ltp, Magnitude, Power, Random, St3, Str
    from thresher.oneshot import OneshotReport, SparseGpt, Wanda, prune_oneshot
    from thresher.session import Pruner, Trace, prune, reestimate_norm
    from thresher.shrinking import (
        Compacted,
        ISpaSP,
        Shrunk,
        Taylor,
        channel_rules,
        compact,
        load,
        reconstruct,
        shrink,
        shrink_plan,
        torch_pruned,
    )
    from thresher.structure import ShrinkPlan
    from thresher.targets import Rule, bound, dense, exclude, include
    from thresher.trail import Trail

__version__ = "0.1.0"

__all__ = [
    "Asl",
    "Budget",
    "BudgetError",
    "Compacted",
    "Gmp",
    "ISpaSP",
    "InputError",
    "Lats",
    "Ltp",
    "Magnitude",
    "NumericsError",
    "OneshotReport",
    "Power",
    "Pruner",
    "Random",
    "Report",
    "Rule",
    "ShrinkPlan",
    "Shrunk",
    "SparseGpt",
    "St3",
    "StateError",
    "Str",
    "Taylor",
    "ThresherError",
    "Trace",
    "Trail",
    "Wanda",
    "bound",
    "channel_rules",
    "compact",
    "compile",
    "dense",
    "exclude",
    "include",
    "load",
    "load_compiled",
    "load_state",
    "prune",
    "prune_oneshot",
    "reconstruct",
    "reestimate_norm",
    "save",
    "shrink",
    "shrink_plan",
    "torch_pruned",
]

_HOMES = {
    "thresher.budget.language": ("Budget",),
    "thresher.budget.report": ("Report",),
    "thresher.deploy.engine": ("compile", "load_compiled"),
    "thresher.deploy.storage": ("load_state", "save"),
    "thresher.errors": ("BudgetError", "InputError", "NumericsError", "StateError", "ThresherError"),
    "thresher.methods": ("Asl", "Gmp", "Lats", "Ltp", "Magnitude", "Power", "Random", "St3", "Str"),
    "thresher.oneshot": ("OneshotReport", "SparseGpt", "Wanda", "prune_oneshot"),
    "thresher.session": ("Pruner", "Trace", "prune", "reestimate_norm"),
    "thresher.shrinking": (
        "Compacted",
        "ISpaSP",
        "Shrunk",
        "Taylor",
        "channel_rules",
        "compact",
        "load",
        "reconstruct",
        "shrink",
        "shrink_plan",
        "torch_pruned",
    ),
    "thresher.structure": ("ShrinkPlan",),
    "thresher.targets": ("Rule", "bound", "dense", "exclude", "include"),
    "thresher.trail": ("Trail",),
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
