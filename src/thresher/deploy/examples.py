"""The inputs of a model: one tensor, a tuple of arguments, or keyword arguments; called, resized, flattened."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves, tree_map

from thresher.deploy.storage.state import refuse_parametrized
from thresher.errors import InputError


def call(model: Callable[..., Any], example: Any) -> Any:
    """`model` applied to one argument, a tuple or list of arguments, or a mapping of keyword arguments."""
    args, kwargs = arguments(example)
    return model(*args, **kwargs)


def arguments(example: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """(positional arguments, keyword arguments).

    >>> arguments((1, 2)), arguments({"x": 1})
    (((1, 2), {}), ((), {'x': 1}))
    """
    if isinstance(example, Mapping):
        return (), dict(example)
    return (tuple(example), {}) if isinstance(example, (tuple, list)) else ((example,), {})


def tensors(nested: Any) -> list[Tensor]:
    """The tensors in an example or an output, in order.

    Errors: InputError for an output that is no tensor and holds none.
    """
    found = [leaf for leaf in tree_leaves(nested) if isinstance(leaf, Tensor)]
    if not found:
        raise InputError(
            f"{type(nested).__name__} without a tensor", "a tensor, or a tuple or mapping of them", "return tensors"
        )
    return found


def batch_of(example: Any) -> int:
    """Length of the first axis of the first tensor.

    >>> batch_of({"x": torch.ones(3, 2)})
    3
    """
    first = tensors(example)[0]
    return first.shape[0] if first.dim() else 1


def with_batch(example: Any, batch: int) -> Any:
    """The example with its samples repeated, or cut, to `batch` of them along the first axis of every tensor.

    >>> with_batch(torch.arange(2), 5).tolist()
    [0, 1, 0, 1, 0]

    Errors: InputError for tensors without a common first axis, or a batch below 1.
    """
    sizes = {tensor.shape[0] if tensor.dim() else 0 for tensor in tensors(example)}
    if batch < 1 or len(sizes) != 1 or 0 in sizes:
        raise InputError(
            f"a batch of {batch} from tensors of {sorted(sizes)} samples",
            "at least one sample, and one first axis that all tensors share",
            "pass an example whose first axis is the batch",
        )
    here = sizes.pop()
    rows = torch.arange(batch) % here

    def resize(leaf: Any) -> Any:
        return leaf[rows.to(leaf.device)] if isinstance(leaf, Tensor) else leaf

    return tree_map(resize, example)


def finished(model: nn.Module) -> nn.Module:
    """A copy of a plain model on the CPU, in eval mode, without gradients; the model itself is left as it is.

    A language model of the transformers library gives no cache: graphs cannot hold one, and it is no output to compare.

    Errors: InputError when parametrizations are still attached.
    """
    refuse_parametrized(model)
    twin: Any = copy.deepcopy(model).cpu().eval().requires_grad_(False)
    if getattr(getattr(twin, "config", None), "use_cache", None) is True:
        twin.config.use_cache = False
    return cast(nn.Module, twin)


def difference(given: Any, expected: Any) -> float:
    """max |given − expected| / max |expected| over all tensors; NaN and infinity must stand at equal places.

    >>> difference(torch.tensor([10.0, 2.0]), torch.tensor([10.0, 3.0]))
    0.1

    `inf` when the number of tensors, a shape, or the places of what is not finite differ. Relative however small the
    outputs are: those of an untrained network may be 1e-20 throughout.
    """
    ours, theirs = tensors(given), tensors(expected)
    if len(ours) != len(theirs):
        return float("inf")
    worst, scale = 0.0, 1e-30
    for a, b in zip(ours, theirs, strict=True):
        if a.shape != b.shape:
            return float("inf")
        a, b = a.detach().cpu().double(), b.detach().cpu().double()
        finite = torch.isfinite(b)
        if (
            not torch.equal(torch.nan_to_num(a[~finite]), torch.nan_to_num(b[~finite]))
            or not a[finite].isfinite().all()
        ):
            return float("inf")
        if finite.any():
            worst = max(worst, float((a[finite] - b[finite]).abs().max()))
            scale = max(scale, float(b[finite].abs().max()))
    return worst / scale
