"""What an engine is told, and what it gives: the records that the engines of a bench have in common."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import metadata, util
from typing import Any, NamedTuple

from torch import nn

Run = Callable[[], Any]
FLOAT32, BFLOAT16 = "float32", "bfloat16"


@dataclass(frozen=True, kw_only=True)
class Order:
    """What an engine is to run: a finished model (copied before it is touched) on one example, in one precision."""

    model: nn.Module
    example: Any
    threads: int
    precision: str = FLOAT32


@dataclass(frozen=True, kw_only=True)
class LayerTime:
    """One layer of a network by itself, in milliseconds; `milliseconds_dense`: torch's own dense layer of that shape,
    None where not measured. `runs`: which kernel. `zeros`: share of the weight."""

    name: str
    runs: str
    zeros: float | None
    milliseconds: float
    milliseconds_dense: float | None


class Built(NamedTuple):
    """`run` returns the outputs; `note`: what the engine chose; `layers`: where it times them, in their order."""

    run: Run
    note: str = ""
    layers: tuple[LayerTime, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Engine:
    """An engine by name. `packages`: what must be installed. `precisions`: what it can really compute in."""

    name: str
    packages: tuple[str, ...]
    precisions: tuple[str, ...]
    build: Callable[[Order], Built]
    lacks: Callable[[], str | None] = lambda: None

    def missing(self) -> str | None:
        """Why this engine cannot be used here, None when it can."""
        absent = [package for package in self.packages if util.find_spec(package) is None]
        return f"{absent[0]} is not installed" if absent else self.lacks()

    def version(self) -> str | None:
        """Version of its first package."""
        try:
            return metadata.version(self.packages[0])
        except metadata.PackageNotFoundError:
            return None
