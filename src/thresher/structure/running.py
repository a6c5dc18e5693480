"""What runs when, and where it goes wrong: the order of the layers, the innermost module that fails a test."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import nn

from thresher.budget.counts import call
from thresher.errors import InputError


@dataclass(frozen=True)
class Called:
    """The arguments with which a module was called."""

    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]


def run(module: nn.Module, inputs: Any) -> Any:
    """`module` applied to an example as users give it, or to a noted call."""
    return module(*inputs.args, **inputs.kwargs) if isinstance(inputs, Called) else call(module, inputs)


def innermost(model: nn.Module, example: Any, fails: Callable[[nn.Module, Any], bool]) -> str:
    """In words, the innermost module that fails by itself on what it is given in a run on `example`."""
    seen: dict[str, Called] = {}

    def note(name: str, module: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        seen.setdefault(name, Called(args, kwargs))

    inner = {name: module for name, module in model.named_modules() if name and module._modules}
    handles = [
        module.register_forward_pre_hook(partial(note, name), with_kwargs=True) for name, module in inner.items()
    ]
    try:
        with torch.no_grad():
            run(model, example)
    finally:
        for handle in handles:
            handle.remove()
    found = "layers"
    for name, inputs in seen.items():  # callers before what they call
        if (found == "layers" or name.startswith(f"{found}.")) and fails(inner[name], inputs):
            found = name
    return found if found == "layers" else f"{found} ({type(inner[found]).__name__})"


def running_order(model: nn.Module, example: Any) -> list[str]:
    """Names of the modules with parameters of their own, in the order of their first call."""
    order: dict[str, None] = {}
    handles = [
        module.register_forward_pre_hook(lambda *_, name=name: order.setdefault(name))
        for name, module in model.named_modules()
        if module._parameters
    ]
    flags = [(module, module.training) for module in model.modules()]
    try:
        with torch.no_grad():
            model.eval()
            call(model, example)
    except Exception as error:
        raise InputError(
            f"an example on which {type(model).__name__} fails: {error}",
            "one batch of inputs that the model accepts",
            "pass example=one_batch",
        ) from error
    finally:
        for handle in handles:
            handle.remove()
        for module, flag in flags:
            module.training = flag
    return list(order)
