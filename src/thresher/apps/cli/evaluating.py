"""`thresher eval`: accuracy, zeros, bytes and milliseconds of a saved network."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from thresher.apps.cli.reading.flags import Json, Quiet
from thresher.apps.cli.showing.counting import counter


def evaluate(
    file: Annotated[str, typer.Argument(metavar="FILE-or-RUN", help="a run folder or a safetensors file")],
    data: Annotated[str | None, typer.Option(help="data set; default: the one of the run")] = None,
    model: Annotated[str | None, typer.Option(help="network, for files that do not say")] = None,
    data_root: Annotated[Path | None, typer.Option(help="folder that holds the named data sets")] = None,
    limit: Annotated[int | None, typer.Option(help="at most that many images")] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, ...")] = "auto",
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Evaluate a saved network on the test part of a data set.

    Example: thresher eval runs/lats90 --data cifar10
    """
    from thresher.apps.train.ending.measuring import measure_saved, open_saved

    with counter(quiet or as_json, "part", every=5.0) as told:
        saved = open_saved(file, data=data, model=model, data_root=data_root, limit=limit, device_name=device)
        record: dict[str, Any] = measure_saved(saved, told)
    if as_json:
        typer.echo(json.dumps(record))
    elif not quiet:
        size = "" if record["bytes"] is None else f"; file {record['bytes']:,} bytes"
        typer.echo(
            f"{record['model']} on {record['data']} ({record['images']:,} test images): "
            f"accuracy {record['accuracy']:.2f} %\n"
            f"zeros {record['zeros']:,} of {record['entries']:,} convolution and linear weights "
            f"({record['sparsity']:.2%}){size}\n"
            f"{record['milliseconds']:.2f} ms for {record['timed_batch']} images"
        )
