"""`thresher demo`: the whole way on an embedded data set, in about a minute."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from thresher.apps.cli.reading.flags import Json, Quiet
from thresher.apps.cli.reading.naming import unused
from thresher.errors import InputError

if TYPE_CHECKING:
    from thresher.apps.runs import Run
    from thresher.apps.train import Result
    from thresher.apps.train.ending.speed import Speed

    Done = tuple[str, Run, Result, Speed | None]

METHODS = ("magnitude", "gmp", "lats-early", "power", "asl", "ltp")


def demo(
    out: Annotated[Path | None, typer.Option(metavar="FOLDER", help="default: a new folder in runs/demo/")] = None,
    budget: Annotated[str, typer.Option(help="the same for every method")] = "sparsity=90%",
    method: Annotated[list[str] | None, typer.Option(help="may be repeated; default: " + ", ".join(METHODS))] = None,
    dense_epochs: Annotated[int, typer.Option(help="passes over the digits for the dense network")] = 25,
    epochs: Annotated[int, typer.Option(help="passes for each method")] = 40,
    seed: Annotated[int, typer.Option(help="of everything random")] = 0,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Train a small network on scikit-learn's digits, prune it by several methods to one budget, compare them.

    No files and no network are needed. Example: thresher demo --method lats --method gmp
    """
    from thresher.apps.cli.showing.printing import report_page

    folder = out or unused(Path("runs") / "demo" / time.strftime("%Y%m%d-%H%M%S"))
    if folder.is_dir() and any(folder.iterdir()):
        raise InputError(f"the folder {str(folder)!r}, which is not empty", "a new folder", "choose another --out")
    began = time.perf_counter()
    common: dict[str, Any] = {"data": "digits", "seed": seed}
    dense = {"model": "small-cnn", "epochs": dense_epochs, "schedule": "cosine"}
    names = method or METHODS
    done = [_one("dense", folder, {**common, **dense}, quiet, f"1 of {len(names) + 1}: dense")]
    for place, name in enumerate(names, start=2):
        settings = {"weights": str(folder / "dense"), "epochs": epochs, "method": name, "budget": budget, "trail": 12}
        done.append(_one(name, folder, {**common, **settings}, quiet, f"{place} of {len(names) + 1}: {name}"))
    page = report_page([run.path for _, run, *_ in done], folder / "report.html")
    seconds = time.perf_counter() - began
    if as_json:
        rows = [
            {"method": name, "run": str(run.path), **result.to_dict(), "speed": None if speed is None else vars(speed)}
            for name, run, result, speed in done
        ]
        typer.echo(json.dumps({"runs": rows, "page": None if page is None else str(page), "seconds": seconds}))
    elif not quiet:
        typer.echo("\n".join([f"small-cnn on digits, {budget}, {epochs} epochs for each method", "", *_table(done)]))
        typer.echo(
            "\nms: one image on one thread; dense: the same network without zeros, in the faster of torch and thresher"
        )
        typer.echo(f"run folders: {folder}\n{seconds:.0f} s in all")
        if page is not None:
            typer.echo(f"report page: {page}")


def _one(name: str, folder: Path, settings: dict[str, Any], quiet: bool, title: str) -> Done:
    from thresher.apps.cli.showing.watching import watcher
    from thresher.apps.runs import Run
    from thresher.apps.train import fit, read_config
    from thresher.apps.train.ending.speed import time_run

    # A method may carry settings, such as "lats:mode=init"; folder names should not.
    run = Run.create(folder / name.translate(str.maketrans(":=,", "---")))
    with watcher(quiet, title=title) as progress:
        result = fit(read_config(overrides=settings), run, progress, command="thresher demo")
        return name, run, result, time_run(run)


def _table(done: list[Done]) -> list[str]:
    from thresher.budget.report import aligned

    rows = [("method", "accuracy", "zeros", "sparsity", "bytes", "ms", "engine", "ms dense", "faster")]
    for name, _, result, speed in done:
        first = (name, f"{result.accuracy_after:.2f} %", f"{result.zeros or 0:,}", f"{result.sparsity:.3%}")
        if speed is None:
            times = ("?", "", "?", "")
        elif speed.now is None:
            times = (f"{speed.dense:.3f}", speed.dense_engine, f"{speed.dense:.3f}", "")
        else:
            times = (f"{speed.now:.3f}", str(speed.engine), f"{speed.dense:.3f}", f"{speed.gain:.2f}x")
        rows.append((*first, f"{result.bytes:,}", *times))
    return aligned(rows)
