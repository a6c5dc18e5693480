"""`thresher sensitivity`: how far each layer of a saved network can be pruned alone."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from thresher.apps.cli.reading.flags import Json, Quiet
from thresher.apps.cli.showing.counting import counter
from thresher.errors import InputError

if TYPE_CHECKING:
    from thresher.diagnostics import Sensitivity

SAVED_AS = "sensitivity.json"
_QUIET_SECONDS = 5.0


def sensitivity(
    file: Annotated[str, typer.Argument(metavar="FILE-or-RUN", help="a run folder or a safetensors file")],
    data: Annotated[str | None, typer.Option(help="data set; default: the one of the run")] = None,
    model: Annotated[str | None, typer.Option(help="network, for files that do not say")] = None,
    data_root: Annotated[Path | None, typer.Option(help="folder that holds the named data sets")] = None,
    limit: Annotated[int | None, typer.Option(help="at most that many images")] = None,
    sparsities: Annotated[
        str, typer.Option(help="percent of zeros in the one layer, joined by commas")
    ] = "50,80,90,95",
    drop: Annotated[float, typer.Option(help="points of accuracy that a layer may cost")] = 1.0,
    rule: Annotated[list[str] | None, typer.Option(help="as for prune, e.g. exclude:PATTERN (may be repeated)")] = None,
    groups: Annotated[str, typer.Option(help="what is pruned as one: weight, 2:4, block:4x1, row, ...")] = "weight",
    out: Annotated[Path | None, typer.Option(metavar="FILE", help="write the data as JSON, too")] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, ...")] = "auto",
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Prune each layer alone, in one shot and without training, and measure what it costs.

    Example: thresher sensitivity runs/dense --sparsities 50,80,90,95 --limit 2000 --drop 1.0
    """
    shares = parse_percents(sparsities)
    if not 0 <= drop < float("inf"):
        raise InputError(f"--drop {drop:g}", "points of accuracy, not negative", "write e.g. --drop 1.0")
    if out is not None and not out.parent.is_dir():
        raise InputError(f"--out {str(out)!r}, in a folder that is not there", "a file in a folder", "make the folder")
    from thresher.apps.train.ending.evaluate import accuracy
    from thresher.apps.train.ending.measuring import open_saved
    from thresher.diagnostics import sensitivity as measure

    saved = open_saved(file, data=data, model=model, data_root=data_root, limit=limit, device_name=device)
    about = {"file": file, "model": saved.network.name, "data": saved.data, "images": len(saved.test.data)}
    with counter(quiet, "evaluation", every=_QUIET_SECONDS) as progress:
        found = measure(
            saved.model,
            lambda network: accuracy(network, saved.test),
            shares,
            rules=rule or (),
            groups=groups,
            about={**about, "metric": "accuracy in percent"},
            progress=progress,
        )
    # Beside the run it belongs to, unless that is somebody else's.
    written = [Path(file) / SAVED_AS] if Path(file).is_dir() and os.access(file, os.W_OK) else []
    written += [] if out is None else [out]
    for path in written:
        found.save(path)
    if as_json:
        safe = {layer.name: found.safe_sparsity(layer.name, drop) for layer in found.layers}
        verdict = {"drop": drop, "safe_sparsity": safe, "fragile": list(found.fragile(drop))}
        typer.echo(json.dumps({**found.to_dict(), **verdict, "written": [str(path) for path in written]}))
    elif not quiet:
        typer.echo("\n".join([*_lines(found, drop), *(f"written: {path}" for path in written)]))


def parse_percents(text: str) -> tuple[float, ...]:
    """ "50, 90%" -> shares of zeros. Errors: InputError for anything but percents from 1 to 100.

    >>> parse_percents("50, 90%")
    (0.5, 0.9)
    """
    shares = []
    for part in filter(None, (piece.strip() for piece in text.split(","))):
        try:
            value = float(part.removesuffix("%"))
        except ValueError:
            value = float("nan")
        # 0.9 would be read as 0.9 %, which nobody means.
        if not 1 <= value <= 100:
            raise InputError(f"sparsity {part!r}", "percent of zeros from 1 to 100, e.g. 50,80,90,95", "correct it")
        shares.append(value / 100)
    if not shares:
        raise InputError(f"sparsities {text!r}", "percent of zeros, e.g. 50,80,90,95", "name at least one")
    return tuple(shares)


def _lines(found: Sensitivity, drop: float) -> list[str]:
    about, lowest = found.about, f"{100 * found.sparsities[0]:g}%"
    cost = f"{drop:g} point" + "s" * (drop != 1)
    lines = [
        f"{about['model']} on {about['data']} ({about['images']:,} test images): accuracy {found.dense:.2f} %",
        "accuracy when this layer alone loses its smallest weights, no training afterwards:",
        "",
        found.table(drop),
        "",
        f"safe sparsity: where the layer alone costs {cost} of accuracy, linear between the values measured",
    ]
    lines += [f"left out: {name} ({reason})" for name, reason in found.skipped]
    fragile = found.fragile(drop)
    if fragile:
        lines.append(f"cannot be pruned alone ({lowest} costs more than {cost}): {', '.join(fragile)}")
    else:
        lines.append(f"every layer alone can be pruned to {lowest} for at most {cost}")
    return lines
