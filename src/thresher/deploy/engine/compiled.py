"""A compiled model: called like the model, runs through the fastest engine that was found."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from thresher.deploy.engine import operator
from thresher.deploy.engine.capturing.pieces import Capture, pieces_of
from thresher.deploy.engine.library import ISAS
from thresher.deploy.engine.programs.planning import Plan, packed
from thresher.deploy.engine.programs.runner import Runner, check_inputs
from thresher.deploy.engine.report import EngineReport
from thresher.errors import InputError


class Compiled(nn.Module):
    """A model that runs through the winner of `compile`; call it like the model.

    Safe to call from several threads at once. Results carry no gradient.
    """

    def __init__(
        self, captured: Capture | None, runner: Runner | None, plan: Plan | None, rival: Any, report: EngineReport
    ) -> None:
        super().__init__()
        self._captured, self._runner, self._plan, self._rival, self._report = captured, runner, plan, rival, report
        self._others: dict[int, Runner] = {}
        self._seen: set[tuple[int, ...]] = set()  # shapes that were checked, where one tensor goes in and one comes out
        self._handle = operator.register(self)
        self.eval()

    def report(self) -> EngineReport:
        """Which engine runs, and each layer with its time and the time of the dense layer."""
        return self._report

    def reported(self, **fields: Any) -> Compiled:
        """Itself, with these fields of its report replaced."""
        self._report = replace(self._report, **fields)
        return self

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """What the model returns for these inputs, in the model's own structure.

        Errors: InputError for inputs unlike the example's.
        """
        if self._captured is None or self._runner is None:
            with torch.no_grad():
                return self._rival(*args, **kwargs)
        captured = self._captured
        if len(args) == 1 and not kwargs and not torch.compiler.is_compiling():
            x = args[0]
            if isinstance(x, Tensor) and x.shape in self._seen and x.dtype is torch.float32 and x.device.type == "cpu":
                return self._for(x.shape[0])(args)[0]  # a small network runs hardly longer than the general way takes
        flat, spec = pytree.tree_flatten((args, kwargs))
        if spec != captured.in_spec and len(flat) != len(captured.examples):
            raise InputError(f"arguments {spec}", f"{captured.in_spec}, as in the example", "pass the same ones")
        if torch.compiler.is_compiling():
            tensors = [item for item in flat if isinstance(item, Tensor)]
            return pytree.tree_unflatten(torch.ops.thresher.engine(self._handle, tensors), captured.out_spec)
        result = pytree.tree_unflatten(self.flat(flat), captured.out_spec)
        if len(flat) == len(args) == 1 and isinstance(result, Tensor) and len(result) and captured.any_batch:
            self._seen.add(tuple(flat[0].shape))
        return result

    def flat(self, inputs: Sequence[Any]) -> list[Any]:
        """Outputs as a flat list, for inputs as a flat list."""
        assert self._captured is not None
        check_inputs(self._captured, inputs)
        if self._rival is not None:
            with torch.no_grad():
                return list(self._rival(*inputs))
        tensors = [item for item in inputs if isinstance(item, Tensor)]
        batch = tensors[0].shape[0]
        with torch.no_grad():
            if batch == 0:
                return [torch.empty((0, *shape)) for shape in self.shapes()]
            return self._for(batch)(inputs)

    def shapes(self) -> list[tuple[int, ...]]:
        """Shapes of the outputs without the batch."""
        assert self._captured is not None
        found = {}
        for piece in pieces_of(self._captured):
            for name, port in zip(piece.targets, piece.graph.outputs, strict=True):
                found[name] = port.shape
        return [found[name] for name in self._captured.outputs]

    def _for(self, batch: int) -> Runner:
        """The runner for this batch: fewer pictures than a program takes at once would be wasted work."""
        assert self._runner is not None
        assert self._captured is not None
        assert self._plan is not None
        plan = self._plan
        at_once = plan.images * plan.lanes
        if at_once == 1 or batch >= at_once:
            return self._runner
        images = 1 if plan.lanes > 1 else batch
        if images not in self._others:
            weights = [{n: p.unpack(n) for n in p.blockings} for p in self._runner.programs]
            smaller = Plan(images, 1, False, plan.blockings, plan.chains)
            isa = ISAS[self._runner.programs[0].isa] if self._runner.programs else None
            self._others[images] = packed(self._captured, smaller, self._runner.threads, isa, weights)
        return self._others[images]

    def save(self, path: str | Path) -> None:
        """Writes the tuned plan: a safetensors file with a JSON header, no pickle; `load_compiled` reads it.

        Errors: StateError when parts run in torch or another engine has won, as those are not in the file.
        """
        from thresher.deploy.engine.programs.file import write

        write(self._captured, self._runner, self._plan, self._rival, self._report, path)
