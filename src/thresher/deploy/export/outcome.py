"""What an export wrote, how far it is off, and the file that appears only when it is right."""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from thresher.errors import InputError, NumericsError

TOLERANCE = 1e-4


@dataclass(frozen=True, kw_only=True)
class Exported:
    """path: what was written. bytes: its size. difference: the largest |ours − theirs| over the largest |theirs|, over
    all batches in `checked`. folded: batch norms that went into the layer before."""

    path: Path
    format: str
    bytes: int
    difference: float
    checked: tuple[int, ...]
    folded: int = 0


def accept(format: str, differences: dict[int, float], tolerance: float) -> float:
    """The largest difference. Errors: NumericsError when it is above `tolerance`."""
    batch, worst = max(differences.items(), key=lambda item: item[1])
    if not worst <= tolerance:
        raise NumericsError(
            f"a {format} export whose outputs differ by {worst:.3g} of the largest output at batch {batch}",
            f"at most {tolerance:g}",
            "nothing was written; pass a larger tolerance if that is small enough, or report it",
        )
    return worst


@contextmanager
def appearing(path: str | os.PathLike[str], *, folder: bool = False) -> Iterator[Path]:
    """A path beside `path` to write to; renamed to `path` when the block ends well, removed when not.

    Errors: InputError for a place that cannot be written, and for a folder that holds something already.
    """
    target = real(path)
    occupied = any(target.iterdir()) if folder and target.is_dir() else target.is_dir() or (folder and target.exists())
    if occupied or not os.access(target.parent, os.W_OK):
        what = "that is there already" if occupied else f"in {str(target.parent)!r}, which cannot be written"
        raise InputError(f"{str(path)!r}, {what}", "a new name in a folder that can be written", "choose another --out")
    place = target.parent / f".{secrets.token_hex(8)}.tmp"  # a folder: some writers make several files
    place.mkdir()
    try:
        yield place / target.name
        if folder and target.is_dir():
            target.rmdir()
        os.replace(place / target.name, target)
    finally:
        shutil.rmtree(place, ignore_errors=True)


def real(path: str | os.PathLike[str]) -> Path:
    """Where `path` really leads."""
    return Path(os.path.realpath(Path(path).expanduser()))


def size_of(path: Path) -> int:
    """Bytes of a file, or of all files in a folder."""
    files = [path] if path.is_file() else [part for part in path.rglob("*") if part.is_file()]
    return sum(file.stat().st_size for file in files)
