"""A list of images that are not decoded yet, and its decoding into one array."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from thresher.apps.data.cache import cache_file, read_cache, write_cache
from thresher.apps.data.split import ArrayData
from thresher.errors import InputError, require

GREY = {"1", "L", "LA"}
DEEP = ("I", "F")  # also "I;16" and its kin: Pillow would clip them to 8 bits instead of scaling


@dataclass(frozen=True, eq=False)
class Listing:
    """Images as encoded bytes or as files, with labels.

    Args:
        where: the file or folder, for error messages.
        files: what the decoded cache depends on; empty for no cache.
        item: row number to encoded bytes or an image file; None where there is no image.
        labels: int64, shape (N,), each at least 0.
        classes: class names, or None when the source has none.
    """

    where: str
    files: tuple[Path, ...]
    item: Callable[[int], bytes | Path | None]
    labels: NDArray[np.int64]
    classes: tuple[str, ...] | None


def spread(labels: NDArray[np.int64], limit: int | None) -> NDArray[np.int64]:
    """Rows kept by `limit`: evenly spaced over the rows sorted by label, so every class keeps its share.

    >>> spread(np.array([0, 1, 0, 1, 0, 1]), 2).tolist()
    [0, 1]
    """
    count = len(labels)
    if limit is None or limit >= count:
        return np.arange(count, dtype=np.int64)
    order = np.argsort(labels, kind="stable")
    return np.sort(order[np.arange(limit) * count // limit]).astype(np.int64)


def decode(listing: Listing, limit: int | None = None) -> ArrayData:
    """Decode a listing into uint8 images (N, C, H, W) and int64 labels, through the cache on disk.

    Args:
        listing: what to decode.
        limit: keep at most that many images; fewer are then decoded, and not cached.

    Errors: InputError for an image that is absent, broken, deeper than 8 bits or of another size than the first.
    """
    rows = spread(listing.labels, limit)
    labels = torch.from_numpy(listing.labels[rows].copy())
    stored = cache_file(listing.files) if listing.files else None
    images = read_cache(stored, len(listing.labels)) if stored else None
    if images is not None:
        images = images if len(rows) == len(images) else images[rows]
    else:
        images = _pixels(listing, rows.tolist())
        if stored and len(rows) == len(listing.labels):
            write_cache(stored, images)
    return ArrayData(torch.from_numpy(images), labels)


def _pixels(listing: Listing, rows: Sequence[int]) -> NDArray[np.uint8]:
    """All rows grey where all images are grey, else all in colour; shape (N, C, H, W)."""
    image_module = require("PIL.Image", extra="data", why="reading images")
    first = _open(image_module, listing, rows[0])
    with first:
        grey, size = first.mode in GREY, first.size
    pixels = _fill(image_module, listing, rows, grey, size)
    if pixels is None:  # a colour image among grey ones
        pixels = _fill(image_module, listing, rows, False, size)
    assert pixels is not None
    return np.ascontiguousarray(pixels.transpose(0, 3, 1, 2))


def _fill(
    image_module: Any, listing: Listing, rows: Sequence[int], grey: bool, size: tuple[int, int]
) -> NDArray[np.uint8] | None:
    # One array, and every image closed before the next: a list of np.asarray(Image.open(..)) keeps each decoder
    # alive, and 50,000 AVIF images then need more than 24 GiB.
    pixels = np.empty((len(rows), size[1], size[0], 1 if grey else 3), dtype=np.uint8)
    wanted = "L" if grey else "RGB"
    for place, row in enumerate(rows):
        with _open(image_module, listing, row) as image:
            if image.mode.startswith(DEEP):
                raise InputError(
                    f"image {row} of {listing.where}, mode {image.mode}",
                    "8 bits for each channel",
                    "scale the images to 0..255 first",
                )
            if image.size != size:
                raise InputError(
                    f"image {row} of {listing.where}, {image.size[0]}x{image.size[1]} pixels",
                    f"the size of the first image, {size[0]}x{size[1]}",
                    "bring all images to one size first",
                )
            if grey and image.mode not in GREY:
                return None
            try:
                values = np.asarray(image if image.mode == wanted else image.convert(wanted))
            except (OSError, ValueError, SyntaxError) as error:
                raise _broken(listing, row, error) from error
            pixels[place] = values.reshape(pixels.shape[1:])
    return pixels


def _open(image_module: Any, listing: Listing, row: int) -> Any:
    item = listing.item(row)
    if item is None:
        raise InputError(
            f"{listing.where}, where row {row} holds no image",
            "encoded image bytes, or a path to a file that exists, in every row",
            "drop such rows, or write the bytes into the file",
        )
    try:
        return image_module.open(io.BytesIO(item) if isinstance(item, bytes) else item)
    except (OSError, ValueError, SyntaxError, image_module.DecompressionBombError) as error:
        raise _broken(listing, row, error) from error


def _broken(listing: Listing, row: int, error: Exception) -> InputError:
    return InputError(
        f"image {row} of {listing.where}, which Pillow cannot read ({error})",
        "an image file that Pillow can decode (AVIF needs Pillow 11.3 or newer)",
        "fetch the data set again, or remove the image",
    )
