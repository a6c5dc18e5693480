"""One worker per engine: in a process of its own, so that the threads of one engine do not disturb another."""

from __future__ import annotations

import contextlib
import gc
import multiprocessing
import sys
import time
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from thresher.deploy.bench.engines import ENGINES
from thresher.deploy.bench.orders import Engine, Order, Run
from thresher.deploy.examples import tensors, with_batch
from thresher.deploy.latency import calls_for, elapsed, no_collection
from thresher.errors import StateError

Variants = Mapping[str, tuple[nn.Module, Any]]
_SETTLE = 0.003  # seconds in which the threads of the worker before go to sleep


class Worker:
    """Builds and times one engine on the models it was given."""

    def __init__(self, engine: Engine, variants: Variants) -> None:
        self.engine, self._variants = engine, variants
        self._runs: dict[str, tuple[Run, int]] = {}

    def build(self, variant: str, batch: int, threads: int, precision: str, min_time: float) -> dict[str, Any]:
        """{"note", "outputs", "build_seconds", "layers"}; or {"error"}, whatever the engine raised."""
        start = time.perf_counter()
        try:
            model, example = self._variants[variant]
            order = Order(model=model, example=with_batch(example, batch), threads=threads, precision=precision)
            run, note, layers = self.engine.build(order)
            taken = time.perf_counter() - start
            outputs: list[Tensor] = [tensor.detach().float() for tensor in tensors(run())]
            self._runs[variant] = run, calls_for(run, min_time)
        except Exception as error:  # engines raise errors of every kind; one that fails must not end the others
            reason = next((line for line in str(error).splitlines() if line.strip()), "")
            return {"error": f"{type(error).__name__}: {reason}"[:300]}
        return {"note": note, "outputs": outputs, "build_seconds": taken, "layers": layers}

    def time(self, variant: str) -> float:
        """Seconds per call, in one round."""
        run, calls = self._runs[variant]
        with no_collection():
            return elapsed(run, calls) / calls

    def drop(self) -> None:
        """Forget what was built."""
        self._runs.clear()
        if "torch._dynamo" in sys.modules:
            torch._dynamo.reset()
        gc.collect()

    def close(self) -> None:
        """Nothing is left to do."""
        self.drop()


class Remote:
    """A Worker in its own process, with the same methods."""

    def __init__(self, engine: Engine, variants: Variants) -> None:
        self.engine = engine
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, engine.name, dict(variants)), daemon=True)
        self._process.start()
        theirs.close()

    def build(self, *what: Any) -> dict[str, Any]:
        """As `Worker.build`; a process that died is an error like any other."""
        try:
            found: dict[str, Any] = self._ask("build", *what)
        except StateError as error:
            return {"error": error.given}
        found["outputs"] = [torch.from_numpy(output) for output in found.get("outputs", ())]
        return found

    def time(self, variant: str) -> float:
        """As `Worker.time`."""
        time.sleep(_SETTLE)
        return float(self._ask("time", variant))

    def drop(self) -> None:
        """As `Worker.drop`."""
        with contextlib.suppress(StateError):
            self._ask("drop")

    def close(self) -> None:
        """End the process."""
        with contextlib.suppress(StateError):
            self._ask("close")
        self._process.join(5)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()
        self._pipe.close()

    def _ask(self, *message: Any) -> Any:
        try:
            self._pipe.send(message)
            return self._pipe.recv()
        except (EOFError, OSError) as error:
            self._process.join(1)
            raise StateError(
                f"the process of {self.engine.name}, which ended with code {self._process.exitcode}",
                "a process that answers",
                f"leave {self.engine.name} out of the engines",
            ) from error


def _serve(pipe: Any, name: str, variants: Variants) -> None:
    worker = Worker(ENGINES[name], variants)
    while True:
        try:
            verb, *what = pipe.recv()
        except EOFError:
            return
        answer = getattr(worker, verb)(*what)
        if isinstance(answer, dict) and "outputs" in answer:
            # As arrays: tensors would travel through shared memory that ends with this process.
            answer["outputs"] = [output.numpy() for output in answer["outputs"]]
        pipe.send(answer)
        if verb == "close":
            return
