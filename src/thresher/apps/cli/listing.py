"""`thresher methods`, `models` and `data`: the names that the other commands take."""

from __future__ import annotations

import json
from collections.abc import Mapping

import typer

from thresher.apps.cli.reading.flags import Json, Quiet


def methods(quiet: Quiet = False, as_json: Json = False) -> None:
    """List the pruning methods, their equations and defaults."""
    from thresher.methods import PRESETS, REGISTRY, parse_method

    about = {name: (kind.__doc__ or "").splitlines()[0] for name, kind in REGISTRY.items()}
    for name, (base, values) in PRESETS.items():
        about[name] = f"short for {base}:" + ",".join(f"{key}={value}" for key, value in values.items())
    _print(about, quiet, as_json)
    if not quiet and not as_json:
        typer.echo("\ndefaults, each settable as NAME:field=value,...")
        for name in REGISTRY:
            typer.echo(f"  {parse_method(name)!r}")


def models(quiet: Quiet = False, as_json: Json = False) -> None:
    """List the networks."""
    from thresher.apps.models import model_names

    about = dict.fromkeys(model_names(), "")
    about |= {"wrnD-K": "wide ResNet of depth D = 6n + 4 and width K", "hf:FOLDER": "saved by save_pretrained"}
    _print(about, quiet, as_json)


def data(quiet: Quiet = False, as_json: Json = False) -> None:
    """List the data sets."""
    from thresher.apps.data import data_names

    about = dict.fromkeys(data_names(), "") | {
        "digits": "embedded, 1,797 images of 8x8, needs no files",
        "FOLDER": "train.parquet and test.parquet, or train/CLASS/*.png and test/CLASS/*.png",
        "hub:NAME": "from the Hugging Face hub, where there is a network",
    }
    _print(about, quiet, as_json)


def _print(about: Mapping[str, str], quiet: bool, as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps(about))
        return
    width = max(map(len, about))
    for name, text in about.items():
        typer.echo(name if quiet else f"{name:<{width}}  {text}".rstrip())
