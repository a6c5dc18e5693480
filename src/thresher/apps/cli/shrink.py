"""`thresher shrink`: a physically smaller network, in one file that carries its plan."""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from thresher.apps.cli.reading.failures import INTERRUPTED
from thresher.apps.cli.reading.flags import Config, Json, Quiet, given, with_settings
from thresher.apps.cli.reading.naming import new_folder
from thresher.apps.cli.showing.counting import counter
from thresher.errors import InputError

if TYPE_CHECKING:
    from thresher.apps.runs import Run
    from thresher.apps.shrinking.choosing import Chosen
    from thresher.apps.shrinking.config import ShrinkConfig

Out = Annotated[
    Path | None, typer.Option("--out", metavar="FILE", help="write the smaller network there, too (.safetensors)")
]
Folder = Annotated[Path | None, typer.Option("--run", metavar="RUN", help="run folder; default: a new one in runs/")]
Method = Annotated[
    str | None,
    typer.Option(
        metavar="NAME[:field=value,...]",
        help="ispasp, gfs, greedy, omp, l1, l2, bn-scale, taylor, random, or torch-pruning's own: tp-magnitude, "
        "tp-bn-scale, tp-taylor, tp-group-norm, tp-random [ispasp]",
    ),
]
Finetune = Annotated[int | None, typer.Option("--finetune", metavar="EPOCHS", help="train the smaller network [0]")]
Reestimate = Annotated[bool | None, typer.Option("--reestimate/--no-reestimate", help="measure its batch norms anew")]
Reconstruct = Annotated[
    bool | None, typer.Option("--reconstruct/--no-reconstruct", help="fit its layers to what the dense network gives")
]
Keep = Annotated[list[str] | None, typer.Option(help="LAYER=UNITS or LAYER=50%, beside or instead of a budget")]
Scope = Annotated[str | None, typer.Option(help="inside: streams keep their width; across: they do not [inside]")]
Allocation = Annotated[str | None, typer.Option(help="split of the budget: residual or uniform [residual]")]
RoundTo = Annotated[int | None, typer.Option(help="widths are multiples of it [1]")]
Calibration = Annotated[int | None, typer.Option(metavar="IMAGES", help="training images to choose on [640]")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="choose, print the plan and what it costs; write nothing")]


@with_settings(leave_out=("epochs", "method", "groups", "start", "trail", "checkpoint_every"))
def shrink(
    method: Method = None,
    out: Out = None,
    run: Folder = None,
    finetune: Finetune = None,
    reconstruct: Reconstruct = None,
    reestimate: Reestimate = None,
    keep: Keep = None,
    scope: Scope = None,
    allocation: Allocation = None,
    round_to: RoundTo = None,
    calibration: Calibration = None,
    config: Config = None,
    dry_run: DryRun = False,
    quiet: Quiet = False,
    as_json: Json = False,
    *,
    settings: Mapping[str, Any],
) -> None:
    """Cut whole channels and neurons until the network fits a budget; the method is ispasp unless --method says else.

    Example: thresher shrink --model resnet20 --weights cifar10 --data cifar10 --budget flops=50% --finetune 1
    --reconstruct --out small.safetensors
    """
    own = {
        "keep": keep or None,
        "scope": scope,
        "allocation": allocation,
        "round_to": round_to,
        "calibration": calibration,
        "reconstruct": reconstruct,
        "reestimate": reestimate,
    }
    asked = _asked(config, {**given(settings), "epochs": finetune, "method": method}, own)
    _check_out(out)
    from thresher.apps.shrinking.choosing import choose

    with counter(quiet) as layers:
        chosen = choose(asked, layers)
    if dry_run:
        lines = [_plan_text(chosen), "", "nothing was written"]
        record = {"plan": chosen.plan.to_dict(), "report": chosen.shrunk.report.to_dict()}
        _tell(quiet, as_json, record, lines)
        return
    _carry_out(chosen, run or new_folder("shrink", asked.train), out, quiet, as_json)


