"""One clear message on stderr and exit code 2 instead of a traceback."""

from __future__ import annotations

import os
import sys
from typing import Any

import typer
from typer.core import TyperGroup

from thresher.errors import ThresherError

REFUSED, BROKEN, INTERRUPTED = 2, 1, 130


class Commands(TyperGroup):
    """The group of commands: whatever goes wrong in one of them becomes a message; `--debug` shows tracebacks."""

    def invoke(self, ctx: Any) -> Any:
        """Run the command."""
        try:
            return super().invoke(ctx)
        except ThresherError as error:
            if ctx.params.get("debug"):
                raise
            typer.echo(str(error), err=True)
            raise typer.Exit(REFUSED) from error
        except KeyboardInterrupt as error:
            typer.echo("stopped", err=True)
            raise typer.Exit(INTERRUPTED) from error
        except BrokenPipeError as error:
            # The reader of our output has left; python would complain once more while closing stdout.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise typer.Exit(BROKEN) from error
        except (typer.Exit, typer.Abort):
            raise
        except Exception as error:
            # Usage errors belong to the parser, which prints them itself and exits with 2.
            if ctx.params.get("debug") or hasattr(error, "exit_code"):
                raise
            typer.echo(
                f"given: {type(error).__name__}: {error}\n"
                "expected: no such error; this is a bug of thresher or of a library\n"
                "do: run it again as `thresher --debug ...` and report what it prints",
                err=True,
            )
            raise typer.Exit(BROKEN) from error
