"""Every engine on the dense and the pruned model, in interleaved rounds, outputs compared."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from typing import Any

import torch
from torch import nn

from thresher.deploy.bench.machine import machine
from thresher.deploy.bench.orders import BFLOAT16, FLOAT32, Engine
from thresher.deploy.bench.result import Bench, Row, Skipped, Variant
from thresher.deploy.bench.workers import Remote, Worker
from thresher.deploy.examples import call, difference, finished, with_batch
from thresher.deploy.storage import predicted_file_bytes
from thresher.errors import InputError, StateError

Told = Callable[[int, int, str], None]


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
        accuracy: percent, where it was measured. told: hears (steps done, steps in all, what is next).
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
    asked = wanted or _all
    with ExitStack() as stack:
        crew = [(Remote if isolate else Worker)(engine, variants) for engine in here]
        for worker in crew:
            stack.callback(worker.close)
        cases = []
        for precision in precisions:
            skipped += [
                Skipped(engine=engine.name, reason=f"does not compute in {precision}")
                for engine in here
                if precision not in engine.precisions
            ]
            able = [worker for worker in crew if precision in worker.engine.precisions]
            pairs = [(worker, name) for worker in able for name in variants if asked(worker.engine.name, name)]
            cases += [Case(pairs, batch, count, precision, rounds, min_time) for count in threads for batch in batches]
        steps = Steps(told or _silent, sum(case.steps for case in cases))
        for case in cases:
            rows, failed = case.run(variants, steps)
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


class Steps:
    """Counts what is done, and tells it."""

    def __init__(self, told: Told, total: int) -> None:
        self._told, self._total, self._done = told, total, 0

    def next(self, what: str) -> None:
        """`what` begins."""
        self._told(self._done, self._total, what)
        self._done += 1


class Case:
    """One batch size, one number of threads, one precision, and who runs which model under them."""

    def __init__(
        self,
        pairs: Sequence[tuple[Worker | Remote, str]],
        batch: int,
        threads: int,
        precision: str,
        rounds: int,
        min_time: float,
    ) -> None:
        self.pairs, self.batch, self.threads, self.precision = pairs, batch, threads, precision
        self.rounds, self.min_time = rounds, min_time

    @property
    def steps(self) -> int:
        """Builds and rounds."""
        return len(self.pairs) + self.rounds

    def run(self, variants: Mapping[str, tuple[nn.Module, Any]], steps: Steps) -> tuple[list[Row], list[Skipped]]:
        """The rows, and what could not be run."""
        where = f"batch {self.batch}, {self.threads} thread{'s' * (self.threads > 1)}, {self.precision}"
        expected = {name: _reference(model, with_batch(given, self.batch)) for name, (model, given) in variants.items()}
        entries: list[tuple[Worker | Remote, str, dict[str, Any]]] = []
        failed = []
        for worker, name in self.pairs:
            steps.next(f"{where}: building {worker.engine.name}, {name}")
            built = worker.build(name, self.batch, self.threads, self.precision, self.min_time)
            if "error" in built:
                failed.append(Skipped(engine=worker.engine.name, reason=f"{name}, {where}: {built['error']}"))
                continue
            built["difference"] = difference(built.pop("outputs"), expected[name])
            entries.append((worker, name, built))
        seconds: list[list[float]] = [[] for _ in entries]
        broken: dict[int, str] = {}
        for turn in range(self.rounds):
            steps.next(f"{where}: timing, round {turn + 1}")
            order = range(len(entries)) if turn % 2 == 0 else reversed(range(len(entries)))
            for index in order:
                worker, name = entries[index][:2]
                if index not in broken:
                    try:
                        seconds[index].append(worker.time(name))
                    except StateError as error:
                        broken[index] = error.given
                        failed.append(Skipped(engine=worker.engine.name, reason=f"{name}, {where}: {error.given}"))
        for worker in {id(worker): worker for worker, _ in self.pairs}.values():
            worker.drop()
        rows = [
            Row(
                engine=worker.engine.name,
                variant=name,
                batch=self.batch,
                threads=self.threads,
                precision=self.precision,
                rounds=tuple(seconds[index]),
                **built,
            )
            for index, (worker, name, built) in enumerate(entries)
            if index not in broken
        ]
        return rows, failed


def _reference(model: nn.Module, example: Any) -> Any:
    with torch.inference_mode():
        return call(model, example)


def _all(engine: str, variant: str) -> bool:
    return True


def _silent(done: int, total: int, what: str) -> None:
    return None
