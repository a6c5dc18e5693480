"""`thresher train` and `thresher prune`."""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import typer

from thresher.apps.cli.reading.failures import INTERRUPTED
from thresher.apps.cli.reading.flags import PRUNING, Config, DryRun, Json, Out, Quiet, Resume, given, with_settings
from thresher.apps.cli.reading.naming import new_folder
from thresher.apps.train.asking.config import TrainConfig
from thresher.apps.train.asking.reading import parse_config, settings_of
from thresher.errors import InputError

BOUND_IN_METHOD = ("threshold=", "l1=")
"""Settings of a method that say how far to prune, in place of a budget."""


@with_settings(leave_out=PRUNING)
def train(
    config: Config = None,
    out: Out = None,
    resume: Resume = False,
    dry_run: DryRun = False,
    quiet: Quiet = False,
    as_json: Json = False,
    *,
    settings: Mapping[str, Any],
) -> None:
    """Train a network without pruning it.

    Example: thresher train --model resnet20 --data cifar10 --epochs 30 --out runs/dense
    """
    asked = _asked(config, out, resume, given(settings))
    if asked.method is not None:
        raise InputError(f"method={asked.method!r} for train", "no method", "use `thresher prune`")
    _run(asked, out or new_folder("train", asked), resume, dry_run, quiet, as_json)


@with_settings()
def prune(
    config: Config = None,
    out: Out = None,
    resume: Resume = False,
    dry_run: DryRun = False,
    quiet: Quiet = False,
    as_json: Json = False,
    *,
    settings: Mapping[str, Any],
) -> None:
    """Prune a network to a budget while training it; the method is lats unless --method says otherwise.

    Example: thresher prune --model resnet20 --weights cifar10 --data cifar10 --budget sparsity=90% --epochs 5
    """
    asked = _asked(config, out, resume, given(settings), method="lats")
    if asked.budget is None and not any(word in str(asked.method) for word in BOUND_IN_METHOD):
        raise InputError("no budget", "what the network may cost, e.g. sparsity=90%, flops=25%", "add --budget")
    _run(asked, out or new_folder("prune", asked), resume, dry_run, quiet, as_json)


def _asked(
    config: Path | None, out: Path | None, resume: bool, flags: dict[str, Any], *, method: str | None = None
) -> TrainConfig:
    """The settings of the file (or of the run to resume) under the flags; `method` when neither names one."""
    if resume and out is None:
        raise InputError("--resume without --out", "the folder of the run to go on with", "add --out RUN")
    if resume and config is None and out is not None and (out / "config.json").is_file():
        config = out
    settings = {**({} if config is None else settings_of(config)), **flags}
    if settings.get("method") is None:
        settings["method"] = method
    return parse_config(settings)


def _run(asked: TrainConfig, out: Path, resume: bool, dry_run: bool, quiet: bool, as_json: bool) -> None:
    from thresher.apps.cli.showing.printing import outcome_lines, plan_lines, report_page
    from thresher.apps.cli.showing.watching import watcher
    from thresher.apps.runs import Run
    from thresher.apps.train import fit, make_plan
    from thresher.apps.train.ending.speed import time_run

    if dry_run:
        plan = make_plan(asked)
        _tell(quiet, as_json, plan.to_dict(), plan_lines(plan))
        if plan.reachable is False:
            raise typer.Exit(2)
        return
    run = Run.create(out, resume=resume)
    try:
        with watcher(quiet) as progress:
            result = fit(asked, run, progress, command=shlex.join(["thresher", *sys.argv[1:]]))
            speed = None
            if asked.method is not None:
                progress.stage("timing")
                speed = time_run(run)
    except KeyboardInterrupt as error:
        kind = "train" if asked.method is None else "prune"
        again = f"thresher {kind} --resume --out {shlex.quote(str(run.path))}"
        typer.echo(
            f"stopped; go on with: {again}" if run.present() else "stopped before anything was written", err=True
        )
        raise typer.Exit(INTERRUPTED) from error
    finally:
        run.drop_if_empty()
    page = report_page([run.path], run.path / "report.html")
    report = run.report
    record = {
        "run": str(run.path),
        "result": result.to_dict(),
        "report": None if report is None else report.to_dict(),
        "speed": None if speed is None else vars(speed),
        "page": None if page is None else str(page),
    }
    _tell(quiet, as_json, record, outcome_lines(run, result, report, speed, page))


def _tell(quiet: bool, as_json: bool, record: Mapping[str, Any], lines: list[str]) -> None:
    if as_json:
        typer.echo(json.dumps(record))
    elif not quiet:
        typer.echo("\n".join(lines))
