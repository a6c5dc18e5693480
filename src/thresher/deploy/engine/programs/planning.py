"""Chooses how many pictures a program takes at once, and packs it: the tuned ways to run one captured network."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from thresher.deploy.engine.capturing.graph import Graph
from thresher.deploy.engine.capturing.pieces import Capture, pieces_of
from thresher.deploy.engine.programs.flat import can_lie_flat
from thresher.deploy.engine.programs.layout import Group
from thresher.deploy.engine.programs.program import Blocking, Program
from thresher.deploy.engine.programs.runner import Runner
from thresher.deploy.engine.programs.tuning import Tuner

SMALL = 64  # positions of the largest blob, below which pictures are always put together
TOGETHER = 128  # pictures below one another, at most


@dataclass
class Plan:
    """One way to run: pictures at once, and the tuned choices of each piece."""

    images: int
    lanes: int
    spread: bool
    blockings: list[dict[int, Blocking]] = field(default_factory=list)
    chains: list[list[tuple[int, int, int]]] = field(default_factory=list)  # first, last, stripe
    flat: list[bool] = field(default_factory=list)  # by piece; empty: none

    @property
    def mode(self) -> str:
        """In words."""
        if self.lanes > 1:
            return f"{self.lanes} pictures in vector lanes"
        if any(self.flat):
            return "one position, channels side by side"
        how = "one picture after the other" if self.images == 1 else f"{self.images} pictures at once"
        return how + (", each thread its own" if self.spread else "")


def weights_of(graph: Graph) -> dict[int, Tensor]:
    """The weights of all convolutions, by step."""
    return {n: step.weight for n, step in enumerate(graph.steps) if step.kind == "conv" and step.weight is not None}


def ways(captured: Capture, batch: int, threads: int) -> list[Plan]:
    """What is worth a trial for this batch."""
    pieces = pieces_of(captured)
    largest = max((blob.h * blob.w for piece in pieces for blob in piece.graph.blobs), default=1)
    if batch == 1:
        flat = [can_lie_flat(piece.graph) for piece in pieces]
        return [Plan(1, 1, False, flat=flat), Plan(1, 1, False)] if any(flat) else [Plan(1, 1, False)]
    if largest <= SMALL:
        return [Plan(min(batch, TOGETHER), 1, False)]
    found = [Plan(1, 1, threads > 1)]
    if batch >= 4:
        found.append(Plan(4, 1, threads > 1 and batch >= 8))
    kinds = {step.kind for piece in pieces for step in piece.graph.steps}
    if batch >= 12 and "attention" not in kinds and largest <= 64 * 64:
        found.append(Plan(1, 16, threads > 1 and batch >= 32))
    return found


def tuned(
    captured: Capture, plan: Plan, threads: int, isa: str | None, tuner: Tuner
) -> tuple[Runner, list[dict[int, float]]]:
    """A runner for `plan`, every choice timed; seconds of each step of each piece."""
    programs, seconds = [], []
    for at, piece in enumerate(pieces_of(captured)):
        flat = bool(plan.flat) and plan.flat[at]
        program = Program(piece.graph, images=plan.images, lanes=plan.lanes, isa=isa, flat=flat)
        seconds.append(tuner.tune(program, weights_of(piece.graph), 1 if plan.spread else threads))
        plan.blockings.append(dict(program.blockings))
        plan.chains.append([(c.first, c.last, s) for c, s in zip(program.chains, program.stripes, strict=True)])
        programs.append(program)
    return Runner(captured, programs, threads, plan.spread), seconds


def packed(captured: Capture, plan: Plan, threads: int, isa: str | None, weights: list[dict[int, Tensor]]) -> Runner:
    """A runner for `plan` with the choices that it holds; nothing is timed."""
    programs = []
    for at, piece in enumerate(pieces_of(captured)):
        flat = bool(plan.flat) and plan.flat[at]
        program = Program(piece.graph, images=plan.images, lanes=plan.lanes, isa=isa, flat=flat)
        for number, weight in weights[at].items():
            program.pack(number, plan.blockings[at][number], weight)
        chains = plan.chains[at]
        if len(chains) == len(program.chains) and all(
            (c.first, c.last) == chain[:2] for c, chain in zip(program.chains, chains, strict=True)
        ):
            program.regroup([Group(*chain[:2]) for chain in chains], [chain[2] for chain in chains])
        else:  # another batch size makes other chains; steps one by one are always right
            program.regroup([Group(n, n + 1) for n in range(len(piece.graph.steps))])
        programs.append(program)
    return Runner(captured, programs, threads, plan.spread)


def seconds_of(call: Any, threads: int, least: float = 0.05, rounds: int = 3) -> float:
    """Seconds of the fastest call; others on a machine only ever make it slower. Fewer than `rounds` of a long one.

    With one thread it is the processor time of this process, of which others on a busy machine take nothing.
    """
    clock = time.process_time if threads == 1 else time.perf_counter
    best, calls = float("inf"), 0
    call()
    begun = time.perf_counter()
    while (spent := time.perf_counter() - begun) < least or (calls < rounds and spent < 10 * least):
        start = clock()
        call()
        best = min(best, clock() - start)
        calls += 1
    return max(best, 1e-9)
