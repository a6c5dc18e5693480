"""The report's lines: each layer's own time beside the dense layer of that shape."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from thresher.deploy.engine.capturing.pieces import Capture, pieces_of
from thresher.deploy.engine.programs.planning import Plan, weights_of
from thresher.deploy.engine.programs.runner import Runner
from thresher.deploy.engine.programs.tuning import dense_seconds
from thresher.deploy.engine.report import LayerReport


def layer_reports(
    captured: Capture, runner: Runner, plan: Plan, steps: list[dict[int, float]], limit: float
) -> tuple[LayerReport, ...]:
    """One line for each engine step, beside torch's dense layer as far as `limit` allows; then what runs in torch."""
    found = []
    known: dict[Any, float] = {}
    begun = time.perf_counter()
    with _torch_threads(runner.threads):
        for at, piece in enumerate(pieces_of(captured)):
            weights = weights_of(piece.graph)
            for number, step in enumerate(piece.graph.steps):
                out = piece.graph.blobs[step.write]
                runs, zeros, dense = step.kind, None, None
                if number in weights:
                    block = runner.programs[at].blockings[number]
                    runs = {"sparse": "sparse", "block4": "4x1 blocks", "bitmask": "bitmask"}[block.kernel]
                    if runner.programs[at].value_bytes(number) == 2:
                        runs += ", bfloat16"
                    zeros = float((weights[number] == 0).float().mean())
                    x = piece.graph.blobs[step.reads[0]]
                    sh, sw = step.attributes["stride"]
                    key = (step.attributes["shape"], x.h * sh, x.w * sw, (sh, sw), step.attributes["groups"])
                    if key not in known and time.perf_counter() - begun < limit / 4:
                        known[key] = dense_seconds(step, (x.h * sh, x.w * sw)) * plan.images * plan.lanes
                    dense = known.get(key)
                found.append(
                    LayerReport(
                        name=step.name or step.kind,
                        runs=runs,
                        shape=(out.c, out.h, out.w),
                        zeros=zeros,
                        seconds=steps[at].get(number) or None,
                        dense_seconds=dense,
                    )
                )
    found += [LayerReport(name=name, runs="torch", shape=(), reason=why) for name, why in captured.reasons.items()]
    return tuple(found)


@contextmanager
def _torch_threads(threads: int) -> Iterator[None]:
    """torch with as many threads as the engine, for a fair comparison."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)
