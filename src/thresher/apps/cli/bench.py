"""`thresher bench`: dense and pruned on every engine of this machine, in one honest table."""

from __future__ import annotations

import copy
import json
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from thresher.apps.cli.reading.flags import Json, Quiet
from thresher.apps.cli.reading.naming import unused
from thresher.apps.cli.reading.opening import open_network, parse_counts
from thresher.apps.cli.showing.counting import counter
from thresher.errors import InputError

if TYPE_CHECKING:
    from torch import nn

    from thresher.apps.runs import Run
    from thresher.apps.train.network import Network

SAVED_AS = "bench.json"


def bench(
    file: Annotated[str, typer.Argument(metavar="MODEL-or-FILE", help="a network by name, a run folder or a file")],
    engines: Annotated[str | None, typer.Option(help="torch,inductor,onnxruntime,openvino,thresher [all]")] = None,
    batch: Annotated[str, typer.Option(help="batch sizes, joined by commas")] = "1,16",
    threads: Annotated[str | None, typer.Option(help="threads, joined by commas [1 and all cores]")] = None,
    precision: Annotated[str, typer.Option(help="float32, bfloat16 or both")] = "float32,bfloat16",
    sparsity: Annotated[str, typer.Option(help="of the magnitude masks, where the network has no zeros")] = "90%",
    groups: Annotated[str, typer.Option(help="pattern of these masks: weight, block:4x1, 2:4, ...")] = "weight",
    dense: Annotated[str | None, typer.Option(help="the network before pruning; default: the same, untrained")] = None,
    beside: Annotated[
        list[str] | None,
        typer.Option(metavar="FILE", help="another pruned network of this kind, timed in turn with it"),
    ] = None,
    data: Annotated[str | None, typer.Option(help="data set, for the accuracy")] = None,
    data_root: Annotated[Path | None, typer.Option(help="folder that holds the named data sets")] = None,
    limit: Annotated[int | None, typer.Option(help="at most that many images")] = None,
    model: Annotated[str | None, typer.Option(help="network, for files that do not say")] = None,
    shape: Annotated[str | None, typer.Option(help="input of a network by name, e.g. 3,224,224")] = None,
    classes: Annotated[int | None, typer.Option(help="classes of a network by name")] = None,
    rounds: Annotated[int, typer.Option(min=1, help="interleaved rounds")] = 7,
    min_time: Annotated[float, typer.Option(help="seconds of one model in one round")] = 0.1,
    same_process: Annotated[bool, typer.Option("--same-process", help="no process of its own for each engine")] = False,
    out: Annotated[
        Path | None,
        typer.Option(metavar="RUN", help="run folder; default: that of the network, else a new one in runs/"),
    ] = None,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Time a network, dense and pruned, on every engine installed, and compare the outputs.

    Example: thresher bench resnet20 --batch 1,16 --threads 1,2
    """
    precisions = list(dict.fromkeys(part.strip() for part in precision.split(",")))
    if not set(precisions) <= {"float32", "bfloat16"}:
        raise InputError(f"--precision {precision}", "float32, bfloat16 or both, joined by a comma", "correct it")
    if not 0 <= min_time < 60:
        raise InputError(f"--min-time {min_time:g}", "seconds from 0 to 60", "correct it")
    batches = parse_counts("--batch", batch)
    import torch

    from thresher.apps.cli.showing.printing import report_page
    from thresher.deploy.bench import compare, pick
    from thresher.deploy.bench.machine import cores
    from thresher.deploy.bench.table import lines

    counts = sorted({1, cores()}) if threads is None else parse_counts("--threads", threads)
    chosen = pick(engines)
    network = open_network(file, model, shape, classes)
    variants = _variants(network, dense, sparsity, groups)
    sources = {"dense": dense, "pruned": file} if Path(file).exists() and "pruned" in variants else {}
    for name, path in _named(beside or [], variants).items():
        variants[name], sources[name] = _like(network, path), path
    scores = _accuracy(variants, sources, network, data, data_root, limit)
    own = variants["pruned"] is network.model
    run, new = _home(file if own and not beside else None, out, network.name)
    with counter(quiet, "step") as told:
        found = compare(
            variants,
            torch.randn(max(batches), *network.input_shape, generator=torch.Generator().manual_seed(0)),
            chosen,
            batches=batches,
            threads=counts,
            precisions=precisions,
            rounds=rounds,
            min_time=min_time,
            isolate=not same_process,
            accuracy=scores,
            told=told,
        )
    asked: dict[str, Any] = {"command": "bench", "model": network.name, "file": file, "dense": dense, "groups": groups}
    asked |= {"beside": beside or [], "sparsity": sparsity, "batch": batches, "threads": counts}
    asked |= {"precision": precisions, "rounds": rounds}
    if new:
        run.write("config.json", asked)
    record = {**found.to_dict(), "asked": asked}
    run.write(SAVED_AS, record)
    page = report_page([run.path], run.path / "report.html")
    if as_json:
        typer.echo(json.dumps({**record, "run": str(run.path), "page": None if page is None else str(page)}))
    elif not quiet:
        title = f"{network.name}, input {'x'.join(map(str, network.input_shape))}, {found.machine['processor']}"
        typer.echo("\n".join([title, "", *lines(found), f"written: {run.path / SAVED_AS}"]))
        if page is not None:
            typer.echo(f"report page: {page}")


def _home(file: str | None, out: Path | None, name: str) -> tuple[Run, bool]:
    """The folder that the figures go to, and whether it is new: the run that made `file` keeps them itself."""
    from thresher.apps.runs import Run

    if out is None and file and (Path(file) / "config.json").is_file() and os.access(file, os.W_OK):
        return Run.open(file), False
    return Run.create(out or unused(Path("runs") / f"bench-{name}-{time.strftime('%Y%m%d-%H%M%S')}")), True


def _variants(network: Network, dense: str | None, sparsity: str, groups: str) -> dict[str, nn.Module]:
    """The dense network and the pruned one: what the file holds, or magnitude masks where it has no zeros."""
    from thresher import prune
    from thresher.apps.models import build_model

    has_zeros = any(bool((p == 0).any()) for p in network.model.parameters() if p.dim() >= 2)
    fresh = build_model(network.name, num_classes=network.num_classes, input_shape=network.input_shape)
    cut = {name: p.shape for name, p in network.model.named_parameters()} != {
        name: p.shape for name, p in fresh.named_parameters()
    }
    if has_zeros or cut:
        other = open_network(dense, network.name, None, None).model if dense is not None else fresh
        return {"dense": other, "pruned": network.model}
    if dense is not None:
        raise InputError("--dense with a network that has no zeros", "a pruned or shrunk network", "leave --dense out")
    pruned = copy.deepcopy(network.model)
    prune(pruned, None, "magnitude", f"sparsity={sparsity}", groups=groups).finish()
    return {"dense": network.model, "pruned": pruned}


def _named(files: list[str], taken: dict[str, nn.Module]) -> dict[str, str]:
    """A name for each file: its own, with a number where that is taken."""
    found: dict[str, str] = {}
    for file in files:
        stem, number = Path(file).stem, 1
        name = stem
        while name in found or name in taken:
            number += 1
            name = f"{stem}-{number}"
        found[name] = file
    return found


def _like(network: Network, file: str) -> nn.Module:
    """The network in `file`. Errors: InputError when it does not take the inputs of `network`, or for no file."""
    if not Path(file).expanduser().exists():
        raise InputError(f"--beside {file}", "a run folder or a file", "correct the path")
    other = open_network(file, network.name, None, None)
    if (other.input_shape, other.num_classes) != (network.input_shape, network.num_classes):
        raise InputError(
            f"--beside {file}, for inputs {other.input_shape} and {other.num_classes} classes",
            f"{network.input_shape} and {network.num_classes}, as the first one",
            "compare networks for one kind of data",
        )
    return other.model


def _accuracy(
    variants: dict[str, nn.Module],
    sources: dict[str, str | None],
    network: Network,
    data: str | None,
    data_root: Path | None,
    limit: int | None,
) -> dict[str, float]:
    """Percent right, of the variants whose weights were trained."""
    if data is None:
        return {}
    from thresher.apps.train.ending.evaluate import accuracy
    from thresher.apps.train.ending.measuring import open_saved

    found: dict[str, Any] = {}
    for name, source in sources.items():
        if source is not None:
            saved = open_saved(
                source, data=data, model=network.name, data_root=data_root, limit=limit, device_name="cpu"
            )
            found[name] = accuracy(saved.model, saved.test)
    return found
