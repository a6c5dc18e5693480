"""`thresher COMMAND`: the table of commands."""

from __future__ import annotations

from typing import Annotated

import typer

from thresher.apps.cli.bench import bench
from thresher.apps.cli.compact import compact
from thresher.apps.cli.demo import demo
from thresher.apps.cli.doctor import doctor
from thresher.apps.cli.evaluating import evaluate
from thresher.apps.cli.export import export
from thresher.apps.cli.listing import data, methods, models
from thresher.apps.cli.oneshot import oneshot
from thresher.apps.cli.plan import plan
from thresher.apps.cli.reading.failures import Commands
from thresher.apps.cli.reporting import report, watch
from thresher.apps.cli.sensitivity import sensitivity
from thresher.apps.cli.shrink import shrink
from thresher.apps.cli.sweep import sweep
from thresher.apps.cli.trail import trail
from thresher.apps.cli.training import prune, train

main = typer.Typer(
    name="thresher",
    cls=Commands,
    help="Prune PyTorch networks with thresholds: exactly to a budget, really smaller, measured.",
    invoke_without_command=True,
    add_completion=False,
    # Plain help: no boxes and no colour codes in logs, and one library less to load.
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)


@main.callback()
def options(
    context: typer.Context,
    debug: Annotated[bool, typer.Option("--debug", help="show tracebacks")] = False,
    version: Annotated[bool, typer.Option("--version", help="print the version and stop")] = False,
) -> None:
    """Prune PyTorch networks with thresholds: exactly to a budget, really smaller, measured."""
    if version:
        from thresher import __version__

        typer.echo(__version__)
    elif context.invoked_subcommand is None:
        typer.echo(context.get_help())


main.command()(demo)
main.command()(train)
main.command()(prune)
main.command()(shrink)
main.command()(compact)
main.add_typer(plan, name="plan")
main.command()(oneshot)
main.command("eval")(evaluate)
main.command()(export)
main.command()(bench)
main.command()(doctor)
main.command()(sensitivity)
main.command()(sweep)
main.command()(trail)
main.command()(report)
main.command()(watch)
main.command()(methods)
main.command()(models)
main.command()(data)