def _asked(config: Path | None, flags: Mapping[str, Any], own: Mapping[str, Any]) -> ShrinkConfig:
    """The settings of the file under the flags. Errors: InputError naming every mistake."""
    from thresher.apps.shrinking.config import ShrinkConfig, parse_keep
    from thresher.apps.train.asking.reading import parse_config, settings_of

    stored = {} if config is None else settings_of(config)
    kept = dict(stored.pop("shrink", {}))
    stored.pop("kind", None)
    settings = {**stored, **{name: value for name, value in flags.items() if value is not None}}
    settings.setdefault("epochs", 0)
    settings["method"] = settings.get("method") or "ispasp"
    kept |= {name: value for name, value in own.items() if value is not None}
    pairs = kept.pop("keep", ())
    kept["keep"] = tuple(pairs.items()) if isinstance(pairs, Mapping) else parse_keep(tuple(pairs))
    try:
        return ShrinkConfig(train=parse_config(settings), **kept)
    except TypeError as error:
        raise InputError(f"configuration {str(config)!r} ({error})", "settings of shrinking", "correct it") from error


def _check_out(out: Path | None) -> None:
    # Before an hour of fine-tuning, not after it.
    if out is not None and (out.is_dir() or not out.parent.is_dir()):
        raise InputError(f"--out {str(out)!r}", "a file in a folder that is there", "correct it; folders go to --run")


def _plan_text(chosen: Chosen) -> str:
    return f"{chosen.plan.table()}\n\n{chosen.shrunk.report}"


def _carry_out(chosen: Chosen, folder: Path, out: Path | None, quiet: bool, as_json: bool) -> None:
    from thresher.apps.cli.showing.printing import report_page
    from thresher.apps.cli.showing.watching import watcher
    from thresher.apps.runs import Run
    from thresher.apps.shrinking.carrying import STAGES, carry_out
    from thresher.apps.shrinking.storing import copy_file
    from thresher.apps.train.ending.speed import time_run

    run = Run.create(folder)
    try:
        with watcher(quiet) as progress:
            result, stages = carry_out(chosen, run, progress, command=shlex.join(["thresher", *sys.argv[1:]]))
            progress.stage("timing")
            speed = time_run(run)
    except KeyboardInterrupt as error:
        typer.echo(_stopped(run), err=True)
        raise typer.Exit(INTERRUPTED) from error
    finally:
        run.drop_if_empty()
    if out is not None:
        copy_file(run.model_path, out)
    page = report_page([run.path], run.path / "report.html")
    report = chosen.shrunk.report
    lines = [
        _plan_text(chosen),
        "",
        "accuracy " + ", ".join(f"{value:.2f} % ({STAGES[stage]})" for stage, value in stages.items()),
        f"bytes {result.dense_bytes:,} -> {result.bytes:,} ({result.bytes / max(result.dense_bytes, 1):.1%}); "
        f"multiply-adds {report.total_macs:,.0f} -> {report.macs:,.0f} "
        f"({report.macs / max(report.total_macs, 1):.1%}); "
        f"torch, {result.timed_batch} images: {result.milliseconds_dense:.2f} ms -> {result.milliseconds:.2f} ms",
        *([] if speed is None else [str(speed)]),
        f"run folder: {run.path}",
        *([] if out is None else [f"written: {out}"]),
        *([] if page is None else [f"report page: {page}"]),
    ]
    record = {
        "run": str(run.path),
        "out": None if out is None else str(out),
        "result": {**result.to_dict(), "stages": stages},
        "plan": chosen.plan.to_dict(),
        "report": report.to_dict(),
        "speed": None if speed is None else vars(speed),
        "page": None if page is None else str(page),
    }
    _tell(quiet, as_json, record, lines)


def _stopped(run: Run) -> str:
    if run.model_path.is_file():
        return f"stopped; the network before fine-tuning: {run.model_path}, to go on with by thresher train --weights"
    return f"stopped; the plan: {run.path / 'plan.json'}" if run.present() else "stopped before anything was written"


def _tell(quiet: bool, as_json: bool, record: Mapping[str, Any], lines: list[str]) -> None:
    if as_json:
        typer.echo(json.dumps(record))
    elif not quiet:
        typer.echo("\n".join(lines))
