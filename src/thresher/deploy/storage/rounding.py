"""Matrices and kernels rounded to fewer bits before they are stored; vectors stay as they are."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from thresher.deploy.storage.state import ties_of
from thresher.errors import InputError

DTYPES = (torch.float32, torch.bfloat16, torch.float16)


def rounded(state: Mapping[str, Tensor], dtype: torch.dtype | None) -> dict[str, Tensor]:
    """`state` with every floating-point tensor of two or more dimensions in `dtype`, ties kept; None: as it is.

    Biases, norm parameters and running statistics are few, and rounding them costs accuracy: they stay. −0.0 stays
    −0.0, NaN stays NaN; a value below the smallest of `dtype` becomes zero. Tensors already narrower stay too.

    >>> rounded({"w": torch.eye(2), "b": torch.ones(2)}, torch.bfloat16)["w"].dtype
    torch.bfloat16

    Errors: InputError for another dtype, and for finite values that `dtype` can only hold as infinity.
    """
    if dtype is None:
        return dict(state)
    if dtype not in DTYPES:
        raise InputError(
            f"dtype={dtype!r}", f"one of {', '.join(map(str, DTYPES))}", "leave it out to store the model's own"
        )
    ties = ties_of(state)
    found: dict[str, Tensor] = {}
    for name, tensor in state.items():
        if name in ties:
            found[name] = found[ties[name]]
        elif tensor.is_floating_point() and tensor.dim() >= 2 and tensor.element_size() > dtype.itemsize:
            found[name] = _narrow(name, tensor.detach(), dtype)
        else:
            found[name] = tensor
    return found


def _narrow(name: str, tensor: Tensor, dtype: torch.dtype) -> Tensor:
    narrow = tensor.to(dtype)
    if not tensor.is_meta and bool((torch.isinf(narrow) & torch.isfinite(tensor)).any()):
        raise InputError(
            f"{name!r} with values up to {float(tensor[torch.isfinite(tensor)].abs().max()):g}, as {dtype}",
            f"values up to {torch.finfo(dtype).max:g}",
            "store it as torch.bfloat16, which reaches as far as float32",
        )
    return narrow


def widens(stored: torch.dtype, own: torch.dtype) -> bool:
    """Whether every value of `stored` is a value of the wider `own`, bit patterns of NaN aside.

    >>> widens(torch.bfloat16, torch.float32), widens(torch.bfloat16, torch.float16)
    (True, False)
    """
    if not (stored.is_floating_point and own.is_floating_point) or own.itemsize <= stored.itemsize:
        return False
    a, b = torch.finfo(stored), torch.finfo(own)
    return a.max <= b.max and a.tiny >= b.tiny and a.eps >= b.eps
