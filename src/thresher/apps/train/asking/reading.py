"""A TrainConfig from a JSON or TOML file and overrides, with every mistake named in one message."""

from __future__ import annotations

import difflib
import json
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from thresher.apps.train.asking.config import TrainConfig
from thresher.errors import InputError

NOT_SETTINGS = ("version", "command", "thresher", "torch", "python")
"""What a run's config.json holds besides the settings, so that it can be read as a configuration file again."""


def read_config(file: Path | str | None = None, overrides: Mapping[str, Any] | None = None) -> TrainConfig:
    """Defaults, then the settings of `file`, then `overrides`, each over the one before.

    Errors: InputError for a file that is missing or cannot be read, an unknown setting (with close ones) or a value
    that is not allowed.

    >>> read_config(overrides={"model": "mlp", "lr": 0.1}).lr
    0.1
    """
    settings = {} if file is None else settings_of(file)
    return parse_config({**settings, **(overrides or {})})


def parse_config(settings: Mapping[str, Any]) -> TrainConfig:
    """The configuration that `settings` spell, JSON types and text alike. Errors: InputError."""
    try:
        return TrainConfig.model_validate(dict(settings))
    except ValidationError as error:
        known = list(TrainConfig.model_fields)
        given, expected, do = [], [], []
        for problem in error.errors():
            name = str(problem["loc"][0]) if problem["loc"] else ""
            if problem["type"] == "extra_forbidden":
                close = difflib.get_close_matches(name, known, n=2)
                given.append(f"unknown setting {name!r}")
                expected.append(f"one of {', '.join(known)}")
                do.append(f"did you mean {' or '.join(close)}?" if close else "remove it")
            else:
                message = str(problem["msg"]).removeprefix("Value error, ")
                given.append(f"{name}={problem['input']!r}" if name else "settings that do not agree")
                expected.append(message[:1].lower() + message[1:])
                do.append(f"correct {name}" if name else "correct them")
        # The same advice once, however many settings it concerns.
        parts = ["; ".join(dict.fromkeys(texts)) for texts in (given, expected, do)]
        raise InputError(parts[0], parts[1], parts[2]) from error


def settings_of(file: Path | str) -> dict[str, Any]:
    """The settings that a JSON or TOML file, or the config.json of a run folder, holds; they may be incomplete.

    Errors: InputError for a file that is missing or cannot be read.
    """
    path = Path(file)
    wanted = "a JSON or TOML file of settings, such as the config.json of a run"
    if path.is_dir():
        path = path / "config.json"
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"configuration {str(path)!r} ({error})", wanted, "check the path") from error
    try:
        record = tomllib.loads(text) if path.suffix == ".toml" else json.loads(text)
    except ValueError as error:
        raise InputError(f"configuration {str(path)!r} ({error})", wanted, "correct the file") from error
    if not isinstance(record, dict) or record.get("version", 1) != 1:
        raise InputError(f"configuration {str(path)!r} of another version or kind", wanted, "correct the file")
    return {key: value for key, value in record.items() if key not in NOT_SETTINGS}
