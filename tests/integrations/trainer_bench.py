"""The plain loop that every trainer is compared with: a tiny network, two epochs, AdamW, norm clipping."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import Optimizer
from torch.utils.data import DataLoader, TensorDataset

import thresher
from thresher.session import Pruner

METHODS = ["lats", "ltp", "asl:lr=1", "power"]
EVERY = [*METHODS, "str", "st3", "gmp", "magnitude", "lats:mode=init"]
BUDGET = "sparsity=80%"
EPOCHS, STEPS, ENTRIES = 2, 12, 416
ZEROS = 332  # 80 % of 416
CLIP = 0.2  # below the norm of most gradients of this network

_generator = torch.Generator().manual_seed(1)
INPUTS = torch.randn(48, 10, generator=_generator)
LABELS = torch.randint(0, 3, (48,), generator=_generator)
DATA = TensorDataset(INPUTS, LABELS)


def loader(size: int = 8) -> DataLoader[tuple[Tensor, ...]]:
    return DataLoader(DATA, batch_size=size)


BATCHES = [*loader()] * EPOCHS


def net() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(10, 32), nn.ReLU(), nn.Linear(32, 3))


def decayed(model: nn.Module, lr: float = 1e-2) -> Optimizer:
    """AdamW as users set it up: strong weight decay on matrices, none on the rest."""
    groups = [
        {"params": [p for p in model.parameters() if p.ndim > 1], "weight_decay": 0.5},
        {"params": [p for p in model.parameters() if p.ndim == 1], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=lr)


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What a run ends in."""

    thresholds: list[list[float]]
    weights: list[Tensor]
    zeros: int


def outcome(pruner: Pruner) -> Outcome:
    thresholds = pruner.trace.thresholds
    zeros = pruner.finish().zeros
    return Outcome(thresholds=thresholds, weights=[p.detach().clone() for p in pruner.model.parameters()], zeros=zeros)


def plain_run(
    method: str,
    *,
    clip: float | None = CLIP,
    explicit: bool = False,
    make: Callable[[nn.Module], Optimizer] = decayed,
) -> Outcome:
    """The whole run in a hand-written loop."""
    model = net()
    optimizer = make(model)
    pruner = thresher.prune(model, optimizer, method, BUDGET, steps=STEPS)
    for inputs, labels in BATCHES:
        loss = F.cross_entropy(model(inputs), labels)
        if explicit:
            loss = loss + pruner.penalty()
        optimizer.zero_grad()
        loss.backward()
        if clip is not None:  # in the order of the groups, as trainers do it: norms are rounded sums
            nn.utils.clip_grad_norm_([p for group in optimizer.param_groups for p in group["params"]], clip)
        optimizer.step()
    return outcome(pruner)


def check_same(found: Outcome, expected: Outcome) -> None:
    """Equal bit for bit: thresholds at every step, weights and zeros at the end."""
    assert found.zeros == expected.zeros == ZEROS
    assert found.thresholds == expected.thresholds
    assert max(expected.thresholds[-1]) > 0
    for mine, theirs in zip(found.weights, expected.weights, strict=True):
        assert torch.equal(mine, theirs)


def step(
    model: nn.Module, optimizer: Optimizer, number: int, change: Callable[[nn.Module], None] | None = None
) -> None:
    inputs, labels = BATCHES[number]
    optimizer.zero_grad()
    F.cross_entropy(model(inputs), labels).backward()
    if change is not None:
        change(model)
    optimizer.step()


def run(pruner: Pruner, optimizer: Optimizer, first: int = 0, last: int = STEPS) -> Pruner:
    for number in range(first, last):
        step(pruner.model, optimizer, number)
    return pruner


def begin(method: str = "asl:lr=1", *, named: bool = True, **more: Any) -> tuple[Pruner, Optimizer]:
    model = net()
    optimizer = decayed(model)
    return thresher.prune(model, optimizer if named else None, method, BUDGET, steps=STEPS, **more), optimizer
