"""Where and in which precision a run computes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch

from thresher.apps.train.asking.config import TrainConfig
from thresher.errors import InputError


def pick_device(name: str) -> torch.device:
    """ "auto": CUDA when there is some, else the CPU. Errors: InputError for a device that is not there.

    >>> pick_device("cpu")
    device(type='cpu')
    """
    there = ["cpu", *(f"cuda:{number}" for number in range(torch.cuda.device_count()))]
    if name == "auto":
        return torch.device("cuda" if len(there) > 1 else "cpu")
    if name not in there and not (name == "cuda" and len(there) > 1):
        raise InputError(f"device {name!r}", f"auto, or one of {', '.join(there)}", "choose one that is there")
    return torch.device(name)


def autocast(precision: str, device: torch.device) -> AbstractContextManager[object]:
    """The context in which the forward pass and the loss run."""
    if precision == "fp32":
        return nullcontext()
    return torch.autocast(device.type, dtype=torch.bfloat16 if precision == "bf16" else torch.float16)


def make_scaler(precision: str, device: torch.device) -> torch.amp.GradScaler | None:
    """A gradient scaler for fp16, whose small gradients would vanish; None for the others."""
    return torch.amp.GradScaler(device.type) if precision == "fp16" else None


@contextmanager
def machine_settings(config: TrainConfig) -> Iterator[None]:
    """Threads and cuDNN's choice of kernels as configured; put back afterwards."""
    cudnn = torch.backends.cudnn
    threads, deterministic, benchmark = torch.get_num_threads(), cudnn.deterministic, cudnn.benchmark
    if config.threads is not None:
        torch.set_num_threads(config.threads)
    cudnn.deterministic, cudnn.benchmark = config.deterministic, not config.deterministic
    try:
        yield
    finally:
        torch.set_num_threads(threads)
        cudnn.deterministic, cudnn.benchmark = deterministic, benchmark
