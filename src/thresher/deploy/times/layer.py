"""One layer as the engine sees it: its shape and its input's, with random weights of any share of zeros."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from thresher.deploy.engine.capturing.capture import capture
from thresher.deploy.engine.capturing.pieces import pieces_of
from thresher.deploy.engine.programs.planning import tuned, ways
from thresher.deploy.engine.programs.program import Program
from thresher.deploy.engine.programs.tuning import Tuner
from thresher.errors import InputError

LIMIT = 0.5  # seconds of tuning for each share of zeros


@dataclass(frozen=True)
class LayerCase:
    """A layer and the shape of its input (first axis the batch).

    `kind`: linear, conv1d or conv2d. `shape`: of the weight, (out, in) or (out, in / groups, *kernel). `stride`,
    `padding`, `dilation`: by dimension of the kernel. `block`: rows and columns that are zero together, e.g. (4, 1).
    """

    kind: str
    shape: tuple[int, ...]
    inputs: tuple[int, ...]
    stride: tuple[int, ...] = ()
    padding: tuple[int, ...] | str = ()
    dilation: tuple[int, ...] = ()
    groups: int = 1
    block: tuple[int, int] = (1, 1)

    @property
    def key(self) -> str:
        """Text that tells layers of different cost apart."""
        where = [self.stride, self.padding, self.dilation, self.groups] if self.kind != "linear" else []
        return " ".join(map(str, [self.kind, self.shape, "on", self.inputs, *where, "block", self.block])).lower()

    def module(self) -> nn.Module:
        """A layer of this shape, with a bias."""
        if self.kind == "linear":
            return nn.Linear(self.shape[1], self.shape[0])
        kind: Any = {"conv1d": nn.Conv1d, "conv2d": nn.Conv2d}[self.kind]
        where = {"stride": self.stride, "padding": self.padding, "dilation": self.dilation, "groups": self.groups}
        layer: nn.Module = kind(self.shape[1] * self.groups, self.shape[0], self.shape[2:], **where)
        return layer

    def mask(self, zeros: float, generator: torch.Generator) -> Tensor:
        """True where a weight stays; the share of zeros is `zeros`, rounded to whole blocks."""
        rows, columns = self.shape[0], torch.Size(self.shape[1:]).numel()
        high, wide = self.block if rows % self.block[0] == columns % self.block[1] == 0 else (1, 1)
        blocks = torch.ones(rows // high * (columns // wide), dtype=torch.bool)
        blocks[torch.randperm(len(blocks), generator=generator)[: round(zeros * len(blocks))]] = False
        whole = blocks.reshape(rows // high, -1).repeat_interleave(high, 0).repeat_interleave(wide, 1)
        return whole.reshape(self.shape)


def _seconds(program: Program, threads: int) -> float:
    last = len(program.chains)
    once = program.time(0, last, threads=threads)
    repeats = max(1, min(100, int(5e-4 / max(once, 1e-7))))
    return max(min(once, program.time(0, last, threads=threads, rounds=5, repeats=repeats)), 1e-9)


def seconds_by_zeros(case: LayerCase, zeros: tuple[float, ...], threads: int, isa: str | None) -> dict[float, float]:
    """Seconds of the layer in the sparse engine at each share of zeros, kernel and blocking tuned for each.

    Errors: InputError for a layer that the engine does not run.
    """
    generator = torch.Generator().manual_seed(0)
    module = case.module().eval()
    weight = torch.randn(case.shape, generator=generator)
    captured = capture(module, torch.randn(case.inputs, generator=generator))
    found_steps = [step for piece in pieces_of(captured) for step in piece.graph.steps if step.kind == "conv"]
    if len(found_steps) != 1 or found_steps[0].weight is None:
        raise InputError(f"{module}", "one layer that the sparse engine runs", "leave it out")
    (step,) = found_steps
    laid = step.attributes["shape"]
    found = {}
    for share in zeros:
        step.weight = (weight * case.mask(share, generator)).reshape(laid)
        plans = ways(captured, captured.batch, threads)
        best = float("inf")
        for plan in plans:
            runner, _ = tuned(captured, plan, threads, isa, Tuner(limit=LIMIT / len(plans)))
            rounds = -(-captured.batch // (plan.images * plan.lanes)) / (threads if plan.spread else 1)
            best = min(best, rounds * sum(_seconds(p, 1 if plan.spread else threads) for p in runner.programs))
        found[share] = best
    return found
