"""`thresher sweep`: methods x budgets x seeds, tuned alike, in one table."""

from __future__ import annotations

import inspect
import json
import shlex
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from thresher.apps.cli.reading.failures import BROKEN, INTERRUPTED
from thresher.apps.cli.reading.flags import Config, DryRun, Json, Quiet, given, with_settings
from thresher.apps.train.asking.config import TrainConfig
from thresher.apps.train.asking.reading import settings_of

if TYPE_CHECKING:
    from thresher.apps.sweep import Sweep, SweepConfig

OWN = ("methods", "budgets", "seeds", "lr", "tune", "search", "tune_budget", "held_out")
_FILLED = ("method", "budget", "seed", "lr", "held_out")


def _own_flags_first(command: Callable[..., None]) -> Callable[..., None]:
    """Help begins with what a sweep alone has; the settings of all runs follow."""
    signature = inspect.signature(command)
    ordered = sorted(signature.parameters.values(), key=lambda flag: flag.name in TrainConfig.model_fields.keys() - OWN)
    command.__signature__ = signature.replace(parameters=ordered)  # type: ignore[attr-defined]
    return command


@_own_flags_first
@with_settings(leave_out=_FILLED)
def sweep(
    out: Annotated[Path, typer.Option("--out", metavar="SWEEP", help="folder of the sweep; again to go on with it")],
    methods: Annotated[str | None, typer.Option(help="e.g. gmp,lats-early")] = None,
    budgets: Annotated[str | None, typer.Option(help="e.g. sparsity=90%,sparsity=95%")] = None,
    seeds: Annotated[str | None, typer.Option(help="e.g. 0,1,2 [0]")] = None,
    lr: Annotated[str | None, typer.Option(help="learning rates, e.g. 0.025,0.05 [0.05]")] = None,
    tune: Annotated[int | None, typer.Option(metavar="N", help="tuning runs for each method and budget [0]")] = None,
    search: Annotated[
        list[str] | None, typer.Option(help="range to tune in: lr=0.01..0.2, lats:settle=0.5..0.95 (may be repeated)")
    ] = None,
    tune_budget: Annotated[str | None, typer.Option(help="tune at this budget alone; default: at each")] = None,
    held_out: Annotated[
        float | None, typer.Option(help="share of the training images that tuning is tested on [0.1]")
    ] = None,
    workers: Annotated[int, typer.Option(min=1, help="runs at the same time on this machine")] = 1,
    retry: Annotated[bool, typer.Option("--retry", help="try the failed runs again")] = False,
    config: Config = None,
    dry_run: DryRun = False,
    quiet: Quiet = False,
    as_json: Json = False,
    *,
    settings: Mapping[str, Any],
) -> None:
    """Prune by each method to each budget with each seed, and put it all in one table.

    Commas separate; where an entry itself holds a comma, separate all by semicolons. The same command again goes on
    with a sweep that was stopped; on another machine that shares the folder, it helps.

    Example: thresher sweep --weights runs/dense --data cifar10 --methods gmp,lats --budgets sparsity=90%,sparsity=95%
    --seeds 0,1,2 --epochs 5 --out runs/sweep
    """
    own = dict(zip(OWN, (methods, budgets, seeds, lr, tune, search or None, tune_budget, held_out), strict=True))
    asked = _asked(
        out, config, {**given(settings), **{name: value for name, value in own.items() if value is not None}}
    )
    if dry_run:
        _show_plan(asked, quiet, as_json)
        return
    from thresher.apps.cli.showing.printing import report_page
    from thresher.apps.cli.showing.sweep_text import News
    from thresher.apps.sweep import open_sweep, sweep_record, table_lines, work, work_together, write_table

    command = shlex.join(["thresher", *sys.argv[1:]])
    opened = open_sweep(out, asked, command=command)
    if retry and (count := opened.retry_failed()) and not quiet:
        typer.echo(f"failed runs that get another try: {count}", err=True)
    try:
        news = (lambda: None) if quiet else News(opened).tell

        def say(message: str) -> None:
            if not quiet:
                typer.echo(message, err=True)

        if workers > 1:
            work_together(opened, workers, news, say=say, command=command)
        else:
            from thresher.apps.cli.showing.watching import watcher

            work(opened, lambda title: watcher(quiet, title=title), news, command=command)
    except KeyboardInterrupt as error:
        write_table(opened)
        typer.echo(f"stopped; go on with: thresher sweep --out {shlex.quote(str(out))}", err=True)
        raise typer.Exit(INTERRUPTED) from error
    write_table(opened)
    with suppress(KeyboardInterrupt):  # the runs are done; the table needs no times
        _time_rows(opened, quiet)
    record = sweep_record(opened)
    page = report_page([out], out / "report.html")
    if as_json:
        typer.echo(json.dumps({"sweep": str(out), **record, "page": None if page is None else str(page)}))
    elif not quiet:
        typer.echo("\n".join([*table_lines(opened), f"written: {out / 'sweep.json'}"]))
        if page is not None:
            typer.echo(f"report page: {page}")
    if any(run["state"] == "failed" for run in record["runs"]) or any(
        run["state"] == "failed" for group in record["tuning"] for run in group["runs"]
    ):
        raise typer.Exit(BROKEN)


def _time_rows(opened: Sweep, quiet: bool) -> None:
    """Milliseconds of one run in each row of the table, one after the other: workers would disturb each other."""
    from thresher.apps.cli.showing.counting import counter
    from thresher.apps.runs import Run
    from thresher.apps.train.ending.speed import SAVED_AS, time_run

    rows: dict[tuple[object, ...], Path] = {}
    for run in opened.runs:
        if (opened.path(run) / "result.json").is_file():
            rows.setdefault((run.method, run.budget, run.lr), opened.path(run))
    waiting = [path for path in rows.values() if not (path / SAVED_AS).is_file()]
    with counter(quiet, "row") as told:
        for number, path in enumerate(waiting):
            if told is not None:
                told(number, len(waiting), f"timing {path.name}")
            time_run(Run.open(path))


def _asked(out: Path, config: Path | None, flags: dict[str, Any]) -> SweepConfig:
    """The settings of the file, or of the sweep in `out` when methods or budgets are not given, under the flags."""
    from thresher.apps.sweep import is_sweep, read_sweep

    settings = {} if config is None else settings_of(config)
    if not {"methods", "budgets"} <= {**settings, **flags}.keys() and is_sweep(out):
        settings = {**settings_of(out), **settings}
    return read_sweep({**settings, **flags})


def _show_plan(asked: SweepConfig, quiet: bool, as_json: bool) -> None:
    from thresher.apps.cli.showing.sweep_text import plan_lines
    from thresher.apps.sweep import planned_groups, planned_runs
    from thresher.apps.sweep.plan import run_config
    from thresher.apps.train import make_plan

    runs, groups = planned_runs(asked), planned_groups(asked)
    plan = make_plan(run_config(asked, runs[0], {} if runs[0].lr is None else {"lr": runs[0].lr}))
    count = len(runs) + asked.tune * len(groups)
    seconds = (plan.seconds_per_epoch or 0.0) * asked.base.epochs
    if as_json:
        record = {
            "runs": [vars(run) for run in runs],
            "tuning": [{**vars(group), "runs": asked.tune} for group in groups],
            "count": count,
            "seconds_per_run": seconds,
        }
        typer.echo(json.dumps(record))
    elif not quiet:
        typer.echo("\n".join(plan_lines(asked, plan.model, count, seconds)))
