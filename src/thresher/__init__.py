"""Thresher: prune PyTorch networks with thresholds, exactly to a budget, really smaller, measured."""

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
