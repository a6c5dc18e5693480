"""A pruned network made better without another zero moving: a short fine-tune, batch norm measured anew."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from thresher.apps.train.asking.config import TrainConfig
from thresher.apps.train.asking.reading import parse_config
from thresher.apps.train.device import machine_settings
from thresher.apps.train.ending.evaluate import accuracy
from thresher.apps.train.engine import train_epoch
from thresher.apps.train.loss import LossMeter
from thresher.apps.train.progress import Progress
from thresher.apps.train.setup import Workbench, assemble
from thresher.errors import InputError
from thresher.session import reestimate_norm

_NORM_BATCHES = 200
_NO_PRUNING: dict[str, Any] = {"method": None, "budget": None, "rules": (), "trail": 0, "start": 0}


@dataclass(frozen=True, kw_only=True, eq=False)
class Repaired:
    """The network and its accuracies on `images` test images, in percent; `norms`: batch-norm layers measured anew."""

    model: nn.Module
    accuracy_before: float
    accuracy_after: float
    images: int
    norms: int


def repair(
    config: TrainConfig,
    file: Path,
    names: Iterable[str],
    *,
    epochs: int = 0,
    norm: bool = False,
    progress: Progress | None = None,
) -> Repaired:
    """The network in `file`, trained for `epochs` with the settings of `config`, then its batch norms measured anew.

    Entries of the tensors `names` that are zero stay zero. The learning rate follows the schedule of `config` over
    these epochs, without warm-up; the norms see training images, augmented as in training.

    Errors: those of `assemble`; InputError for a name that the network lacks; NumericsError when the loss runs away.
    """
    if epochs < 0:
        raise InputError(f"{epochs} epochs", "0 or more", "correct the number of epochs")
    progress = progress or Progress()
    changes = {"model": None, "weights": str(file), "epochs": max(epochs, 1), "warmup_epochs": 0.0, "distill": 0.0}
    config = parse_config({**config.model_dump(), **_NO_PRUNING, **changes})
    with machine_settings(config):
        progress.stage("loading")
        bench = assemble(config)
        before = accuracy(bench.model, bench.test, channels_last=config.channels_last)
        if epochs:
            _finetune(bench, names, progress)
        norms = 0
        if norm:
            progress.stage("measuring batch norm")
            assert bench.train is not None
            norms = reestimate_norm(bench.model, bench.train, limit=_NORM_BATCHES)
        after = accuracy(bench.model, bench.test, channels_last=config.channels_last)
    return Repaired(
        model=bench.model, accuracy_before=before, accuracy_after=after, images=len(bench.test.data), norms=norms
    )


def _finetune(bench: Workbench, names: Iterable[str], progress: Progress) -> None:
    assert bench.optimizer is not None
    assert bench.train is not None
    parameters = dict(bench.model.named_parameters())
    missing = [name for name in names if name not in parameters]
    if missing:
        raise InputError(f"{', '.join(missing[:3])}, which the network lacks", "its own tensors", "check the trail")
    masks = [(parameters[name], parameters[name].detach() != 0) for name in names]

    @torch.no_grad()
    def mask(*_: object) -> None:
        for parameter, keep in masks:
            parameter.mul_(keep)

    handle = bench.optimizer.register_step_post_hook(mask)
    meter = LossMeter(bench.device)
    progress.started(step=0, steps=bench.steps, epochs=bench.config.epochs)
    bench.model.train()
    try:
        while bench.train.epoch < bench.config.epochs:
            train_epoch(bench, meter, progress)
    finally:
        handle.remove()
    bench.model.eval()
    with torch.no_grad():
        for parameter, keep in masks:  # a product with a negative weight leaves -0.0, which a file would store
            parameter.copy_(torch.where(keep, parameter, parameter.new_zeros(())))
