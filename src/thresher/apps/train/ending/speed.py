"""How fast a finished run's network is on this machine: dense and pruned, in torch and in our own engine."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from thresher.apps.models import build_model
from thresher.apps.runs import Run
from thresher.apps.train.network import load_network
from thresher.deploy.bench import Bench, compare, pick

SAVED_AS = "bench.json"
_ROUNDS, _SECONDS = 5, 0.02
ENGINES = ("torch", "thresher")


@dataclass(frozen=True, kw_only=True)
class Speed:
    """What `time_run` found: milliseconds of the faster engine, the dense network and the run's own (None: dense)."""

    dense_engine: str
    dense: float
    engine: str | None = None
    now: float | None = None
    gain: float | None = None

    def __str__(self) -> str:
        begin = "one image on one thread"
        if self.now is None:
            return f"{begin}: {self.dense:.3g} ms in {self.dense_engine}"
        return (
            f"{begin}: {self.now:.3g} ms in {self.engine}; the dense network {self.dense:.3g} ms in "
            f"{self.dense_engine}, the faster of {' and '.join(ENGINES)}: {self.gain:.2f}x"
        )


def speed_of(found: Bench) -> Speed | None:
    """The times in a bench of one condition; None when no engine ran the dense network."""
    case = next(found.cases(), [])
    best = found.best_dense(case)
    if best is None:
        return None
    rows = [row for row in case if row.variant == "pruned" and row.agrees]
    now = min(rows, key=lambda row: row.seconds, default=None)
    return Speed(
        dense_engine=best.engine,
        dense=1000 * best.seconds,
        engine=None if now is None else now.engine,
        now=None if now is None else 1000 * now.seconds,
        gain=None if now is None else best.seconds / now.seconds,
    )


def time_run(run: Run) -> Speed | None:
    """One image on one thread, in interleaved rounds; written to bench.json in the folder of `run`.

    "dense" is the same architecture untrained, as a dense engine takes the same time whatever the weights are. About a
    second for a small network. All engines, batches and threads: `thresher bench RUN`.

    Errors: InputError for a run without a network.
    """
    network = load_network(None, run.path)
    pruned = run.report is not None or network.plan is not None
    dense = build_model(network.name, num_classes=network.num_classes, input_shape=network.input_shape)
    variants: dict[str, nn.Module] = {"dense": dense, "pruned": network.model} if pruned else {"dense": network.model}
    threads = torch.get_num_threads()
    try:
        found = compare(
            variants,
            torch.randn(1, *network.input_shape, generator=torch.Generator().manual_seed(0)),
            pick(",".join(ENGINES)),
            batches=(1,),
            precisions=("float32",),
            rounds=_ROUNDS,
            min_time=_SECONDS,
            isolate=False,  # one thread each: no pools that could disturb each other
        )
    finally:
        torch.set_num_threads(threads)
    asked: dict[str, Any] = {"command": "time_run", "model": network.name, "batch": [1], "threads": [1]}
    run.write(SAVED_AS, {**found.to_dict(), "asked": asked})
    return speed_of(found)
