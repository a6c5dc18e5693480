"""Which tensors may be pruned, and the rules by which a user changes that."""

from thresher.targets.rules import Rule, bound, dense, exclude, include, parse_rule
from thresher.targets.select import Selection, Skipped, Target, select

__all__ = ["Rule", "Selection", "Skipped", "Target", "bound", "dense", "exclude", "include", "parse_rule", "select"]
