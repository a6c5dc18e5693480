"""Physically smaller networks: groups, budgets, selection on the pruned prefix, refit, report."""

from thresher.shrinking.report import GroupReport, ShrinkReport
from thresher.shrinking.selections import SELECTIONS, Forward, ISpaSP, Scored, Selection, parse_selection
from thresher.shrinking.verb import Shrunk, shrink, shrink_plan

__all__ = [
    "SELECTIONS",
    "Forward",
    "GroupReport",
    "ISpaSP",
    "Scored",
    "Selection",
    "ShrinkReport",
    "Shrunk",
    "parse_selection",
    "shrink",
    "shrink_plan",
]
