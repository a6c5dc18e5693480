"""The end of a run: project onto the budget, save, evaluate, time, and write it all down."""

from __future__ import annotations

import torch
from torch import nn

from thresher.apps.runs import Run
from thresher.apps.train.ending.evaluate import accuracy
from thresher.apps.train.ending.histograms import histograms
from thresher.apps.train.ending.result import Result
from thresher.apps.train.loss import diverged
from thresher.apps.train.setup import Workbench
from thresher.apps.train.trailing import TrailKeeper
from thresher.budget.counts import eval_mode
from thresher.deploy.latency import measure_ratio
from thresher.deploy.storage import save

_TIMED_BATCH = 32


def conclude(
    bench: Workbench, run: Run, *, seconds: float, accuracy_before: float, keeper: TrailKeeper | None = None
) -> Result:
    """Write trace.json, report.json, histograms.json, model.safetensors, the last point of the trail and, at the end,
    result.json; the network is plain afterwards.

    Errors: NumericsError for weights that are not finite.
    """
    report = None
    if bench.pruner is not None:
        trace = bench.pruner.trace.state_dict()
        report = bench.pruner.finish()
        run.write("trace.json", trace)
        report.save(run.path / "report.json")
    for name, parameter in bench.model.named_parameters():
        if not torch.isfinite(parameter).all():
            raise diverged(f"{name} with NaN or infinity at the end of the run")
    if bench.pruner is not None:
        run.write("histograms.json", histograms(bench.dense, bench.model, bench.pruner.trace.state_dict()))
    file = save(bench.model, run.model_path, record=bench.record)
    if keeper is not None:
        keeper.finished()
    dense, finished, batch = time_both(bench)
    result = Result(
        accuracy_before=accuracy_before,
        accuracy_after=accuracy(bench.model, bench.test, channels_last=bench.config.channels_last),
        bytes=file.bytes,
        dense_bytes=file.dense_bytes,
        sparsity=0.0 if report is None else report.sparsity,
        zeros=None if report is None else report.zeros,
        entries=None if report is None else report.entries,
        asked=bench.config.budget,
        got={} if report is None else dict(report.got),
        macs=None if report is None else report.macs,
        total_macs=None if report is None else report.total_macs,
        touched=None if report is None else report.touched,
        steps=bench.step,
        seconds=seconds,
        milliseconds_dense=dense,
        milliseconds=finished,
        timed_batch=batch,
    )
    run.write("result.json", result.to_dict())
    return result


def time_both(bench: Workbench) -> tuple[float, float, int]:
    """(milliseconds of the network before the run, of the finished one, images in the timed batch)."""
    images = next(iter(bench.test))[0][:_TIMED_BATCH]
    if bench.config.channels_last:
        images = images.contiguous(memory_format=torch.channels_last)

    def pass_through(model: nn.Module) -> None:
        with torch.inference_mode():
            model(images)

    with eval_mode(bench.dense), eval_mode(bench.model):
        measured = measure_ratio(
            lambda: pass_through(bench.dense), lambda: pass_through(bench.model), rounds=5, min_time=0.03
        )
    return 1000 * measured.a.seconds, 1000 * measured.b.seconds, len(images)
