"""A part of the training images in place of the test images, for choices that the test images must not decide."""

from __future__ import annotations

import dataclasses

import torch

from thresher.apps.data.digits import held_out
from thresher.apps.data.split import ArrayData, DataSplit
from thresher.errors import InputError


def hold_out(data: DataSplit, share: float) -> DataSplit:
    """The same data set without its test images: `share` of the training images, held out, stand in for them.

    Evenly spaced over the images sorted by class, in each class its share, without random numbers: the same images at
    every call. Mean and std stay those of the whole training part.

    Errors: InputError when either part would be empty.

    >>> from thresher.apps.data import load_data
    >>> parts = hold_out(load_data("digits"), 0.1)
    >>> len(parts.train), len(parts.test)
    (1293, 144)
    """
    count = round(share * len(data.train))
    if not 0 < count < len(data.train):
        raise InputError(
            f"held_out={share:g} of {len(data.train)} training images",
            "a share that leaves images on both sides",
            "choose e.g. 0.1, or raise the limit on images",
        )
    held = torch.from_numpy(held_out(data.train.labels.numpy(), count))
    return dataclasses.replace(
        data,
        train=ArrayData(data.train.images[~held], data.train.labels[~held]),
        test=ArrayData(data.train.images[held], data.train.labels[held]),
    )
