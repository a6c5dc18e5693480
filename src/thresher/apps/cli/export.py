"""`thresher export`: a saved network for other programs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from thresher.apps.cli.reading.flags import Json, Quiet
from thresher.apps.cli.reading.opening import open_network
from thresher.errors import InputError

FORMATS = {"onnx": "model.onnx", "torch": "model.pt2", "hf": "model-hf"}


def export(
    file: Annotated[str, typer.Argument(metavar="FILE-or-RUN", help="a run folder or a safetensors file")],
    format: Annotated[str, typer.Option("--format", help="onnx, torch (torch.export, .pt2) or hf (a folder)")] = "onnx",
    out: Annotated[Path | None, typer.Option(help="file or folder to write; default: beside the network")] = None,
    model: Annotated[str | None, typer.Option(help="network, for files that do not say")] = None,
    shape: Annotated[str | None, typer.Option(help="input, for files that do not say, e.g. 3,32,32")] = None,
    classes: Annotated[int | None, typer.Option(help="number of classes, for files that do not say")] = None,
    fold: Annotated[bool, typer.Option("--fold", help="fold batch norms into the layers before them")] = False,
    static_batch: Annotated[bool, typer.Option("--static-batch", help="the batch of --batch alone")] = False,
    batch: Annotated[int, typer.Option(min=1, help="images that the network is traced with")] = 1,
    tolerance: Annotated[
        float, typer.Option(help="largest difference allowed, as a share of the largest output")
    ] = 1e-4,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Write a network as ONNX, torch.export or a Hugging Face folder, after comparing its outputs.

    Example: thresher export runs/lats90 --format onnx --out lats90.onnx
    """
    if format not in FORMATS:
        raise InputError(f"--format {format}", f"one of {', '.join(FORMATS)}", "correct --format")
    if format == "hf" and (fold or static_batch):
        raise InputError(
            "--fold or --static-batch with --format hf", "neither: the folder holds layers", "leave it out"
        )
    if not 0 < tolerance < float("inf"):
        raise InputError(f"--tolerance {tolerance:g}", "a number above 0", "correct it")
    import torch

    from thresher.deploy.export import export_huggingface, export_onnx, export_torch

    network = open_network(file, model, shape, classes)
    place = Path(file).expanduser()
    target = out or (place if place.is_dir() else place.parent) / FORMATS[format]
    if format == "hf":
        # Networks of the library are wrapped here, so that they are called like any other.
        done = export_huggingface(getattr(network.model, "network", network.model), target)
    else:
        example = torch.randn(batch, *network.input_shape, generator=torch.Generator().manual_seed(0))
        write: Any = export_onnx if format == "onnx" else export_torch
        done = write(network.model, target, example, fold=fold, dynamic_batch=not static_batch, tolerance=tolerance)
    if as_json:
        typer.echo(json.dumps({**vars(done), "path": str(done.path)}))
    elif not quiet:
        batches = ", ".join(map(str, done.checked))
        checked = (
            f"outputs differ by at most {done.difference:.1e} (batches {batches})" if batches else "tensors are equal"
        )
        folded = f"; {done.folded} batch norms folded" if fold else ""
        typer.echo(f"{target}: {done.bytes:,} bytes; {checked}{folded}")
