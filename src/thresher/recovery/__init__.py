"""Sparse recovery of hidden units from second moments: i-SpaSP, its bound, its baselines, the refit."""

from thresher.recovery.compressibility import Compressibility, fit_compressibility, slope_of
from thresher.recovery.forward import gfs, gfs_sizes, greedy, greedy_order, in_order, omp, omp_order
from thresher.recovery.ispasp import Recovery, ispasp, residual_curve
from thresher.recovery.problem import Part, Problem, top
from thresher.recovery.refit import refit, refit_loss, refit_prefixes
from thresher.recovery.samples import Sampled, ispasp_sampled, ispasp_samples, score_rows

__all__ = [
    "Compressibility",
    "Part",
    "Problem",
    "Recovery",
    "Sampled",
    "fit_compressibility",
    "gfs",
    "gfs_sizes",
    "greedy",
    "greedy_order",
    "in_order",
    "ispasp",
    "ispasp_sampled",
    "ispasp_samples",
    "omp",
    "omp_order",
    "refit",
    "refit_loss",
    "refit_prefixes",
    "residual_curve",
    "score_rows",
    "slope_of",
    "top",
]
