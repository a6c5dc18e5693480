"""`thresher doctor`: what this machine can make of zeros, before anything is trained."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

from thresher.apps.cli.reading.flags import Json, Quiet

if TYPE_CHECKING:
    from thresher.deploy.bench import Machine
    from thresher.deploy.bench.expectation import Expectation


def doctor(
    measure: Annotated[bool, typer.Option(help="time a residual block, about ten seconds")] = True,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Say what this machine has, and, from a short measurement, what speed to expect from zeros.

    Example: thresher doctor
    """
    from thresher.deploy.bench import ENGINES, machine
    from thresher.deploy.bench.expectation import expect

    here = machine()
    engines = {name: engine.missing() or engine.version() or "installed" for name, engine in ENGINES.items()}
    absent = [name for name, engine in ENGINES.items() if engine.missing()]
    found = None
    if measure:
        if not quiet and not as_json:
            typer.echo("measuring for about ten seconds ...", err=True)
            sys.stderr.flush()
        found = expect()
    if as_json:
        record: dict[str, Any] = {"machine": here.to_dict(), "engines": engines, "missing": absent}
        typer.echo(json.dumps({**record, "expectation": None if found is None else found.to_dict()}))
    elif not quiet:
        text = [*machine_lines(here), *(f"engine {name}: {engines[name]}" for name in ENGINES)]
        typer.echo("\n".join([*text, *([] if found is None else ["", *expectation_lines(found)])]))


def machine_lines(here: Machine) -> list[str]:
    """The machine, one fact a line."""
    memory = "unknown" if here.memory is None else f"{here.memory / 2**30:.1f} GiB"
    load = "" if here.load is None else f", load {here.load:.1f}"
    return [
        f"processor: {here.processor} ({here.system})",
        f"instructions: {', '.join(here.instructions) or 'none that matter here are known'}",
        f"cores: {here.cores}{load}; memory: {memory}",
        f"compiler: {here.compiler or 'none, so torch.compile and building from source will not work'}",
    ]


def expectation_lines(found: Expectation) -> list[str]:
    """What was measured, and what to make of it."""
    lines = [
        f"one residual block, 1 thread, 1 image; the best dense float32 engine is {found.best_dense}, "
        f"{found.milliseconds:.3g} ms",
        "speed against it (lowest to highest round):",
    ]
    for one in found.expected:
        what = one.pattern if one.sparsity is None else f"{one.pattern}, {one.sparsity:.0%} zeros"
        lines.append(f"  {what:<24} {one.speedup:5.2f}x  ({one.low:.2f} to {one.high:.2f}, {one.engine})")
    if not any(one.sparsity is not None for one in found.expected):
        lines.append("  zeros: no gain. No engine here skips them; they make the file smaller, not the network faster")
    if found.bfloat16 is not None:
        lines.append(
            f"  dense in bfloat16        {found.bfloat16:5.2f}x  (what zeros have to beat where bfloat16 will do)"
        )
    if found.too_noisy:
        load = "" if found.load is None else f", and the load is {found.load:.1f}"
        lines.append(
            f"TOO NOISY: the rounds scatter by {found.noise:.0%}{load}. "
            "Do not rely on these figures; measure again when the machine is quiet"
        )
    return lines
