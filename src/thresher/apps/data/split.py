"""The two records every data set becomes: images with labels, and a training with a test part."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from thresher.errors import InputError


@dataclass(frozen=True, eq=False)
class ArrayData:
    """Images and their labels, whole in memory.

    Args:
        images: uint8, shape (N, C, H, W), 0..255.
        labels: int64, shape (N,).

    Errors: InputError when a dtype, a shape or the two lengths do not fit.

    >>> len(ArrayData(torch.zeros(5, 1, 8, 8, dtype=torch.uint8), torch.zeros(5, dtype=torch.int64)))
    5
    """

    images: Tensor
    labels: Tensor

    def __post_init__(self) -> None:
        if self.images.dtype != torch.uint8 or self.images.ndim != 4:
            raise InputError(
                f"images of {self.images.dtype}, shape {tuple(self.images.shape)}",
                "uint8 images of shape (N, C, H, W)",
                "scale them to 0..255, convert to uint8 and give grey images one channel",
            )
        if self.labels.dtype != torch.int64 or self.labels.shape != self.images.shape[:1]:
            raise InputError(
                f"labels of {self.labels.dtype}, shape {tuple(self.labels.shape)}, for {len(self.images)} images",
                "int64 labels of shape (N,), one for each image",
                "pass one class number for each image",
            )

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True, eq=False)
class DataSplit:
    """A data set ready for training: two parts, class names, and how to normalise.

    Args:
        name: what it was loaded by.
        train, test: the two parts, with images of one shape.
        classes: class names; label k means `classes[k]`.
        mean, std: per channel, for images scaled to 0..1.
        input_shape: (C, H, W).
    """

    name: str
    train: ArrayData
    test: ArrayData
    classes: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    input_shape: tuple[int, int, int]


def channel_statistics(images: Tensor) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """mean_c = E[x_c / 255], std_c = √(E[(x_c / 255)²] − mean_c²), over images, rows and columns.

    Args:
        images: uint8, shape (N, C, H, W).

    Returns: mean and std, one float for each channel, for images in 0..1. A constant channel gets std 1.

    >>> channel_statistics(torch.tensor([0, 255], dtype=torch.uint8).reshape(1, 1, 1, 2))
    ((0.5,), (0.5,))
    """
    channels, count = images.shape[1], images.numel() // max(images.shape[1], 1)
    total = torch.zeros(channels, dtype=torch.float64)
    square = torch.zeros(channels, dtype=torch.float64)
    for chunk in images.split(4096):  # a float64 copy of the whole set would need eight times its memory
        values = chunk.to(torch.float64)
        total += values.sum((0, 2, 3))
        square += values.square_().sum((0, 2, 3))
    mean = total / (255 * count)
    std = (square / (255**2 * count) - mean.square()).clamp_min_(0).sqrt_()
    std[std < 1e-6] = 1.0  # dividing by the spread of a constant channel would give NaN
    return tuple(mean.tolist()), tuple(std.tolist())
