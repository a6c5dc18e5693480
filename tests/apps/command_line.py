"""The commands as a user types them."""

from typing import Any

from typer.testing import CliRunner

from thresher.apps.cli import main


def call(*arguments: object, code: int = 0) -> Any:
    outcome = CliRunner().invoke(main, [str(argument) for argument in arguments])
    assert outcome.exit_code == code, outcome.output
    return outcome
