"""Batch-norm statistics measured anew: those of the dense network no longer fit the pruned one."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from itertools import islice
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.parameter import is_lazy

from thresher.budget.counts import call, eval_mode
from thresher.errors import InputError, NumericsError, ThresherError


def reestimate_norm(model: nn.Module, batches: Iterable[Any], *, limit: int | None = None) -> int:
    """running mean, running variance = mean over the batches of each batch's own, in every BatchNorm layer.

    One pass without gradients. Only the norms are in train mode, so that dropout is off and methods that gate softly in
    training gate as in evaluation; modes and momenta are put back. Works on a model that is being pruned, and on a
    finished one. Layers without running statistics, and layers that the pass does not reach, keep what they have.

    Take batches of the training distribution, **augmented as in training**: without augmentation the statistics are
    those of easier images, and a pruned ResNet-20 loses several points.

    Args:
        batches: tensors, tuples (inputs, labels), or mappings of keyword arguments; moved to the model's device.
        limit: at most that many of them; every batch counts the same.

    Returns: how many layers were measured; without any batch norm 0, and no batch is drawn.
    Errors: InputError for a limit below 1, for no batches, for a batch that the model cannot take; NumericsError for
    NaN or infinity. After an error the statistics are what they were.

    >>> model = nn.BatchNorm1d(1)
    >>> reestimate_norm(model, [torch.tensor([[1.0], [3.0]]), torch.tensor([[5.0], [7.0]])])
    1
    >>> model.running_mean.item(), model.running_var.item(), model.momentum
    (4.0, 2.0, 0.1)
    """
    # Not torch.optim.swa_utils.update_bn: it switches the whole model to train mode (dropout, soft gates), sets every
    # flag to that of the root afterwards, takes no mappings, and leaves a half-measured model behind an error.
    if limit is not None and (type(limit) is not int or limit < 1):
        raise InputError(f"limit={limit!r}", "a number of batches, at least 1, or None", "correct limit")
    norms = [module for module in model.modules() if isinstance(module, _BatchNorm) and _counts(module)]
    if not norms:
        return 0
    with _measuring(model, norms):
        seen = 0
        for seen, batch in enumerate(islice(batches, limit), start=1):
            _run(model, batch, seen, norms[0].running_mean.device)  # type: ignore[union-attr]
        if not seen:
            raise InputError("no batches", "at least one batch of inputs", "pass a loader that is not empty or used up")
        for module in norms:
            _check(module, seen)
        return sum(bool(module.num_batches_tracked) for module in norms)


def _counts(module: _BatchNorm) -> bool:
    # Lazy norms that never ran have no statistics yet either.
    mean = module.running_mean
    return mean is not None and not is_lazy(mean) and module.num_batches_tracked is not None


@contextmanager
def _measuring(model: nn.Module, norms: list[_BatchNorm]) -> Iterator[None]:
    """Fresh statistics and cumulative averages inside; afterwards modes and momenta as before, and after an error, or
    where nothing was measured, the statistics too."""
    before = [(module, module.momentum, {name: each.clone() for name, each in _statistics(module)}) for module in norms]
    failed = True
    try:
        with eval_mode(model), torch.no_grad():
            for module in norms:
                module.training = True  # not train(): a norm may hold other modules
                module.momentum = None
                module.reset_running_stats()
            yield
        failed = False
    finally:
        for module, momentum, saved in before:
            module.momentum = momentum
            if failed or not bool(module.num_batches_tracked):
                for name, tensor in _statistics(module):
                    tensor.copy_(saved[name])


def _statistics(module: _BatchNorm) -> list[tuple[str, Tensor]]:
    names = ("running_mean", "running_var", "num_batches_tracked")
    return [(name, getattr(module, name)) for name in names]


def _run(model: nn.Module, batch: Any, number: int, place: torch.device) -> None:
    if isinstance(batch, (tuple, list)) and not batch:
        raise InputError(f"batch {number}, which is empty", "inputs, or (inputs, labels)", "correct the loader")
    inputs = batch[0] if isinstance(batch, (tuple, list)) else batch
    inputs = _placed(inputs, place, number)
    try:
        call(model, inputs)
    except ThresherError:
        raise
    except Exception as error:
        raise InputError(
            f"batch {number} of type {type(batch).__name__}, on which the model fails: {error}",
            "tensors, (inputs, labels) or keyword arguments that the model accepts, with several values per channel",
            "correct the loader; drop_last=True leaves out a last batch of one",
        ) from error


def _placed(inputs: Any, place: torch.device, number: int) -> Any:
    if isinstance(inputs, Tensor):
        if inputs.is_floating_point() and not torch.isfinite(inputs).all():
            raise NumericsError(f"batch {number} with NaN or infinity", "finite inputs", "clean the data first")
        return inputs.to(place)
    if isinstance(inputs, Mapping):
        return {key: _placed(value, place, number) for key, value in inputs.items()}
    if isinstance(inputs, (tuple, list)):
        return [_placed(value, place, number) for value in inputs]
    return inputs


def _check(module: _BatchNorm, batches: int) -> None:
    for name, tensor in _statistics(module):
        if not torch.isfinite(tensor).all():
            raise NumericsError(
                f"{name} of a {type(module).__name__} with NaN or infinity after {batches} batches",
                "activations that are finite",
                "look for NaN or huge values in the weights",
            )
