"""`thresher trail`: the networks that runs kept on the way, as a table, and one of them as a file."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from thresher.apps.cli.reading.flags import Json, Quiet
from thresher.errors import InputError

if TYPE_CHECKING:
    from thresher.trail import Point, Trail

_PICK = 'e.g. "accuracy_drop=1", "bytes=500KB", "accuracy_drop=1,sparsity=80%", "step=120"'


def trail(
    runs: Annotated[list[str], typer.Argument(metavar="RUN...", help="run folders with a trail, or trail folders")],
    pick: Annotated[str | None, typer.Option(help=f"which network to take, {_PICK}")] = None,
    out: Annotated[Path | None, typer.Option(metavar="FILE", help="write the picked network there")] = None,
    finetune: Annotated[int, typer.Option(metavar="EPOCHS", help="train the picked network, its zeros fixed")] = 0,
    reestimate_norm: Annotated[bool, typer.Option("--reestimate-norm", help="measure its batch norms anew")] = False,
    dense_accuracy: Annotated[
        float | None, typer.Option(help="in percent; for runs that began untrained, which know none")
    ] = None,
    data_root: Annotated[Path | None, typer.Option(help="folder that holds the named data sets")] = None,
    device: Annotated[str | None, typer.Option(help="auto, cpu, cuda, ...; default: that of the run")] = None,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """List the networks that runs kept on the way, and write one of them to a file.

    Example: thresher trail runs/lats90 --pick "accuracy_drop=1" --out model.safetensors
    """
    if out is not None and pick is None:
        raise InputError(f"--out {str(out)!r} without --pick", "which network to write", f"add --pick, {_PICK}")
    if (finetune or reestimate_norm) and out is None:
        raise InputError("--finetune or --reestimate-norm without --out", "a file for the result", "add --out FILE")
    exact = None if pick is None else parse_step(pick)
    wanted = None if pick is None or exact is not None else parse_pick(pick)
    from thresher.trail import choose, view
    from thresher.trail.table import printable, table

    trails = [open_trail(run, dense_accuracy) for run in runs]
    problems = [f"{each.path}: {problem}" for each in trails for problem in each.problems]
    records = view(trails)
    found: dict[str, Any] = {"points": records, "problems": problems}
    lines = [table(records)]
    if pick is not None:
        pairs = [(each, point) for each in trails for point in each.points]
        if wanted is not None:
            best = choose([point for _, point in pairs], accuracy_drop=wanted[0], budget=wanted[1])
        else:
            best = _at_step([point for _, point in pairs], exact)
        home = next(each for each, point in pairs if point is best)
        found["picked"] = {"trail": str(home.path), **best.to_dict()}
        lines += ["", f"picked: step {best.step} of {home.path}, {_summary(best)}"]
        if out is not None:
            written = _write(home, best, out, finetune, reestimate_norm, data_root, device, quiet)
            found["out"] = written
            lines += _written_lines(written)
    for problem in problems:
        typer.echo(printable(f"left out: {problem}"), err=True)
    if as_json:
        typer.echo(json.dumps(found))
    elif not quiet:
        typer.echo("\n".join(lines))


def parse_pick(text: str) -> tuple[float | None, str | None]:
    """ "accuracy_drop=1,bytes=500KB" -> (accuracy drop, budget). Errors: InputError for a drop that is no number.

    >>> parse_pick("accuracy_drop=1, bytes=500KB")
    (1.0, 'bytes=500KB')
    """
    drop, limits = None, []
    for part in filter(None, (piece.strip() for piece in text.split(","))):
        name, _, value = (piece.strip() for piece in part.partition("="))
        if name != "accuracy_drop":
            limits.append(part)
            continue
        try:
            if drop is not None:
                raise ValueError
            drop = float(value)
        except ValueError as error:
            raise InputError(
                f"--pick {text!r}", f"one accuracy_drop in percentage points, {_PICK}", "correct it"
            ) from error
    if drop is None and not limits:
        raise InputError(f"--pick {text!r}", f"which network to take, {_PICK}", "name a limit")
    return drop, ",".join(limits) or None


def parse_step(text: str) -> int | None:
    """ "step=120" -> 120, which network exactly; None for anything else. Errors: InputError for a step that is none.

    >>> parse_step("step=120"), parse_step("bytes=500KB")
    (120, None)
    """
    name, _, value = (piece.strip() for piece in text.partition("="))
    if name != "step":
        return None
    if not value.isdecimal():
        raise InputError(f"--pick {text!r}", "one step alone, e.g. step=120", "take it from the list")
    return int(value)


def _at_step(points: list[Point], step: int | None) -> Point:
    found = [point for point in points if point.step == step]
    if len(found) != 1:
        steps = ", ".join(str(point.step) for point in points) or "none"
        given = f"--pick step={step}" + (", which several trails have" if found else "")
        raise InputError(given, f"a step of one trail, of {steps}", "name one run and one of its steps")
    return found[0]


def open_trail(run: str, dense_accuracy: float | None = None) -> Trail:
    """The trail of a run folder, or in the folder itself. Errors: InputError when there is none."""
    from thresher.trail import Trail

    path = Path(run)
    if not path.is_dir():
        raise InputError(f"{run!r}, which is no folder", "a run folder, or the trail in one", "check the path")
    if not (path / "trail").is_dir() and not any(path.glob("point-*.safetensors")):
        raise InputError(
            f"{run!r} without a trail", "a run that kept networks on the way", "run thresher prune with --trail 20"
        )
    return Trail(path / "trail" if (path / "trail").is_dir() else path, dense_accuracy=dense_accuracy)


def _write(
    home: Trail,
    point: Point,
    out: Path,
    epochs: int,
    norm: bool,
    data_root: Path | None,
    device: str | None,
    quiet: bool,
) -> dict[str, Any]:
    from thresher.deploy.storage import save

    record = None if point.model is None else dict(point.model)
    state = home.state_dict(point)
    if not epochs and not norm:
        return {"path": str(out), "bytes": save(state, out, record=record).bytes}
    from thresher.apps.cli.showing.watching import watcher
    from thresher.apps.runs import Run
    from thresher.apps.train.asking.reading import read_config
    from thresher.apps.train.ending.repair import repair

    machine = {"data_root": None if data_root is None else str(data_root), "device": device}
    run = Run.open(home.path.parent)
    config = read_config(run.path, {name: value for name, value in machine.items() if value is not None})
    with tempfile.TemporaryDirectory() as folder, watcher(quiet) as progress:
        file = Path(folder) / "picked.safetensors"
        save(state, file, record=record)
        done = repair(config, file, point.thresholds, epochs=epochs, norm=norm, progress=progress)
    return {
        "path": str(out),
        "bytes": save(done.model, out, record=record).bytes,
        "finetuned_epochs": epochs,
        "norms": done.norms,
        "accuracy_before": done.accuracy_before,
        "accuracy_after": done.accuracy_after,
        "images": done.images,
    }


def _summary(point: Point) -> str:
    accuracy = "" if point.accuracy is None else f", accuracy {point.accuracy:.2f} %"
    images = "" if point.accuracy is None or point.images is None else f" on {point.images:,} test images"
    return f"{point.sparsity:.2%} zeros, {point.bytes:,} bytes{accuracy}{images}"


def _written_lines(written: dict[str, Any]) -> list[str]:
    lines = []
    if "accuracy_after" in written:
        what = [f"{written['finetuned_epochs']} epochs of fine-tuning"] if written["finetuned_epochs"] else []
        what += [f"{written['norms']} batch norms measured anew"] if written["norms"] else []
        lines.append(
            f"{', '.join(what) or 'nothing to do'}: accuracy {written['accuracy_before']:.2f} % -> "
            f"{written['accuracy_after']:.2f} % on {written['images']:,} test images"
        )
    return [*lines, f"written: {written['path']}, {written['bytes']:,} bytes"]
