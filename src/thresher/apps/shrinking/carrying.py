"""A chosen cut carried out: accuracy at each stage, repair, the file with its plan, and the run folder."""

from __future__ import annotations

import platform
from dataclasses import replace
from typing import Any

import torch

from thresher.apps.runs import Run
from thresher.apps.runs.metrics import Metrics
from thresher.apps.shrinking.choosing import Chosen, calibration_of
from thresher.apps.shrinking.repairing import finetune, remeasure
from thresher.apps.train.device import machine_settings
from thresher.apps.train.ending.evaluate import accuracy
from thresher.apps.train.ending.finishing import time_both
from thresher.apps.train.ending.result import Result
from thresher.apps.train.loss import diverged
from thresher.apps.train.progress import Progress
from thresher.deploy.storage import save
from thresher.shrinking import reconstruct

STAGES = {
    "before": "dense",
    "cut": "straight after the cut",
    "reconstructed": "layers fitted to the dense network",
    "reestimated": "batch norm measured anew",
    "finetuned": "fine-tuned",
}
"""The moments at which accuracy is measured, in this order; those that were not asked for are left out."""


def begin(chosen: Chosen, run: Run, command: str | None) -> None:
    """Write config.json, plan.json and shrink.json."""
    import thresher

    versions = {"thresher": thresher.__version__, "torch": torch.__version__, "python": platform.python_version()}
    run.write("config.json", {"command": command, **versions, **chosen.config.to_dict()})
    run.write("plan.json", chosen.plan.to_dict())
    run.write("shrink.json", chosen.shrunk.report.to_dict())


def carry_out(
    chosen: Chosen, run: Run, progress: Progress | None = None, *, command: str | None = None
) -> tuple[Result, dict[str, float]]:
    """Measure, repair as the configuration says, and fill the folder of `run`; result.json comes last.

    Returns: the outcome, and the accuracy in percent at each stage of `STAGES` that there was.
    Errors: NumericsError for weights or a loss that are not finite, InputError for a network that can't be traced for
    reconstruction.
    """
    progress = progress or Progress()
    config, bench, small = chosen.config, chosen.bench, chosen.shrunk.model
    seconds = chosen.seconds
    with machine_settings(config.train):
        begin(chosen, run, command)
        stages: dict[str, float] = {}

        def note(stage: str, value: float, log: Metrics) -> None:
            stages[stage] = value
            log.add({"kind": "stage", "stage": stage, "step": bench.step, "accuracy": value})
            progress.said(f"accuracy {value:.2f} % ({STAGES[stage]})")

        with run.log() as log:
            progress.stage("measuring")
            channels_last = config.train.channels_last
            note("before", accuracy(bench.dense, bench.test, channels_last=channels_last), log)
            note("cut", accuracy(small, bench.test, channels_last=channels_last), log)
            if config.reconstruct:
                progress.stage("fitting layers to the dense network")
                images = calibration_of(bench, config.calibration)
                reconstruct(small, bench.dense, images, plan=chosen.shrunk.plan)
                note("reconstructed", accuracy(small, bench.test, channels_last=channels_last), log)
            if config.reestimate:
                progress.stage("measuring batch norm")
                if remeasure(bench, small):
                    note("reestimated", accuracy(small, bench.test, channels_last=channels_last), log)
                else:
                    progress.said("no batch norm to measure anew")
            bench.model = small
            network = replace(bench.network, model=small, plan=chosen.plan)
            saved = network.record(bench.record["normalisation"])
            if config.train.epochs:
                save(small, run.model_path, record=saved)  # what there is, should fine-tuning be stopped
                note("finetuned", finetune(bench, small, log, progress), log)
        for name, parameter in small.named_parameters():
            if not torch.isfinite(parameter).all():
                raise diverged(f"{name} with NaN or infinity at the end of the run")
        progress.stage("measuring")
        file = save(small, run.model_path, record=saved)
        result = _result(chosen, stages, file.bytes, seconds)
        record: dict[str, Any] = {**result.to_dict(), "stages": stages}
        run.write("result.json", record)
    return result, stages


def _result(chosen: Chosen, stages: dict[str, float], size: int, seconds: float) -> Result:
    bench, report = chosen.bench, chosen.shrunk.report
    dense, finished, batch = time_both(bench)
    asked = bench.config.budget
    got = {"flops": report.macs, "params": float(report.params), "bytes": float(size)}
    return Result(
        accuracy_before=stages["before"],
        accuracy_after=list(stages.values())[-1],
        bytes=size,
        dense_bytes=sum(tensor.nbytes for tensor in bench.dense.state_dict().values()),
        sparsity=0.0,
        zeros=None,
        entries=None,
        asked=asked,
        got={name: value for name, value in got.items() if name in (asked or "flops")},
        macs=report.macs,
        total_macs=report.total_macs,
        touched=None,
        steps=bench.step,
        seconds=seconds,
        milliseconds_dense=dense,
        milliseconds=finished,
        timed_batch=batch,
    )
