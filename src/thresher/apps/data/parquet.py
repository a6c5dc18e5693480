"""Parquet files in the Hugging Face layout: an image column of bytes and path, and a label column."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from thresher.apps.data.listing import Listing
from thresher.errors import InputError, require

IMAGE_COLUMNS = ("img", "image")
AGAIN = "fetch the file again, or convert it: datasets.Dataset.to_parquet writes this layout"


def split_files(folder: Path, names: Sequence[str]) -> tuple[Path, ...]:
    """The Parquet files of the first split among `names` that has any: NAME.parquet, or NAME-*.parquet, also in data/.

    >>> split_files(Path("nowhere"), ["train"])
    ()
    """
    for name in names:
        for place in (folder, folder / "data"):
            whole = place / f"{name}.parquet"
            files = (whole,) if whole.is_file() else tuple(sorted(place.glob(f"{name}-*.parquet")))
            if files:
                return files
    return ()


def parquet_listing(files: Sequence[Path]) -> Listing:
    """One split, from one Parquet file or from its shards in order, with images still encoded.

    Errors: InputError for a file that is missing, damaged, empty, or without the two columns, and for labels that are
    no whole numbers, or outside the classes that the file names.
    """
    parts = [_read(file) for file in files]
    where = str(files[0]) if len(files) == 1 else f"{files[0]} and {len(files) - 1} more"
    starts = np.cumsum([0, *(len(part[1]) for part in parts)])
    labels = np.concatenate([part[1] for part in parts])
    if not len(labels):
        raise InputError(f"{where}, which holds no rows", "at least one image", AGAIN)

    def item(row: int) -> bytes | Path | None:
        part = int(np.searchsorted(starts, row, side="right")) - 1
        value = parts[part][0][row - int(starts[part])].as_py() or {}
        if value.get("bytes") is not None:
            return bytes(value["bytes"])
        path = files[part].parent / value["path"] if value.get("path") else None
        return path if path is not None and path.is_file() else None

    return Listing(where, tuple(files), item, labels, parts[0][2])


def _read(file: Path) -> tuple[Any, np.ndarray[Any, np.dtype[np.int64]], tuple[str, ...] | None]:
    """The image column, the labels and the class names of one file."""
    arrow = require("pyarrow", extra="data", why="reading Parquet files")
    parquet = require("pyarrow.parquet", extra="data", why="reading Parquet files")
    try:
        schema = parquet.read_schema(file)
        image = next((name for name in IMAGE_COLUMNS if name in schema.names), None)
        if image is None or "label" not in schema.names:
            raise InputError(
                f"{file} with the columns {', '.join(schema.names) or '(none)'}",
                "a column img or image, and a column label",
                "rename the columns",
            )
        table = parquet.read_table(file, columns=[image, "label"])
    except (arrow.ArrowException, OSError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputError(f"{file}, which cannot be read ({reason})", "a Parquet file", AGAIN) from error
    kind = table.schema.field(image).type
    if not arrow.types.is_struct(kind) or kind.get_field_index("bytes") < 0:
        raise InputError(f"{file} with column {image} of type {kind}", "struct<bytes: binary, path: string>", AGAIN)
    column = table["label"]
    if not arrow.types.is_integer(column.type) or column.null_count:
        raise InputError(
            f"{file} with column label of type {column.type}, {column.null_count} of its rows empty",
            "a whole number in every row",
            "number the classes from 0, and drop rows without a label",
        )
    labels = np.asarray(column.to_numpy(), dtype=np.int64)
    classes = _class_names(table.schema.metadata)
    top = len(classes) if classes else None
    wrong = np.flatnonzero((labels < 0) | (labels >= top if top else False))
    if len(wrong):
        raise InputError(
            f"{file}, where row {wrong[0]} has label {labels[wrong[0]]}",
            f"labels from 0 to {top - 1}" if top else "labels from 0 upwards",
            "number the classes from 0, and drop rows without a label",
        )
    return table[image], labels, classes


def _class_names(metadata: dict[bytes, bytes] | None) -> tuple[str, ...] | None:
    try:
        names = json.loads((metadata or {})[b"huggingface"])["info"]["features"]["label"]["names"]
    except (KeyError, TypeError, ValueError):
        return None
    return tuple(str(name) for name in names) or None if isinstance(names, list) else None
