"""Count what a network costs: entries, zeros, output positions and multiply-adds of each layer."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd
from torch.utils.hooks import RemovableHandle

from thresher.budget.linear import features_of, is_linear
from thresher.errors import InputError, ThresherError

_TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)


def kept_count(sparsity: float, entries: int) -> int:
    """`n - floor(s*n + 1e-9)`: how many of `entries` stay non-zero at `sparsity`.

    The guard keeps 0.29 * 100 = 28.999999999999996 from becoming 28.

    >>> kept_count(0.29, 100)
    71
    """
    return entries - int(sparsity * entries + 1e-9)


def counted_weights(model: nn.Module) -> dict[str, tuple[nn.Module, str]]:
    """The weights whose multiply-adds are counted, name -> (module, tensor): matrices and kernels of convolutions,
    linear layers, attention and recurrent layers."""
    found: dict[str, tuple[nn.Module, str]] = {}
    for name, module in model.named_modules():
        prefix = f"{name}." if name else ""
        if isinstance(module, _ConvNd) or is_linear(module):
            found[f"{prefix}weight"] = (module, "weight")
        elif isinstance(module, (nn.MultiheadAttention, nn.RNNBase)):
            for tensor in _matrices(module):
                found[f"{prefix}{tensor}"] = (module, tensor)
    return found


def _matrices(module: nn.Module) -> list[str]:
    """Names of the matrices that attention or a recurrent layer holds itself, attached or plain."""
    if isinstance(module, nn.RNNBase):
        return [name for name in module._flat_weights_names if name.startswith("weight")]
    names = ("in_proj_weight", "q_proj_weight", "k_proj_weight", "v_proj_weight")
    return [name for name in names if getattr(module, name, None) is not None]


class PositionCounter:
    """Watches forward passes and notes P_l, the output positions per sample of each counted weight.

    P = 1 for a linear layer on vectors, H_out * W_out for a 2-d convolution (input positions for a transposed one),
    tokens for a token-wise linear layer, an attention projection or a recurrent layer; summed when a layer runs
    several times in one forward pass. Multiply-adds of a layer are then `P_l * n_l`, also for grouped convolutions,
    because `n_l` holds C_in / groups. Scores times values inside attention have no weight and are not counted.
    """

    def __init__(self, model: nn.Module) -> None:
        self.positions: dict[str, float] = {}
        self._batch = 1
        self._handles: list[RemovableHandle] = [model.register_forward_pre_hook(self._begin, with_kwargs=True)]
        for name, module in model.named_modules():
            if isinstance(module, (_ConvNd, nn.MultiheadAttention, nn.RNNBase)) or is_linear(module):
                # A partial of a method, not a closure: a deep copy of the model then counts into its own counter.
                note = partial(self._note, f"{name}." if name else "", _matrices(module))
                self._handles.append(module.register_forward_hook(note, with_kwargs=True))

    def _begin(self, module: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        tensors = [value for value in (*args, *kwargs.values()) if isinstance(value, Tensor) and value.ndim]
        self._batch = max(tensors[0].shape[0], 1) if tensors else 1
        self.positions.clear()

    def _note(
        self,
        prefix: str,
        matrices: Sequence[str],
        module: nn.Module,
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any],
        output: Any,
    ) -> None:
        if isinstance(module, nn.MultiheadAttention):
            inputs = [args[i] if i < len(args) else kwargs[key] for i, key in enumerate(("query", "key", "value"))]
            queries, keys, values = (item.numel() / item.shape[-1] for item in inputs)
            of = {"q_proj_weight": queries, "k_proj_weight": keys, "v_proj_weight": values}
            for tensor in matrices:
                self._add(prefix + tensor, of.get(tensor, (queries + keys + values) / 3))
            self._add(prefix + "out_proj.weight", queries)
        elif isinstance(module, nn.RNNBase):
            tokens = getattr(args[0], "data", args[0]).numel() / module.input_size
            for tensor in matrices:
                self._add(prefix + tensor, tokens)
        elif isinstance(module, _TRANSPOSED):
            self._add(prefix + "weight", args[0].numel() / module.in_channels)
        else:
            width = module.out_channels if isinstance(module, _ConvNd) else features_of(module)[1]
            self._add(prefix + "weight", output.numel() / width)

    def _add(self, name: str, positions: float) -> None:
        self.positions[name] = self.positions.get(name, 0.0) + positions / self._batch

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


def overhear(model: nn.Module, example: Any, handles: Sequence[RemovableHandle]) -> None:
    """One forward pass without gradients in eval mode, after which the hooks behind `handles` come off."""
    try:
        with torch.no_grad(), eval_mode(model):
            call(model, example)
    finally:
        for handle in handles:
            handle.remove()


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
