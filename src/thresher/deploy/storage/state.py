"""Which tensors a model or a dict hands over, and which of them are one and the same."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy
from torch.nn.utils import parametrize
from torch.utils._python_dispatch import is_traceable_wrapper_subclass

from thresher.deploy.storage.header import NAMES
from thresher.errors import InputError

SUFFIXES = ("#mask", "#gaps", "#pattern", "#values")


def tensors_of(source: nn.Module | Mapping[str, Any]) -> dict[str, Tensor]:
    """Name -> tensor: a module's state_dict, or the mapping itself, checked.

    >>> sorted(tensors_of(nn.Linear(2, 1)))
    ['bias', 'weight']

    Errors: InputError for a module with parametrizations, for a value that is no plain tensor, for a dtype that
    safetensors lacks, and for a name that the file needs itself.
    """
    if isinstance(source, nn.Module):
        refuse_parametrized(source)
        source = source.state_dict()
    if not isinstance(source, Mapping):
        raise InputError(type(source).__name__, "an nn.Module or a dict of tensors", "pass model or model.state_dict()")
    for name, value in source.items():
        _check(name, value)
    return dict(source)


def refuse_parametrized(model: nn.Module) -> None:
    """InputError when a torch parametrization is still attached to `model`."""
    for name, module in model.named_modules():
        if parametrize.is_parametrized(module):
            raise InputError(
                f"module {name or type(model).__name__!r} with torch parametrizations",
                "plain parameters, since the file holds what the finished model holds",
                "call finish() first",
            )


def ties_of(state: Mapping[str, Tensor]) -> dict[str, str]:
    """Alias -> first name, for tensors that are the same view of the same storage.

    >>> import torch
    >>> w = torch.ones(3)
    >>> ties_of({"a": w, "b": w.detach(), "c": w.clone()})
    {'b': 'a'}

    Tensors that only overlap (a slice, a transpose) are not tied: each is stored whole.
    """
    owners: dict[tuple[object, ...], str] = {}
    ties = {}
    for name, tensor in state.items():
        storage = tensor.untyped_storage()._cdata
        key = (storage, tensor.storage_offset(), tuple(tensor.shape), tensor.stride(), tensor.dtype)
        owner = owners.setdefault(key, name)
        if owner != name:
            ties[name] = owner
    return ties


def _check(name: object, value: object) -> None:
    given = expected = do = ""
    if not isinstance(name, str) or name == "__metadata__" or name.endswith(SUFFIXES) or not _encodable(name):
        given, expected = f"the name {name!r}", f"a text that is not __metadata__ and ends with none of {SUFFIXES}"
        do = "rename the entry"
    elif not isinstance(value, Tensor):
        given, expected = f"{name!r} is a {type(value).__name__}", "tensors only"
        do = "put plain values into record=, or leave the entry out"
    elif is_lazy(value) or is_traceable_wrapper_subclass(value):
        given, expected = f"{name!r} is a {type(value).__name__}", "a plain tensor"
        do = "run the model once (lazy), gather it with full_tensor() (sharded) or dequantize() it (quantized)"
    elif value.dtype not in NAMES or value.layout != torch.strided:
        given, expected = f"{name!r} is {value.dtype}, {value.layout}", f"strided, one of {', '.join(map(str, NAMES))}"
        do = "convert it first, e.g. with .to(torch.float32) or .to_dense()"
    if given:
        raise InputError(given, expected, do)


def _encodable(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True
