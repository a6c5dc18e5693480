"""What the cut broke, mended: batch norm measured anew, and epochs of training."""

from __future__ import annotations

import time
from typing import Any

import torch
from torch import nn
from torch.optim.lr_scheduler import LambdaLR

from thresher.apps.data import Batches, default_augment
from thresher.apps.runs import Metrics
from thresher.apps.train.ending.evaluate import accuracy
from thresher.apps.train.engine import train_epoch
from thresher.apps.train.loss import LossMeter
from thresher.apps.train.optim import lr_factor, make_optimizer
from thresher.apps.train.progress import Progress
from thresher.apps.train.setup import Workbench
from thresher.session import reestimate_norm

NORM_BATCHES = 100


def remeasure(bench: Workbench, model: nn.Module) -> int:
    """Batch norm of `model` from training images, augmented as in training; returns how many layers were measured.

    The same batches as the first of fine-tuning, but not taken from them.
    """
    config, data, (mean, std) = bench.config, bench.data, bench.record["normalisation"]
    stream = Batches(
        data.train,
        min(config.batch_size, len(data.train)),
        train=True,
        augment=config.augment or default_augment(data),
        mean=mean,
        std=std,
        seed=config.seed,
        device=bench.device,
    )
    return reestimate_norm(model, stream, limit=NORM_BATCHES)


def finetune(bench: Workbench, model: nn.Module, log: Metrics, progress: Progress) -> float:
    """Train `model` for the epochs of the run's settings; a record in `log` each epoch. Returns the last accuracy.

    The optimizer is a new one: the layers have new parameters.

    Errors: NumericsError when the loss runs away.
    """
    assert bench.train is not None
    config = bench.config
    bench.model, bench.forward = model, torch.compile(model) if config.compile else model
    bench.optimizer = make_optimizer(config, model)
    warmup = round(config.warmup_epochs * len(bench.train))
    bench.scheduler = LambdaLR(bench.optimizer, lr_factor(config.schedule, bench.steps, warmup))
    meter = LossMeter(bench.device, patience=1 if bench.scaler is None else 20)
    progress.started(step=0, steps=bench.steps, epochs=config.epochs)
    right, began = 0.0, time.perf_counter()
    for epoch in range(config.epochs):
        model.train()
        rate = train_epoch(bench, meter, progress)
        mean = meter.mean()
        meter.reset()
        right = accuracy(model, bench.test, channels_last=config.channels_last)
        record: dict[str, Any] = {
            "kind": "epoch",
            "epoch": epoch,
            "step": bench.step,
            "loss": mean,
            "lr": rate,
            "accuracy": right,
            "sparsity": 0.0,
            "seconds": round(time.perf_counter() - began, 3),
        }
        log.add(record)
        progress.logged(record)
    model.eval()
    return right
