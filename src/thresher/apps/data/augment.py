"""Random changes to training images, as pure functions of images and of uniform random numbers."""

from __future__ import annotations

import difflib
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

from thresher.apps.data.split import DataSplit
from thresher.errors import InputError

Augment = Callable[[Tensor, Tensor], Tensor]
"""(uint8 images (N, C, H, W), draws in [0, 1) of shape (N, DRAWS)) to uint8 images of the same shape."""

DRAWS = 3


def none(images: Tensor, draws: Tensor) -> Tensor:
    """x ↦ x.

    >>> none(torch.ones(1, 1, 2, 2), torch.zeros(1, DRAWS)).sum().item()
    4.0
    """
    return images


def crop_flip(images: Tensor, draws: Tensor) -> Tensor:
    """Pad by 4 black pixels, cut the old size out at a random place, mirror with probability one half.

    Args:
        images: uint8, shape (N, C, H, W).
        draws: uniform in [0, 1), shape (N, 3): row, column, mirror (from one half upwards).

    Source: He et al. 2015, "Deep Residual Learning", section 4.2.

    >>> crop_flip(torch.tensor([[[[1, 2]]]]), torch.tensor([[0.5, 0.5, 0.9]])).tolist()
    [[[[2, 1]]]]
    """
    return shifted(images, draws, pad=4, flip=True)


def shift(images: Tensor, draws: Tensor) -> Tensor:
    """Move by up to H // 14 pixels (at least 1; 2 for MNIST) in each direction, black comes in; never mirrored.

    >>> shift(torch.tensor([[[[1, 2, 3]]]]), torch.tensor([[0.5, 0.9, 0.9]])).tolist()
    [[[[2, 3, 0]]]]
    """
    return shifted(images, draws, pad=max(1, images.shape[-2] // 14), flip=False)


def shifted(images: Tensor, draws: Tensor, *, pad: int, flip: bool) -> Tensor:
    """out[n, c, i, j] = padded[n, c, i + r_n, j' + s_n], r and s in 0..2·pad, j' = j or W − 1 − j.

    >>> shifted(torch.tensor([[[[5]]]]), torch.zeros(1, 3), pad=1, flip=False).tolist()
    [[[[0]]]]
    """
    count, (height, width) = len(images), images.shape[2:]
    # The clamp guards the last float below one, which may round up to 2·pad + 1.
    offsets = (draws[:, :2] * (2 * pad + 1)).long().clamp_max_(2 * pad)
    rows = offsets[:, :1] + torch.arange(height, device=images.device)
    columns = offsets[:, 1:] + torch.arange(width, device=images.device)
    if flip:
        columns = torch.where(draws[:, 2:] >= 0.5, columns.flip(1), columns)
    padded = functional.pad(images, (pad, pad, pad, pad))
    numbers = torch.arange(count, device=images.device)[:, None, None]
    chosen = padded.permute(0, 2, 3, 1)[numbers, rows[:, :, None], columns[:, None, :]]
    return chosen.permute(0, 3, 1, 2).contiguous()


_BY_NAME: dict[str, Augment] = {"none": none, "crop_flip": crop_flip, "shift": shift}


def augment_names() -> list[str]:
    """Names that `augmentation` knows.

    >>> augment_names()
    ['crop_flip', 'none', 'shift']
    """
    return sorted(_BY_NAME)


def augmentation(augment: Augment | str) -> Augment:
    """The function behind a name; a function stays what it is.

    Errors: InputError for an unknown name.

    >>> augmentation("shift") is shift
    True
    """
    if callable(augment):
        return augment
    if augment not in _BY_NAME:
        close = difflib.get_close_matches(str(augment), _BY_NAME, n=1)
        raise InputError(
            f"augment={augment!r}", f"one of {', '.join(augment_names())}", f"use {close[0] if close else 'none'!r}"
        )
    return _BY_NAME[augment]


def default_augment(data: DataSplit) -> str:
    """ "shift" for grey images, where a mirrored digit is another sign; "crop_flip" for colour."""
    return "shift" if data.input_shape[0] == 1 else "crop_flip"
