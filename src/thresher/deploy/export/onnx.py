"""ONNX through torch's exporter, run in ONNX Runtime and compared with the model before the file appears."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from thresher.deploy.examples import finished, tensors
from thresher.deploy.export.capturing import captured, differences, quiet, traced_with, uncapturable
from thresher.deploy.export.folding import fold_batch_norms
from thresher.deploy.export.outcome import TOLERANCE, Exported, accept, appearing, real, size_of
from thresher.errors import require

WHY = "exporting to ONNX"


def export_onnx(
    model: nn.Module,
    path: str | os.PathLike[str],
    example: Any,
    *,
    fold: bool = False,
    dynamic_batch: bool = True,
    tolerance: float = TOLERANCE,
) -> Exported:
    """Write `model` as an ONNX file that ONNX Runtime has run and found equal to the model.

    Args:
        example: inputs as the model takes them, the batch on the first axis.
        fold: fold batch norms into the layers before them first (the runtime does so itself when it loads the file).
        dynamic_batch: any batch size, checked at three; otherwise that of `example` alone.
        tolerance: the largest difference allowed, as a share of the largest output.

    Zeros are stored as zeros: the file is as large as that of a dense model.

    Errors: MissingExtraError without the extra `onnx`; InputError for a model that torch cannot export;
    NumericsError, and no file, when the outputs differ.
    """
    require("onnxscript", extra="onnx", why=WHY)
    require("onnxruntime", extra="onnx", why=WHY)
    with torch.no_grad():
        plain, folded = fold_batch_norms(model, example) if fold else (finished(model), 0)
        traced = traced_with(example, dynamic_batch=dynamic_batch)
        with appearing(path) as place:
            write_onnx(plain, place, traced, dynamic_batch=dynamic_batch)
            found = differences(runner(place), plain, traced, dynamic_batch=dynamic_batch)
            off = accept("ONNX", found, tolerance)
            size = size_of(place)
    return Exported(path=real(path), format="onnx", bytes=size, difference=off, checked=tuple(found), folded=folded)


def write_onnx(model: nn.Module, path: Path, example: Any, *, dynamic_batch: bool) -> None:
    """The file alone, unchecked. Errors: InputError for a model that torch cannot export."""
    program = captured(model, example, dynamic_batch=dynamic_batch)
    try:
        with quiet():
            torch.onnx.export(program, f=path, dynamo=True, external_data=False, verbose=False)
    except Exception as error:  # errors of many kinds
        raise uncapturable(model, error, dynamic_batch=dynamic_batch) from error


def runner(path: Path, *, threads: int = 1) -> Callable[[Any], list[Tensor]]:
    """A function from inputs to outputs that runs an ONNX file in ONNX Runtime, in float32 on the CPU."""
    runtime: Any = require("onnxruntime", extra="onnx", why="running an ONNX file")
    options = runtime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.log_severity_level = 3
    session = runtime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    names = [one.name for one in session.get_inputs()]

    def run(example: Any) -> list[Tensor]:
        given = {name: tensor.numpy() for name, tensor in zip(names, tensors(example), strict=True)}
        return [torch.from_numpy(output) for output in session.run(None, given)]

    return run
