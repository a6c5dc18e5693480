"""The files of a trail: point-STEP.safetensors, each whole in itself; listing them reads headers only."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from thresher.deploy.storage.header import MAX_HEADER, parse, parse_json
from thresher.errors import InputError
from thresher.trail.point import Point
from thresher.trail.settings import Settings
from thresher.trail.snapshot import WIDE

KIND, VERSION = "trail point", 1
_NAME = re.compile(r"point-([0-9]{8,19})\.safetensors")


@dataclass(frozen=True, eq=False)
class Stored:
    """The header of one file: the point, how its trail was begun, the types of tensors that are stored in 16 bits."""

    point: Point
    settings: Settings
    dtypes: dict[str, str]


def file_name(step: int) -> str:
    """`point-00000042.safetensors`: names sort like steps."""
    return f"point-{step:08d}.safetensors"


def record_of(point: Point, settings: Settings, dtypes: dict[str, str]) -> dict[str, Any]:
    """What is written into the file's header."""
    return {"version": VERSION, "kind": KIND, "point": point.to_dict(), "trail": vars(settings), "dtypes": dtypes}


def read_header(path: Path) -> Stored:
    """The header of a point, without its tensors. A file that was cut short is noticed, because sizes must add up.

    Errors: InputError for a file that is damaged, of another version, or no point.
    """
    again = "delete it, or fetch it again; the other points are not concerned"
    try:
        size = path.stat().st_size
        with open(path, "rb") as stream:
            length = int.from_bytes(stream.read(8), "little")
            if size < 8 or length > min(size - 8, MAX_HEADER):
                raise InputError(f"a header of {length} bytes in a file of {size}", "one inside the file", again)
            text = stream.read(length)
        _, metadata = parse(text, size - 8 - length)
        record = parse_json(metadata.get("thresher", "{}")).get("record")
    except OSError as error:
        raise InputError(f"{path.name} ({error})", "a file that can be read", "check the path") from error
    except InputError as error:
        raise InputError(f"{path.name}: {error.given}", error.expected, again) from error
    if not isinstance(record, dict) or record.get("kind") != KIND or record.get("version") != VERSION:
        raise InputError(f"{path.name} without a point's record", f"a {KIND} of version {VERSION}", again)
    try:
        point = replace(Point.from_dict(record["point"]), stored=size)
        settings, dtypes = Settings(**record["trail"]), dict(record["dtypes"])
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        given = error.given if isinstance(error, InputError) else error
        raise InputError(f"{path.name} with a record that cannot be read ({given})", "a whole record", again) from error
    if path.name != file_name(point.step) or not all(WIDE.get(kind) for kind in map(str, dtypes.values())):
        raise InputError(f"{path.name} with the record of step {point.step}", "its own record", again)
    return Stored(point, settings, dtypes)


class Listing:
    """The points in a folder, read again only where a file has changed."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._cache: dict[str, tuple[tuple[int, ...], Stored | InputError]] = {}

    def steps(self) -> list[int]:
        """The steps of all files that are named like points, rising."""
        return [step for step, _ in self._files()]

    def read(self) -> tuple[list[Stored], list[InputError]]:
        """(points by rising step, what is wrong with files that are named like points and are none)."""
        good, bad = [], []
        for _, path in self._files():
            try:
                status = path.stat()
            except OSError:  # another process has just taken it away
                continue
            stamp = (status.st_ino, status.st_mtime_ns, status.st_size)
            if self._cache.get(path.name, (None,))[0] != stamp:
                self._cache[path.name] = (stamp, _read_or_error(path))
            found = self._cache[path.name][1]
            if isinstance(found, Stored):
                good.append(found)
            else:
                bad.append(found)
        return good, bad

    def _files(self) -> list[tuple[int, Path]]:
        # Temporary files begin with a dot; whatever else lies there is not ours.
        found = [(match, path) for path in self._folder.glob("point-*") if (match := _NAME.fullmatch(path.name))]
        return sorted((int(match[1]), path) for match, path in found if path.is_file())


def _read_or_error(path: Path) -> Stored | InputError:
    try:
        return read_header(path)
    except InputError as error:
        return error
