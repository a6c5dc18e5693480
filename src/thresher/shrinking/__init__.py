"""Physically smaller networks: groups, budgets, selection on the pruned prefix, refit, report."""

from thresher.shrinking.blocks import shrink_folder
from thresher.shrinking.compacting.compact import Compacted, channel_rules, compact
from thresher.shrinking.loading import load
from thresher.shrinking.reconstruction.layer import LayerFit
from thresher.shrinking.reconstruction.reconstruct import reconstruct
from thresher.shrinking.report.records import GroupReport, ShrinkReport
from thresher.shrinking.selections.registry import SELECTIONS, Forward, ISpaSP, Selection, parse_selection
from thresher.shrinking.selections.scored import Scored
from thresher.shrinking.selections.taylor import Taylor
from thresher.shrinking.selections.torch_pruners import torch_pruned
from thresher.shrinking.verb import Shrunk, shrink, shrink_plan

__all__ = [
    "SELECTIONS",
    "Compacted",
    "Forward",
    "GroupReport",
    "ISpaSP",
    "LayerFit",
    "Scored",
    "Selection",
    "ShrinkReport",
    "Shrunk",
    "Taylor",
    "channel_rules",
    "compact",
    "load",
    "parse_selection",
    "reconstruct",
    "shrink",
    "shrink_folder",
    "shrink_plan",
    "torch_pruned",
]
