"""torch.export: the graph and the weights in one .pt2 file, loaded again and compared before it appears."""

from __future__ import annotations

import os
from typing import Any

import torch
from torch import nn

from thresher.deploy.examples import call, finished
from thresher.deploy.export.capturing import captured, differences, quiet, traced_with
from thresher.deploy.export.folding import fold_batch_norms
from thresher.deploy.export.outcome import TOLERANCE, Exported, accept, appearing, real, size_of


def export_torch(
    model: nn.Module,
    path: str | os.PathLike[str],
    example: Any,
    *,
    fold: bool = False,
    dynamic_batch: bool = True,
    tolerance: float = TOLERANCE,
) -> Exported:
    """Write `model` as an exported program, which `torch.export.load(path).module()` gives back.

    Arguments and errors as for `export_onnx`; nothing beyond torch is needed. Torch wants the name to end with .pt2.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     export_torch(nn.Linear(3, 2), folder + "/x.pt2", torch.ones(1, 3)).checked
    (2, 3, 1)
    """
    with torch.no_grad():
        plain, folded = fold_batch_norms(model, example) if fold else (finished(model), 0)
        traced = traced_with(example, dynamic_batch=dynamic_batch)
        program = captured(plain, traced, dynamic_batch=dynamic_batch)
        with appearing(path) as place, quiet():
            torch.export.save(program, place)
            again = torch.export.load(place).module()
            found = differences(lambda given: call(again, given), plain, traced, dynamic_batch=dynamic_batch)
            off = accept("torch.export", found, tolerance)
            size = size_of(place)
    return Exported(path=real(path), format="torch", bytes=size, difference=off, checked=tuple(found), folded=folded)
