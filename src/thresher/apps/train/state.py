"""All that a run is at one moment, as plain containers and tensors, and back."""

from __future__ import annotations

import random
from typing import Any

import torch

from thresher.apps.train.loss import LossMeter, diverged
from thresher.apps.train.setup import Workbench
from thresher.errors import StateError

VERSION = 2


def capture(bench: Workbench, meter: LossMeter, *, seconds: float, accuracy_before: float) -> dict[str, Any]:
    """What `restore` needs to go on bit for bit: network, optimizer, schedule, data order, random states.

    The pruner's state is in the optimizer's.

    Errors: NumericsError when the network holds NaN or infinity, so that no checkpoint ever does.
    """
    state = bench.model.state_dict()
    for name, tensor in state.items():
        if tensor.is_floating_point() and not torch.isfinite(tensor).all():
            raise diverged(f"{name} with NaN or infinity behind step {bench.step}")
    return {
        "version": VERSION,
        "step": bench.step,
        "seconds": seconds,
        "accuracy_before": accuracy_before,
        "model": state,
        "loss": meter.state_dict(),
        "random": {
            "python": random.getstate(),
            "torch": torch.get_rng_state(),
            "cuda": torch.cuda.get_rng_state_all() if bench.device.type == "cuda" else [],
        },
        **{name: part.state_dict() for name, part in _parts(bench).items()},
    }


def restore(bench: Workbench, meter: LossMeter, state: dict[str, Any]) -> None:
    """Put a freshly assembled and attached `bench` where `state` was captured.

    Errors: StateError when the state is of another version or does not fit.
    """
    if state.get("version") != VERSION:
        raise StateError(
            f"a checkpoint of version {state.get('version')!r}", f"version {VERSION}", "use the release that wrote it"
        )
    try:
        bench.model.load_state_dict(state["model"])
        meter.load_state_dict(state["loss"])
        for name, part in _parts(bench).items():
            part.load_state_dict(state[name])
    except (KeyError, RuntimeError, ValueError) as error:
        if isinstance(error, StateError):
            raise
        raise StateError(
            f"a checkpoint that does not fit the run ({(str(error).splitlines() or [''])[0]})",
            "the checkpoint of a run with these very settings",
            "resume with the settings of the interrupted run",
        ) from error
    bench.step = int(state["step"])
    random.setstate(state["random"]["python"])
    torch.set_rng_state(state["random"]["torch"])
    if bench.device.type == "cuda" and state["random"]["cuda"]:
        torch.cuda.set_rng_state_all(state["random"]["cuda"])


def _parts(bench: Workbench) -> dict[str, Any]:
    """Whatever has a state of its own, in the order in which it must be restored."""
    parts = {
        "optimizer": bench.optimizer,
        "scheduler": bench.scheduler,
        "scaler": bench.scaler,
        "data": bench.train,
    }
    return {name: part for name, part in parts.items() if part is not None}
