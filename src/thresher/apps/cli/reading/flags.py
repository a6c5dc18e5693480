"""The flags of `train` and `prune`, made from the fields of TrainConfig, so that flags and files never part."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Annotated, Any

import typer
from pydantic.fields import FieldInfo

from thresher.apps.train.asking.config import TrainConfig

PRUNING = ("method", "budget", "engine", "rules", "groups", "start", "trail")
_SPELLED = {"rules": "--rule"}

Config = Annotated[Path | None, typer.Option("--config", metavar="FILE", help="JSON or TOML file; flags win over it")]
Out = Annotated[Path | None, typer.Option("--out", metavar="RUN", help="run folder; default: a new one in runs/")]
Resume = Annotated[bool, typer.Option("--resume", help="go on with the run in --out where it was stopped")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="print the plan and its cost, do no work")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="print nothing but errors (and --json)")]
Json = Annotated[bool, typer.Option("--json", help="print one JSON object instead of text")]


def with_settings(leave_out: Collection[str] = ()) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a command a flag for each field of TrainConfig but `leave_out`; it receives those that were used.

    The command's own last parameter must be `settings`, a mapping from field to value.
    """

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        own = inspect.signature(command, eval_str=True)
        names = [name for name in TrainConfig.model_fields if name not in leave_out]

        def run(**arguments: Any) -> None:
            settings = {name: value for name in names if (value := arguments.pop(name)) is not None}
            command(**arguments, settings=settings)

        parameters = [parameter for parameter in own.parameters.values() if parameter.name != "settings"]
        flags = [_flag(name, TrainConfig.model_fields[name]) for name in names]
        run.__signature__ = own.replace(  # type: ignore[attr-defined]
            parameters=[*flags, *(parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY) for parameter in parameters)]
        )
        run.__annotations__ = {parameter.name: parameter.annotation for parameter in [*flags, *parameters]}
        run.__doc__, run.__name__ = command.__doc__, command.__name__
        return run

    return decorate


def _flag(name: str, field: FieldInfo) -> inspect.Parameter:
    spelled = _SPELLED.get(name, "--" + name.replace("_", "-"))
    shown = "" if field.default in (None, ()) else f" [{str(field.default).lower()}]"
    kind: Any = str
    for candidate in (bool, int, float):
        if field.annotation in (candidate, candidate | None):
            kind = candidate
    if name == "rules":
        kind, shown = list[str], " (may be repeated)"
    if kind is bool:
        spelled = f"{spelled}/--no-{spelled[2:]}"
    option = typer.Option(spelled, help=f"{field.description}{shown}", show_default=False)
    return inspect.Parameter(
        name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=Annotated[kind | None, option]
    )


def given(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The settings that were really given: an unused --rule arrives as an empty list."""
    return {name: value for name, value in settings.items() if value != []}
