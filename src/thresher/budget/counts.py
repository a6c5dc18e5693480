"""Count what a network costs: entries, zeros, output positions and multiply-adds of each layer."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd
from torch.utils.hooks import RemovableHandle

from thresher.errors import InputError, ThresherError


def kept_count(sparsity: float, entries: int) -> int:
    """`n - floor(s*n + 1e-9)`: how many of `entries` stay non-zero at `sparsity`.

    The guard keeps 0.29 * 100 = 28.999999999999996 from becoming 28.

    >>> kept_count(0.29, 100)
    71
    """
    return entries - int(sparsity * entries + 1e-9)


def counted_layers(model: nn.Module) -> dict[str, nn.Module]:
    """The layers whose multiply-adds are counted, by the name of their weight: convolutions and linear layers."""
    found: dict[str, nn.Module] = {}
    for name, module in model.named_modules():
        if isinstance(module, (_ConvNd, nn.Linear)):
            found[f"{name}.weight" if name else "weight"] = module
    return found


class PositionCounter:
    """Watches forward passes and notes P_l, the output positions per sample of each counted layer.

    P = 1 for a linear layer on vectors, H_out * W_out for a 2-d convolution, tokens for a token-wise linear
    layer; summed when a layer runs several times in one forward pass. Multiply-adds of a layer are then
    `P_l * n_l`, also for grouped convolutions, because `n_l` holds C_in / groups.
    """

    def __init__(self, model: nn.Module) -> None:
        self.positions: dict[str, float] = {}
        self._batch = 1
        self._handles: list[RemovableHandle] = [model.register_forward_pre_hook(self._begin, with_kwargs=True)]
        for name, layer in counted_layers(model).items():
            self._handles.append(layer.register_forward_hook(self._note(name)))

    def _begin(self, module: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        tensors = [value for value in (*args, *kwargs.values()) if isinstance(value, Tensor) and value.ndim]
        self._batch = max(tensors[0].shape[0], 1) if tensors else 1
        self.positions.clear()

    def _note(self, name: str) -> Callable[..., None]:
        def hook(module: nn.Module, args: object, output: Tensor) -> None:
            width: Any = module.out_channels if isinstance(module, _ConvNd) else module.out_features
            self.positions[name] = self.positions.get(name, 0.0) + output.numel() / (self._batch * width)

        return hook

    def close(self) -> None:
        """Take the hooks off."""
        for handle in self._handles:
            handle.remove()
        self._handles.clear()


def count_positions(model: nn.Module, example: Any) -> dict[str, float]:
    """Output positions per sample of each counted layer, from one forward pass without gradient in eval mode.

    `example`: a tensor, a tuple of arguments, or a mapping of keyword arguments, first axis the batch.
    Running statistics and the training flags are left as they were.

    Errors: InputError when the model cannot run on `example`.
    """
    counter = PositionCounter(model)
    try:
        with torch.no_grad(), eval_mode(model):
            call(model, example)
    except ThresherError:
        raise
    except Exception as error:
        raise InputError(
            f"an example of {_describe(example)} on which the model fails: {error}",
            "one batch of inputs that the model accepts",
            "pass example=next(iter(loader))[0]",
        ) from error
    finally:
        counter.close()
    return dict(counter.positions)


def call(model: nn.Module, example: Any) -> Any:
    """`model` applied to a tensor, a tuple of arguments, or a mapping of keyword arguments."""
    if isinstance(example, Mapping):
        return model(**example)
    if isinstance(example, (tuple, list)):
        return model(*example)
    return model(example)


@contextmanager
def eval_mode(model: nn.Module) -> Iterator[None]:
    """Every module in eval mode inside the block; each gets its own flag back afterwards."""
    flags = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, flag in flags:
            module.training = flag


def _describe(example: Any) -> str:
    if isinstance(example, Tensor):
        return f"shape {tuple(example.shape)}"
    if isinstance(example, (tuple, list, Sequence)):
        return "(" + ", ".join(_describe(item) for item in example) + ")"
    return type(example).__name__
