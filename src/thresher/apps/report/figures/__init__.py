"""The plots of a page, in their order: a new plot is one function in one of these files and one line here."""

from thresher.apps.report.figures.compare import accuracy_against_bytes, accuracy_against_zeros
from thresher.apps.report.figures.figure import Detail, Figure
from thresher.apps.report.figures.layers import bytes_by_layer, zeros_by_layer
from thresher.apps.report.figures.progress import accuracy, loss, sparsity
from thresher.apps.report.figures.thresholds import implied_penalty, thresholds

# (what it shows, which file it needs, function of one run)
OF_ONE_RUN = (
    ("Accuracy over time", "metrics.jsonl", accuracy),
    ("Zeros over time", "metrics.jsonl", sparsity),
    ("Thresholds over time", "trace.json", thresholds),
    ("Implied L1 coefficient λ", "trace.json", implied_penalty),
    ("Zeros by layer", "report.json", zeros_by_layer),
    ("Bytes by layer", "report.json", bytes_by_layer),
    ("Loss over time", "metrics.jsonl", loss),
)
OF_SEVERAL_RUNS = (accuracy_against_zeros, accuracy_against_bytes)

__all__ = ["OF_ONE_RUN", "OF_SEVERAL_RUNS", "Detail", "Figure"]
