"""The plots of a page, in their order: a new plot is one function in one of these files and one line here."""

from thresher.plots.figures.compare import (
    accuracy_against_bytes,
    accuracy_against_macs,
    accuracy_against_time,
    accuracy_against_zeros,
)
from thresher.plots.figures.errors import group_errors, output_error, residuals
from thresher.plots.figures.figure import Detail, Figure
from thresher.plots.figures.histograms import histograms
from thresher.plots.figures.latency import layer_times, times
from thresher.plots.figures.layers import bytes_by_layer, macs_by_layer, zeros_by_layer
from thresher.plots.figures.progress import accuracy, loss, sparsity
from thresher.plots.figures.structured import stages, widths
from thresher.plots.figures.thresholds import implied_penalty, thresholds
from thresher.plots.figures.trail import trail

# name: (what it shows, which file it needs, function of one run)
OF_ONE_RUN = {
    "trail": ("The trail", "trail/", trail),
    "accuracy": ("Accuracy over time", "metrics.jsonl", accuracy),
    "sparsity": ("Zeros over time", "metrics.jsonl", sparsity),
    "stages": ("Accuracy on the way", "shrink.json", stages),
    "widths": ("What was cut", "shrink.json", widths),
    "output-error": ("Error of the output", "shrink.json", output_error),
    "errors": ("Error by group", "shrink.json", group_errors),
    "residuals": ("Residual against units kept", "shrink.json", residuals),
    "thresholds": ("Thresholds over time", "trace.json", thresholds),
    "penalty": ("Implied L1 coefficient λ", "trace.json", implied_penalty),
    "zeros": ("Zeros by layer", "report.json", zeros_by_layer),
    "macs": ("Multiply-adds by layer", "report.json", macs_by_layer),
    "bytes": ("Bytes by layer", "report.json", bytes_by_layer),
    "times": ("Milliseconds a pass", "bench.json", times),
    "layer-times": ("Milliseconds by layer", "bench.json", layer_times),
    "histograms": ("Weights, before and after", "histograms.json", histograms),
    "loss": ("Loss over time", "metrics.jsonl", loss),
}
OF_SEVERAL_RUNS = {
    "accuracy-zeros": accuracy_against_zeros,
    "accuracy-macs": accuracy_against_macs,
    "accuracy-bytes": accuracy_against_bytes,
    "accuracy-times": accuracy_against_time,
}

__all__ = ["OF_ONE_RUN", "OF_SEVERAL_RUNS", "Detail", "Figure"]
