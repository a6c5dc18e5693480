"""The compiled model as a torch operator, so that torch.compile and torch.export see one node."""

from __future__ import annotations

import itertools
import weakref
from typing import Any

import torch
from torch import Tensor

_numbers = itertools.count(1)
_models: weakref.WeakValueDictionary[int, Any] = weakref.WeakValueDictionary()


def register(model: Any) -> int:
    """A number by which the operator finds `model` as long as it lives."""
    number = next(_numbers)
    _models[number] = model
    return number


@torch.library.custom_op("thresher::engine", mutates_args=())
def engine(handle: int, inputs: list[Tensor]) -> list[Tensor]:
    """Outputs of the compiled model number `handle`."""
    return list(_models[handle].flat(inputs))


@engine.register_fake
def _(handle: int, inputs: list[Tensor]) -> list[Tensor]:
    return [inputs[0].new_empty((inputs[0].shape[0], *shape)) for shape in _models[handle].shapes()]
