"""Batches whose order and augmentation are pure functions of (seed, epoch, batch), so that any epoch can be resumed."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from thresher.apps.data.augment import DRAWS, Augment, augmentation
from thresher.apps.data.split import ArrayData
from thresher.errors import InputError, StateError

VERSION = 1


class Batches:
    """Yields (inputs float32 (B, C, H, W), labels int64 (B,)), inputs = (images / 255 − mean) / std.

    Training shuffles each epoch and drops the last part of a batch; evaluation keeps the order and every image.
    With several processes, batch k of all ranks together is batch k of one process with world_size times the batch
    size, augmentation included.

    Args:
        data: the images.
        batch_size: images in a batch of one process.
        train: shuffle, augment, drop the last part of a batch.
        augment: a name ("none", "crop_flip", "shift") or a function; used in training only.
        mean, std: one for each channel, for images in 0..1: the model's when it declares some, else the data's.
        seed: of order and augmentation.
        device: where the batches go.
        rank, world_size: this process, and how many there are.

    Attributes: `epoch`; `start_batch`, where the next iteration begins. When a training epoch ends, `epoch` moves on
    and `start_batch` returns to 0.

    Errors: InputError when an argument does not fit the data.

    >>> data = ArrayData(torch.full((6, 1, 2, 2), 255, dtype=torch.uint8), torch.arange(6))
    >>> batches = Batches(data, 4, train=False, mean=[0.5], std=[0.5])
    >>> [(inputs.mean().item(), labels.tolist()) for inputs, labels in batches]
    [(1.0, [0, 1, 2, 3]), (1.0, [4, 5])]
    """

    def __init__(
        self,
        data: ArrayData,
        batch_size: int,
        *,
        train: bool,
        augment: Augment | str = "none",
        mean: Sequence[float],
        std: Sequence[float],
        seed: int = 0,
        device: torch.device | str = "cpu",
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        self.data, self.batch_size, self.train, self.seed = data, batch_size, train, seed
        self.rank, self.world_size = rank, world_size
        self.device = torch.device(device)
        self._augment = augmentation(augment)
        self._check(mean, std)
        self._mean = torch.tensor(mean, dtype=torch.float32, device=self.device).reshape(-1, 1, 1)
        self._std = torch.tensor(std, dtype=torch.float32, device=self.device).reshape(-1, 1, 1)
        self.epoch = self.start_batch = self._position = 0

    def _check(self, mean: Sequence[float], std: Sequence[float]) -> None:
        if self.world_size < 1 or not 0 <= self.rank < self.world_size:
            raise InputError(
                f"rank={self.rank}, world_size={self.world_size}",
                "a rank from 0 to world_size - 1",
                "pass torch.distributed.get_rank() and get_world_size()",
            )
        if self.batch_size < 1 or (self.train and self.batch_size * self.world_size > len(self.data)):
            raise InputError(
                f"batch_size={self.batch_size} in {self.world_size} process(es), for {len(self.data)} images",
                "at least 1, and in training at least one whole batch",
                "lower batch_size, or raise the limit on images",
            )
        channels = self.data.images.shape[1]
        if len(mean) != channels or len(std) != channels or min(std) <= 0:
            raise InputError(
                f"mean={tuple(mean)}, std={tuple(std)}, for {channels} channel(s)",
                "one of each for every channel, std above 0",
                "pass the mean and std of the model, or of the data set",
            )

    def __len__(self) -> int:
        share = len(range(self.rank, len(self.data), self.world_size))
        if self.train:
            return len(self.data) // (self.batch_size * self.world_size)  # the same in every process
        return -(-share // self.batch_size)

    def set_epoch(self, epoch: int) -> None:
        """Go to the start of `epoch`; the present epoch keeps its `start_batch`, for a resumed run."""
        if epoch != self.epoch:
            self.epoch, self.start_batch, self._position = epoch, 0, 0

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        epoch, self._position = self.epoch, self.start_batch
        order = self._order(epoch)
        for batch in range(self.start_batch, len(self)):
            made = self._batch(order, epoch, batch)
            self._position = batch + 1
            yield made
        if epoch == self.epoch:  # else set_epoch or load_state_dict moved on meanwhile
            self.epoch, self.start_batch, self._position = epoch + int(self.train), 0, 0

    def _order(self, epoch: int) -> Tensor:
        if not self.train:
            return torch.arange(len(self.data))
        return torch.randperm(len(self.data), generator=_generator(self.seed, epoch, -1))

    def _batch(self, order: Tensor, epoch: int, batch: int) -> tuple[Tensor, Tensor]:
        whole = self.batch_size * self.world_size
        rows = order[batch * whole : (batch + 1) * whole][self.rank :: self.world_size]
        images = self.data.images[rows].to(self.device, non_blocking=True)
        labels = self.data.labels[rows].to(self.device, non_blocking=True)
        if self.train:
            # Drawn on the CPU for the batch of all processes: the same on every device, and for every world size.
            draws = torch.rand(whole, DRAWS, generator=_generator(self.seed, epoch, batch))
            images = self._augment(images, draws[self.rank :: self.world_size].to(self.device))
        return images.to(torch.float32).div_(255).sub_(self._mean).div_(self._std), labels

    def state_dict(self) -> dict[str, Any]:
        """Where the iteration stands: `batch` counts the batches of `epoch` handed out so far."""
        return {"version": VERSION, "epoch": self.epoch, "batch": self._position, **self._identity()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue behind the batches that were handed out when `state` was made.

        Errors: StateError when `state` belongs to other data, another seed or another batch size.
        """
        now = {"version": VERSION, **self._identity()}
        wrong = [key for key in now if state.get(key) != now[key]]
        if wrong or not isinstance(state.get("epoch"), int) or not isinstance(state.get("batch"), int):
            raise StateError(
                f"a state with {', '.join(f'{key}={state.get(key)}' for key in wrong) or 'no epoch or batch'}",
                ", ".join(f"{key}={now[key]}" for key in wrong) or "the state that Batches.state_dict() returned",
                "resume with the settings of the run that was stopped, or start a new run",
            )
        self.epoch, self.start_batch = state["epoch"], state["batch"]
        self._position = self.start_batch

    def _identity(self) -> dict[str, Any]:
        # The batch of all processes together counts: 2 processes of 64 may resume as 1 process of 128.
        whole = self.batch_size * self.world_size
        return {"seed": self.seed, "count": len(self.data), "whole_batch": whole, "train": self.train}


def _generator(seed: int, epoch: int, batch: int) -> torch.Generator:
    # Hashed, because generators with neighbouring seeds may start alike.
    digest = hashlib.sha256(f"{seed}/{epoch}/{batch}".encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "big") >> 1)
