"""From a configuration to everything a run works with: data, network, optimizer, pruner."""

from __future__ import annotations

import copy
import random
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from thresher.apps.data import Batches, DataSplit, default_augment, hold_out, load_data
from thresher.apps.train.asking.config import TrainConfig
from thresher.apps.train.device import make_scaler, pick_device
from thresher.apps.train.network import Network, load_network
from thresher.apps.train.objective import Objective
from thresher.apps.train.optim import lr_factor, make_optimizer
from thresher.errors import InputError
from thresher.methods import Magnitude, Random, parse_method
from thresher.session import Pruner, prune

ONE_SHOT = (Magnitude, Random)
"""Methods that need no training; they may run with epochs=0."""
_EVAL_BATCH = 500


@dataclass(eq=False)
class Workbench:
    """Everything a run works with. `dense`: a copy of the network as it was before pruning and training."""

    config: TrainConfig
    data: DataSplit
    network: Network
    record: dict[str, Any]
    device: torch.device
    model: nn.Module
    dense: nn.Module
    test: Batches
    train: Batches | None
    optimizer: Optimizer | None
    scheduler: LambdaLR | None
    scaler: torch.amp.GradScaler | None
    forward: Any
    objective: Objective
    pruner: Pruner | None = field(default=None)
    step: int = 0

    @property
    def steps_per_epoch(self) -> int:
        """Optimizer steps of one epoch."""
        return 0 if self.train is None else len(self.train)

    @property
    def steps(self) -> int:
        """Optimizer steps of the whole run."""
        return self.config.epochs * self.steps_per_epoch

    @property
    def example(self) -> Tensor:
        """A few test images, ready for the network."""
        inputs = next(iter(self.test))[0][:2]
        return inputs.contiguous(memory_format=torch.channels_last) if self.config.channels_last else inputs

    def attach(self) -> None:
        """Let the pruner, if one is asked for, take hold of the network; refuses a budget that cannot be reached."""
        config = self.config
        if config.method is None:
            return
        method = parse_method(config.method)
        if not self.steps and not isinstance(method, ONE_SHOT):
            raise InputError(
                f"method {config.method!r} with epochs=0",
                f"at least one epoch, or one of {', '.join(kind.name for kind in ONE_SHOT)}",
                "raise epochs",
            )
        self.pruner = prune(
            self.model,
            self.optimizer,
            method,
            config.budget,
            steps=self.steps,
            rules=config.rules,
            groups=config.groups,
            start=config.start,
            example=self.example if config.engine is None else self.example[:1],  # the time of one sample
            engine=config.engine,
            lr_schedule=self.scheduler,
            record=self.record,
        )
        if self.pruner.planner is not None:
            # A bytes= budget shows only here whether it can be reached: better now than after an epoch.
            self.pruner.planner.solve(self.pruner.process.scores())


def assemble(config: TrainConfig) -> Workbench:
    """Load the data, build the network and the optimizer; seeds torch and random. The pruner comes by `attach`.

    Errors: InputError wherever settings, data and weights do not fit each other.
    """
    device = pick_device(config.device)
    data = load_data(config.data, root=None if config.data_root is None else Path(config.data_root), limit=config.limit)
    if config.held_out:
        data = hold_out(data, config.held_out)
    torch.manual_seed(config.seed)
    network = load_network(config.model, config.weights, num_classes=len(data.classes), input_shape=data.input_shape)
    # Only now: libraries that are imported on the way draw numbers, but only in the first run of a process.
    random.seed(config.seed)
    mean, std = network.normalisation or (data.mean, data.std)
    model = network.model.to(device)
    if config.channels_last:
        model = model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    train = optimizer = scheduler = None
    if config.epochs:
        train = Batches(
            data.train,
            config.batch_size,
            train=True,
            augment=config.augment or default_augment(data),
            mean=mean,
            std=std,
            seed=config.seed,
            device=device,
        )
        optimizer = make_optimizer(config, model)
        warmup = round(config.warmup_epochs * len(train))
        scheduler = LambdaLR(optimizer, lr_factor(config.schedule, config.epochs * len(train), warmup))
    dense = copy.deepcopy(model)
    return Workbench(
        config=config,
        data=data,
        network=network,
        record=network.record((mean, std)),
        device=device,
        model=model,
        dense=dense,
        test=Batches(data.test, min(_EVAL_BATCH, len(data.test)), train=False, mean=mean, std=std, device=device),
        train=train,
        optimizer=optimizer,
        scheduler=scheduler,
        scaler=make_scaler(config.precision, device),
        forward=torch.compile(model) if config.compile else model,
        objective=Objective(
            dense,
            distill=config.distill,
            temperature=config.temperature,
            label_smoothing=config.label_smoothing,
        ),
    )
