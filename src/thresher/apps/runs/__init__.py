"""The run folder as data: what a run was asked, how it went, and what it left, readable at any moment."""

from thresher.apps.runs.folder import FILES, Run
from thresher.apps.runs.metrics import Metrics, read_metrics

__all__ = ["FILES", "Metrics", "Run", "read_metrics"]
