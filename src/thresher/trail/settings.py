"""How a trail is begun: what its points are compared with, how many, how far apart, how exact."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from thresher.errors import InputError
from thresher.trail.grid import Grid
from thresher.trail.point import finite


@dataclass(frozen=True, kw_only=True)
class Settings:
    """How a trail was begun; every point carries it, so that no second file can be lost or disagree."""

    dense_accuracy: float | None = None
    points: int = 20
    target: float = 0.95
    precision: str = "auto"

    def __post_init__(self) -> None:
        if self.dense_accuracy is not None and not finite(self.dense_accuracy):
            raise InputError(f"dense_accuracy={self.dense_accuracy!r}", "a finite number in percent", "correct it")
        if self.precision not in ("auto", "float16", "float32"):
            raise InputError(f"precision={self.precision!r}", "'auto', 'float16' or 'float32'", "correct it")
        Grid(points=self.points, target=self.target)  # refuses what makes no grid

    def merged(self, given: Mapping[str, Any], *, begun: bool, place: str) -> Settings:
        """These settings, with those `given` that are not None in place; a trail that was `begun` takes no others.

        >>> Settings().merged({"points": 10, "target": None}, begun=False, place="trail").points
        10

        Errors: InputError naming the settings that differ.
        """
        wanted = {name: value for name, value in given.items() if value is not None}
        mine = {name: getattr(self, name) for name in wanted}
        other = [name for name in wanted if begun and mine[name] is not None and wanted[name] != mine[name]]
        if other:
            raise InputError(
                f"trail {place!r} with " + ", ".join(f"{name}={wanted[name]!r}" for name in other),
                ", ".join(f"{name}={mine[name]!r}" for name in other) + ", as it was begun",
                "leave these out, or begin a trail in a new folder",
            )
        return replace(self, **wanted)
