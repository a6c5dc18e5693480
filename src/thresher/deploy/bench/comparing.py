"""Every engine on the dense and the pruned model, in interleaved rounds, outputs compared."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from typing import Any

import torch
from torch import nn

from thresher.deploy.bench.engines import BFLOAT16, FLOAT32, Engine
from thresher.deploy.bench.machine import machine
from thresher.deploy.bench.result import Bench, Row, Skipped, Variant
from thresher.deploy.bench.workers import Remote, Worker
from thresher.deploy.examples import call, difference, finished, with_batch
from thresher.deploy.storage import predicted_file_bytes
from thresher.errors import InputError, StateError

Told = Callable[[str], None]


def compare(
    models: Mapping[str, nn.Module],
    example: Any,
    engines: Sequence[Engine],
    *,
    batches: Sequence[int] = (1, 16),
    threads: Sequence[int] = (1,),
    precisions: Sequence[str] = (FLOAT32, BFLOAT16),
    rounds: int = 7,
    min_time: float = 0.1,
    isolate: bool = True,
    accuracy: Mapping[str, float] | None = None,
    wanted: Callable[[str, str], bool] | None = None,
    told: Told | None = None,
) -> Bench:
    """Time each model on each engine that is there; "speedup" is always against the best dense engine of the row.

    Args:
        models: "dense" and, beside it, any others ("pruned"), each finished.
        example: inputs for all of them, the batch on the first axis; it is repeated to the sizes in `batches`.
        precisions: "float32", forced on every engine; "bfloat16", rows of their own.
        rounds: each times every engine and model once, in an order that turns around from round to round.
        min_time: seconds that one model lasts in one round.
        isolate: one process per engine. Otherwise all in this process, where threads may disturb each other.
        accuracy: percent, where it was measured. told: hears what is being done.
        wanted: whether an engine (first name) shall run a model (second); default: every engine runs every model.

    Errors: InputError without a model called "dense", or for counts below 1.
    """
    if "dense" not in models or min([rounds, *batches, *threads], default=0) < 1 or not batches or not threads:
        raise InputError(
            f"models {list(models)}, rounds={rounds}, batches={list(batches)}, threads={list(threads)}",
            'a model called "dense", and numbers of 1 or more',
            "correct them",
        )
    known = {
        name: Variant.of(model, predicted_file_bytes(model), (accuracy or {}).get(name))
        for name, model in models.items()
    }
    skipped = [Skipped(engine=engine.name, reason=why) for engine in engines if (why := engine.missing())]
    here = [engine for engine in engines if engine.missing() is None]
    found: list[Row] = []
    variants = {name: (finished(model), example) for name, model in models.items()}
    with ExitStack() as stack:
        crew = [(Remote if isolate else Worker)(engine, variants) for engine in here]
        for worker in crew:
            stack.callback(worker.close)
        for precision in precisions:
            skipped += [
                Skipped(engine=engine.name, reason=f"does not compute in {precision}")
                for engine in here
                if precision not in engine.precisions
            ]
            able = [worker for worker in crew if precision in worker.engine.precisions]
            for count in threads:
                for batch in batches:
                    case = Case(batch, count, precision, rounds, min_time)
                    rows, failed = case.run(able, variants, wanted or _all, told or _silent)
                    found += rows
                    skipped += failed
    return Bench(
        machine=machine().to_dict(),
        engines={engine.name: engine.version() for engine in here},
        variants=known,
        rows=tuple(found),
        skipped=tuple(skipped),
        isolated=isolate,
    )


class Case:
    """One batch size, one number of threads, one precision."""

    def __init__(self, batch: int, threads: int, precision: str, rounds: int, min_time: float) -> None:
        self.batch, self.threads, self.precision = batch, threads, precision
        self.rounds, self.min_time = rounds, min_time

    def run(
        self,
        crew: Sequence[Worker | Remote],
        variants: Mapping[str, tuple[nn.Module, Any]],
        wanted: Callable[[str, str], bool],
        told: Told,
    ) -> tuple[list[Row], list[Skipped]]:
        """The rows, and what could not be run."""
        where = f"batch {self.batch}, {self.threads} thread{'s' * (self.threads > 1)}, {self.precision}"
        expected = {name: _reference(model, with_batch(given, self.batch)) for name, (model, given) in variants.items()}
        entries: list[tuple[Worker | Remote, str, str, float, float]] = []
        failed = []
        for worker in crew:
            for name in [name for name in variants if wanted(worker.engine.name, name)]:
                told(f"{where}: building {worker.engine.name}, {name}")
                built = worker.build(name, self.batch, self.threads, self.precision, self.min_time)
                if "error" in built:
                    failed.append(Skipped(engine=worker.engine.name, reason=f"{name}, {where}: {built['error']}"))
                    continue
                off = difference(built["outputs"], expected[name])
                entries.append((worker, name, built["note"], off, built["build_seconds"]))
        told(f"{where}: timing")
        seconds: list[list[float]] = [[] for _ in entries]
        broken: dict[int, str] = {}
        for turn in range(self.rounds):
            order = range(len(entries)) if turn % 2 == 0 else reversed(range(len(entries)))
            for index in order:
                worker, name = entries[index][:2]
                if index not in broken:
                    try:
                        seconds[index].append(worker.time(name))
                    except StateError as error:
                        broken[index] = error.given
                        failed.append(Skipped(engine=worker.engine.name, reason=f"{name}, {where}: {error.given}"))
        for worker in crew:
            worker.drop()
        rows = [
            Row(
                engine=worker.engine.name,
                variant=name,
                batch=self.batch,
                threads=self.threads,
                precision=self.precision,
                rounds=tuple(seconds[index]),
                difference=off,
                note=note,
                build_seconds=taken,
            )
            for index, (worker, name, note, off, taken) in enumerate(entries)
            if index not in broken
        ]
        return rows, failed


def _reference(model: nn.Module, example: Any) -> Any:
    with torch.inference_mode():
        return call(model, example)


def _all(engine: str, variant: str) -> bool:
    return True


def _silent(text: str) -> None:
    return None
