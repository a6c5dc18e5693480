"""A model's graph, captured by torch.export, for one batch size or for any."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from thresher.deploy.examples import arguments, batch_of, call, difference, with_batch
from thresher.errors import InputError


def captured(model: nn.Module, example: Any, *, dynamic_batch: bool) -> torch.export.ExportedProgram:
    """`torch.export.export`. Errors: InputError for a model that torch cannot capture."""
    args, kwargs = arguments(example)
    try:
        with quiet():
            shapes = _shapes(args, kwargs) if dynamic_batch else None
            return torch.export.export(model, args, kwargs, dynamic_shapes=shapes)
    except Exception as error:  # errors of many kinds
        raise uncapturable(model, error, dynamic_batch=dynamic_batch) from error


def uncapturable(model: nn.Module, error: Exception, *, dynamic_batch: bool) -> InputError:
    """What to say when torch's exporters give up."""
    reason = next((line for line in str(error).splitlines() if line.strip()), "no reason given")
    return InputError(
        f"a {type(model).__name__} that torch cannot export ({type(error).__name__}: {reason[:200]})",
        "a model whose forward pass torch.export can capture" + (", for any batch size" if dynamic_batch else ""),
        "try dynamic_batch=False (--static-batch)" if dynamic_batch else "simplify its forward pass",
    )


def traced_with(example: Any, *, dynamic_batch: bool) -> Any:
    """The example to trace with: of one sample alone torch would take the batch to be 1 for ever."""
    return with_batch(example, max(2, batch_of(example))) if dynamic_batch else example


def differences(run: Any, model: nn.Module, example: Any, *, dynamic_batch: bool) -> dict[int, float]:
    """Batch size to the difference between `run(inputs)` and the model: at the example's, one more, and one."""
    if not dynamic_batch:
        return {batch_of(example): difference(run(example), call(model, example))}
    here = batch_of(example)
    inputs = {batch: with_batch(example, batch) for batch in (here, here + 1, 1)}
    return {batch: difference(run(given), call(model, given)) for batch, given in inputs.items()}


def _shapes(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    batch = torch.export.Dim("batch")
    of_args = tuple({0: batch} if isinstance(value, Tensor) else None for value in args)
    return of_args or {name: {0: batch} if isinstance(value, Tensor) else None for name, value in kwargs.items()}


@contextmanager
def quiet() -> Iterator[None]:
    """The exporters warn about optional libraries and report each step; nothing of it is about the model."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript", "onnx_ir", "torch.export")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
