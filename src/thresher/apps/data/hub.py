"""Data sets of the Hugging Face hub, on machines that reach it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from thresher.apps.data.folder import TEST_NAMES
from thresher.apps.data.listing import Listing
from thresher.apps.data.parquet import IMAGE_COLUMNS
from thresher.errors import InputError, require


def hub_listings(name: str) -> tuple[Listing, Listing]:
    """Training and test part of the hub data set `name`, e.g. "ylecun/mnist"; `datasets` downloads and keeps it.

    Errors: InputError when the hub or the data set cannot be reached, or when splits or columns do not fit;
    MissingExtraError without the library `datasets`.
    """
    library = require("datasets", extra="hf", why="loading from the Hugging Face hub")
    try:
        found = library.load_dataset(name)
    except Exception as error:  # the library raises errors of many kinds, its own and those of three HTTP clients
        raise InputError(
            f"hub:{name}, which could not be loaded ({type(error).__name__}: {(str(error).splitlines() or [''])[0]})",
            "the name of a data set on the Hugging Face hub, and a network that reaches it",
            "check the name and the network, or copy the Parquet files here and pass their folder",
        ) from error
    splits = list(found) if hasattr(found, "keys") else []
    test = next((split for split in TEST_NAMES if split in splits), None)
    if "train" not in splits or test is None:
        raise InputError(
            f"hub:{name} with the splits {', '.join(map(str, splits)) or '(none)'}",
            f"a split train, and one of {', '.join(TEST_NAMES)}",
            "save the splits you want as train.parquet and test.parquet, and pass their folder",
        )
    return _listing(library, name, found["train"]), _listing(library, name, found[test])


def _listing(library: Any, name: str, part: Any) -> Listing:
    image = next((column for column in IMAGE_COLUMNS if column in part.features), None)
    if image is None or "label" not in part.features:
        raise InputError(
            f"hub:{name} with the columns {', '.join(part.features)}",
            "a column img or image, and a column label",
            "save it as Parquet files with these columns, and pass their folder",
        )
    names = getattr(part.features["label"], "names", None)
    labels = np.asarray(part["label"], dtype=np.int64)
    if not len(labels) or labels.min() < 0 or (names and labels.max() >= len(names)):
        raise InputError(
            f"hub:{name}, {len(labels)} rows, with labels outside its classes",
            f"labels from 0 to {len(names) - 1}" if names else "labels from 0 upwards",
            "choose a data set whose test part is labelled",
        )
    encoded = part.cast_column(image, library.Image(decode=False))

    def item(row: int) -> bytes | Path | None:
        value = encoded[row][image] or {}
        return value.get("bytes") or (Path(value["path"]) if value.get("path") else None)

    return Listing(f"hub:{name}", (), item, labels, tuple(names) if names else None)
