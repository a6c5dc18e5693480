"""The embedded data set: scikit-learn's 1,797 handwritten digits, 8x8, grey."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from thresher.apps.data.split import ArrayData
from thresher.errors import require

TEST_COUNT = 360


def load_digits() -> tuple[ArrayData, ArrayData]:
    """1,437 images for training and 360 for testing, 8x8 grey, 0..16 scaled to 0..255; always the same split.

    >>> [len(part) for part in load_digits()]
    [1437, 360]
    """
    bunch = require("sklearn.datasets", extra="data", why="loading the digits").load_digits()
    pixels = np.rint(np.asarray(bunch.images) * (255 / 16)).astype(np.uint8)[:, None]
    labels = np.asarray(bunch.target, dtype=np.int64)
    held = held_out(labels, TEST_COUNT)
    return _take(pixels, labels, ~held), _take(pixels, labels, held)


def held_out(labels: np.ndarray[Any, np.dtype[np.int64]], count: int) -> np.ndarray[Any, np.dtype[np.bool_]]:
    """A mask of `count` rows for testing: evenly spaced over the rows sorted by class, in each class its share.

    It uses no random numbers, so the split cannot change with a library's version.

    >>> held_out(np.array([0, 0, 1, 1]), 2).tolist()
    [False, True, False, True]
    """
    order = np.argsort(labels, kind="stable")
    mask = np.zeros(len(labels), dtype=np.bool_)
    mask[order[((2 * np.arange(count) + 1) * len(labels)) // (2 * count)]] = True
    return mask


def _take(pixels: np.ndarray[Any, Any], labels: np.ndarray[Any, Any], mask: np.ndarray[Any, Any]) -> ArrayData:
    return ArrayData(torch.from_numpy(pixels[mask]), torch.from_numpy(labels[mask]))
