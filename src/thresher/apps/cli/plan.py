"""`thresher plan show` and `thresher plan apply`: what was cut, as a table, and cut again."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from thresher.apps.cli.reading.flags import Json, Quiet
from thresher.errors import InputError

plan = typer.Typer(help="Show the plan of a shrunk network, or cut a dense network by it.", rich_markup_mode=None)
File = Annotated[Path, typer.Argument(metavar="FILE-or-RUN", help="plan.json, a run folder, or a shrunk network")]


@plan.command()
def show(file: File, quiet: Quiet = False, as_json: Json = False) -> None:
    """Print which units stay in which layers.

    Example: thresher plan show runs/small
    """
    from thresher.apps.shrinking.storing import read_plan

    found = read_plan(file)
    if as_json:
        typer.echo(found.to_json())
    elif not quiet:
        typer.echo(f"plan for a {found.model}\n\n{found.table()}")


@plan.command()
def apply(
    file: File,
    weights: Annotated[str, typer.Option(help="dense weights: a file, a run folder, or known weights by name")],
    out: Annotated[Path, typer.Option(metavar="FILE", help="where the smaller network goes (.safetensors)")],
    model: Annotated[str | None, typer.Option(help="network, for weights that do not say")] = None,
    data: Annotated[str | None, typer.Option(help="data set, for weights that do not say")] = None,
    data_root: Annotated[Path | None, typer.Option(help="folder that holds the named data sets")] = None,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Cut dense weights by a plan, without data and without training.

    Weights that were refitted after the cut are not in a plan: they are in the network that `thresher shrink` wrote.
    Example: thresher plan apply plan.json --model resnet20 --weights cifar10 --data cifar10 --out small.safetensors
    """
    from thresher.apps.shrinking.applying import apply_plan
    from thresher.apps.shrinking.storing import read_plan

    if out.is_dir() or not out.parent.is_dir():
        raise InputError(f"--out {str(out)!r}", "a file in a folder that is there", "correct it")
    record = apply_plan(read_plan(file), weights, out, model=model, data=data, data_root=data_root)
    if as_json:
        typer.echo(json.dumps(record))
    elif not quiet:
        typer.echo(
            f"parameters {record['total_params']:,} -> {record['params']:,}; "
            f"written: {record['out']}, {record['bytes']:,} bytes"
        )
