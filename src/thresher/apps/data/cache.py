"""Decoded images kept on disk, so that a data set is decoded once on each machine."""

from __future__ import annotations

import contextlib
import hashlib
import os
import uuid
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

VERSION = 1  # raise it when decoding changes, so that old files are not read any more


def cache_file(files: Sequence[Path]) -> Path:
    """$XDG_CACHE_HOME/thresher/KEY.npz, KEY = sha256 over version and each file's path, size and time of change.

    Args:
        files: the files that the images come from; all must exist.

    >>> cache_file([Path(__file__)]).suffix
    '.npz'
    """
    digest = hashlib.sha256(f"{VERSION}\n".encode())
    for file in files:
        state = file.stat()
        digest.update(f"{file.resolve()}\0{state.st_size}\0{state.st_mtime_ns}\n".encode())
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "thresher" / f"{digest.hexdigest()}.npz"


def read_cache(file: Path, count: int) -> NDArray[np.uint8] | None:
    """The `count` images stored in `file`, or None when it is absent, damaged or of another length.

    Damage is noticed because every member of an npz file carries a CRC-32 that is checked on reading.

    >>> read_cache(Path("absent.npz"), 3) is None
    True
    """
    try:
        with np.load(file, allow_pickle=False) as stored:
            images = stored["images"]
    except (OSError, ValueError, KeyError, EOFError, TypeError, zipfile.BadZipFile, zlib.error):
        return None
    return images if images.dtype == np.uint8 and images.ndim == 4 and len(images) == count else None


def write_cache(file: Path, images: NDArray[np.uint8]) -> None:
    """Store `images` in `file`, whole or not at all; where nothing can be written, the next run decodes again."""
    part = file.with_name(f"{file.stem}.{uuid.uuid4().hex}.part")
    with contextlib.suppress(OSError):
        file.parent.mkdir(parents=True, exist_ok=True)
        try:
            with part.open("wb") as stream:
                np.savez(stream, images=images)
            part.replace(file)
        finally:
            part.unlink(missing_ok=True)
