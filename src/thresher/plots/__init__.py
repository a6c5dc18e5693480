"""A run folder as plots: as data for any page, and as matplotlib figures for papers."""

from thresher.plots.drawing import draw
from thresher.plots.papers import FORMATS, NAMES, plot, save_all
from thresher.plots.reading import Run, read_run

__all__ = ["FORMATS", "NAMES", "Run", "draw", "plot", "read_run", "save_all"]
