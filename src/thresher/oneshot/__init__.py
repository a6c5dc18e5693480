"""One-shot weight pruning with calibration: magnitude, Wanda, SparseGPT, block by block over transformers stacks."""

from thresher.oneshot.methods import ONESHOT, Oneshot, parse_oneshot
from thresher.oneshot.report import LayerError, OneshotReport
from thresher.oneshot.scored import Smallest, Wanda
from thresher.oneshot.sparsegpt import SparseGpt
from thresher.oneshot.verb import prune_oneshot

__all__ = [
    "ONESHOT",
    "LayerError",
    "Oneshot",
    "OneshotReport",
    "Smallest",
    "SparseGpt",
    "Wanda",
    "parse_oneshot",
    "prune_oneshot",
]
