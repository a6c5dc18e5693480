"""The optimizer and the learning rate of each step."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from torch import nn
from torch.optim import SGD, Adam, AdamW, Optimizer

from thresher.apps.train.asking.config import TrainConfig


def make_optimizer(config: TrainConfig, model: nn.Module) -> Optimizer:
    """SGD, Adam or AdamW over the trainable parameters; norm parameters and biases apart when they do not decay."""
    trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
    groups: list[dict[str, Any]] = [{"params": trainable}]
    if not config.decay_norm_bias:
        # Scales, shifts and biases are the parameters with one axis.
        groups = [
            {"params": [parameter for parameter in trainable if parameter.ndim > 1]},
            {"params": [parameter for parameter in trainable if parameter.ndim <= 1], "weight_decay": 0.0},
        ]
        groups = [group for group in groups if group["params"]]
    if config.optimizer == "sgd":
        return SGD(
            groups,
            lr=config.lr,
            momentum=config.momentum,
            nesterov=config.nesterov,
            weight_decay=config.weight_decay,
        )
    kind = Adam if config.optimizer == "adam" else AdamW
    return kind(groups, lr=config.lr, weight_decay=config.weight_decay)


def lr_factor(schedule: str, steps: int, warmup: int) -> Callable[[int], float]:
    """Step number (from 0) to the share of the learning rate: rising by 1/warmup per step, then the schedule.

    cosine: (1 + cos πp) / 2; linear: 1 − p; constant: 1; step: 0.1 from p = 1/2, 0.01 from 3/4, where
    p = (step − warmup) / (steps − warmup).

    >>> factor = lr_factor("cosine", steps=6, warmup=2)
    >>> [round(factor(step), 3) for step in range(6)]
    [0.5, 1.0, 1.0, 0.854, 0.5, 0.146]
    """

    def factor(step: int) -> float:
        if step < warmup:
            return (step + 1) / warmup
        progress = min((step - warmup) / max(steps - warmup, 1), 1.0)
        if schedule == "cosine":
            return 0.5 * (1 + math.cos(math.pi * progress))
        if schedule == "linear":
            return 1 - progress
        if schedule == "step":
            return 0.01 if progress >= 0.75 else 0.1 if progress >= 0.5 else 1.0
        return 1.0

    return factor
