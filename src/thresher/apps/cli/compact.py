"""`thresher compact`: the zero channels of a pruned network, cut out without a change of its outputs."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Annotated, Any

import typer

from thresher.apps.cli.reading.flags import Json, Quiet
from thresher.errors import InputError


def compact(
    file: Annotated[str, typer.Argument(metavar="FILE-or-RUN", help="a run folder or a safetensors file")],
    out: Annotated[Path | None, typer.Option(metavar="FILE", help="where the smaller network goes")] = None,
    rules: Annotated[bool, typer.Option("--rules", help="print the --rule flags to prune by, and stop")] = False,
    data: Annotated[str | None, typer.Option(help="data set; default: the one of the run")] = None,
    model: Annotated[str | None, typer.Option(help="network, for files that do not say")] = None,
    data_root: Annotated[Path | None, typer.Option(help="folder that holds the named data sets")] = None,
    limit: Annotated[int | None, typer.Option(help="at most that many images")] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, ...")] = "auto",
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Cut whole zero channels, as `prune --groups row` leaves them; the network computes what it did.

    Example: thresher compact runs/rows --out small.safetensors
    """
    if (out is None) != rules:
        raise InputError("--out and --rules" if rules else "neither --out nor --rules", "one of the two", "add --out")
    if out is not None and (out.is_dir() or not out.parent.is_dir()):
        raise InputError(f"--out {str(out)!r}", "a file in a folder that is there", "correct it")
    from thresher.apps.shrinking.zeros import compact_saved, rules_of
    from thresher.apps.train.ending.measuring import open_saved

    saved = open_saved(file, data=data, model=model, data_root=data_root, limit=limit, device_name=device)
    if out is None:
        found = rules_of(saved)
        typer.echo(json.dumps(found) if as_json else " ".join(f"--rule {shlex.quote(rule)}" for rule in found))
        return
    record = compact_saved(saved, out)
    if as_json:
        typer.echo(json.dumps(record))
    elif not quiet:
        typer.echo("\n".join(_lines(record)))


def _lines(record: dict[str, Any]) -> list[str]:
    cut = ", ".join(f"{name} {count}" for name, count in record["cut"].items())
    lines = [f"channels cut: {cut}" if cut else "no channel of zeros that can be cut"]
    lines += [f"constants folded into {', '.join(record['folded'])}"] if record["folded"] else []
    lines += [f"left: {name} ({reason})" for name, reason in record["left"]]
    lines.append(
        f"accuracy {record['accuracy_before']:.2f} % -> {record['accuracy_after']:.2f} %; "
        f"parameters {record['total_params']:,} -> {record['params']:,}; "
        f"relative change of the output {record['output_error']:.1e}"
    )
    return [*lines, f"written: {record['out']}, {record['bytes']:,} bytes"]
