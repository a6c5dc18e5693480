"""One run: hooks on an optimizer, thresholds after each of its steps, an exact finish."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from thresher.attach import attach, check_plain, detach, effective, finalize_copy, latent, real_model
from thresher.budget.counts import PositionCounter, count_positions
from thresher.budget.language import Budget
from thresher.budget.latency import LatencyTable
from thresher.budget.report import Report
from thresher.contracts import Method
from thresher.errors import StateError
from thresher.methods import method_record
from thresher.operators import Groups
from thresher.session.checks import (
    check_identity,
    checked_steps,
    groups_of,
    unwrapped,
)
from thresher.session.costs import costs_of, planner_of
from thresher.session.following import begin, check_whole, meet, take_up, warn_if_unheard
from thresher.session.forecast import LrSchedule, effective_rate
from thresher.session.latency import Clock, speed_of
from thresher.session.listening import Listener
from thresher.session.measure import dense_file_bytes, measure
from thresher.session.project import project
from thresher.session.trace import Trace
from thresher.targets import Rule, select

_RECORDS = 2000


class Pruner:
    """One pruning run: counts steps, moves thresholds after each optimizer step that took place, finishes exactly.

    `step`: optimizer steps seen. `trace`: thresholds over time. `targets`, `skipped`: what is pruned and what not.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: Optimizer | None,
        method: Method,
        budget: Budget | None,
        *,
        steps: int,
        rules: Sequence[Rule],
        groups: Groups,
        start: int | float,
        example: Any,
        engine: str | Clock | None,
        lr_schedule: LrSchedule | None,
        record: dict[str, Any] | None,
    ) -> None:
        self.model = real_model(model)
        check_plain(self.model)
        self.method, self.budget, self.groups = method, budget, groups
        self.steps, self._start = checked_steps(steps, start, optimizer)
        selection = select(self.model, rules, groups=groups, frozen=self.steps == 0)
        self.targets, self.skipped = selection.targets, selection.skipped
        self._optimizer = unwrapped(optimizer)
        if self._optimizer is not None:
            groups_of(self._optimizer, self.targets)
        self._record, self._lr_schedule = record, lr_schedule
        self._dense_bytes = dense_file_bytes(self.model, record)
        self.speed = speed_of(self.model, self.targets, groups, budget, engine, example)
        table = None if self.speed is None else self.speed.table
        self.planner = None if budget is None else planner_of(self.model, self.targets, groups, budget, record, table)
        self.positions: dict[str, float] = {}
        self._counter: PositionCounter | None = None
        if example is not None:
            self._take_positions(count_positions(self.model, example))
        self.step = 0
        self.process = begin(self)
        for number, target in enumerate(self.targets):
            attach(target, self.process.shell(number))
        names = tuple(target.name for target in self.targets)
        self.trace = Trace(names, every=max(self.steps // _RECORDS, 1))
        self._finished = False
        self._group_sizes: list[int] = []
        self._membership: list[int] = []
        self._listener = Listener(
            before=self._before,
            after=self._after,
            save=self.state_dict,
            load=self.load_state_dict,
            meet=partial(meet, self),
        )
        if self.steps and example is None:
            self._counter = PositionCounter(self.model)
        if self._start == 0:
            self.process.advance(0, [0.0] * len(self.targets))
        if self._optimizer is not None:
            self._listener.follow(self._optimizer)
        elif self.steps:
            self._listener.wait()

    def follow(self, optimizer: Optimizer, *, lr_schedule: LrSchedule | None = None) -> None:
        """Let the steps of `optimizer` move the thresholds from now on, and those of no other.

        For trainers that make, wrap or replace the optimizer after `thresher.prune`. Before the first step the run is
        then the same as if `optimizer` had been named there; later on, everything the method has learned moves along,
        and each tensor's learning rate is that of its new parameter group. `lr_schedule`: as for `thresher.prune`.

        Errors: InputError when it does not hold the parameters of this model, or is no optimizer; StateError after
        `finish()` and for a one-shot run.
        """
        if self._finished:
            raise StateError("follow() on a finished run", "a run in training", "call thresher.prune again")
        take_up(self, optimizer, lr_schedule)

    def _take_positions(self, positions: Mapping[str, float]) -> None:
        self.positions = dict(positions)
        self.costs, self.fixed_macs = costs_of(self.model, self.targets, positions)
        if self.planner is not None:
            self.planner.set_positions(self.costs, self.fixed_macs)

    def _before(self) -> None:
        if self.step == 0:
            check_whole(self)
        self.process.before_step()

    def _after(self, optimizer: Optimizer) -> None:
        if self._counter is not None and self._counter.positions:
            self._counter.close()
            positions, self._counter = self._counter.positions, None
            self._take_positions(positions)
        self.step += 1
        rates = self._rates(optimizer)
        if self.step > self._start:
            self.process.advance(self.step - self._start, rates)
        elif self.step == self._start:
            self.process.advance(0, rates)
        self.trace.record(self.step, rates, self.process.thresholds())

    def _rates(self, optimizer: Optimizer) -> list[float]:
        sizes = [len(group["params"]) for group in optimizer.param_groups]
        if sizes != self._group_sizes:  # looked up again only when the user added or removed parameters
            self._group_sizes, self._membership = sizes, groups_of(optimizer, self.targets)
        of_group = [effective_rate(optimizer, number) for number in range(len(sizes))]
        return [of_group[number] for number in self._membership]

    @property
    def sparsity(self) -> float:
        """Share of exact zeros over the prunable tensors right now, counted on the effective weights."""
        zeros = sum(int((effective(target) == 0).sum()) for target in self.targets)
        return zeros / sum(target.numel for target in self.targets)

    @property
    def record(self) -> dict[str, Any] | None:
        """What will be saved beside the weights, as given to `thresher.prune`."""
        return self._record

    def penalty(self, scale: float = 1.0) -> Tensor:
        """The method's own loss term, for loops that want to see it: `loss = task + pruner.penalty()`; 0 if none.

        Without this call the optimizer's hook adds the same gradient. It is divided like the loss it is added to: over
        two micro-batches, add it to each and halve both. `scale`: the factor that a gradient scaler applies,
        `scaler.get_scale()`; what flows back to the thresholds is divided by it again.
        """
        value = self.process.penalty()
        if value is None:
            return torch.zeros((), device=latent(self.targets[0]).device)
        if value.requires_grad:
            value.register_hook(lambda gradient: gradient / scale)
        return value

    def diagnostics(self) -> dict[str, float]:
        """Numbers worth logging that the method names; empty when it has none."""
        found = getattr(self.process, "diagnostics", None)
        return {} if found is None else dict(found())

    def plain_state_dict(self) -> dict[str, Tensor]:
        """The model as its forward pass sees it, under its own class's names; the run goes on undisturbed."""
        return finalize_copy(self.model).state_dict()

    def finish(self, path: str | os.PathLike[str] | None = None) -> Report:
        """Project exactly onto the budget, restore plain modules, and report; with `path` also write the report there.

        Errors: StateError when finished already or when positions for `flops=` are missing; NumericsError on NaN.
        """
        if self._finished:
            raise StateError("finish() on a finished run", "one finish() per prune()", "call thresher.prune again")
        warn_if_unheard(self)
        weights, touched = project(self.targets, self.process, self.planner)
        detach(self.targets, weights)
        self._finished = True
        self.close()
        report = measure(self, touched + int(getattr(self.process, "touched_at_freeze", 0)))
        if path is not None:
            report.save(path)
        return report

    def close(self) -> None:
        """Take the hooks off the optimizer and the model; thresholds no longer move."""
        self._listener.close()
        if self._counter is not None:
            self._counter.close()
            self._counter = None

    def state_dict(self) -> dict[str, Any]:
        """What a resumed run needs beside the model's and the optimizer's state dicts: plain containers, tensors."""
        return {
            **self._identity(),
            "step": self.step,
            "positions": dict(self.positions),
            "trace": self.trace.state_dict(),
            "process": self.process.state_dict(),
            "latency": None if self.planner is None or self.planner.latency is None else self.planner.latency.to_dict(),
        }

    def _identity(self) -> dict[str, Any]:
        """What has to be equal for a state to fit."""
        return {
            "version": 1,
            "method": method_record(self.method),
            "budget": None if self.budget is None else str(self.budget),
            "groups": self.groups.spelling,
            "names": [target.name for target in self.targets],
            "steps": self.steps,
            "start": self._start,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take up a run where it stopped; the model's and the optimizer's state are loaded by the user as always.

        Errors: StateError when the state belongs to another method, budget, length or model.
        """
        check_identity(state, self._identity())
        self.step = int(state["step"])
        self.trace = Trace.from_state(state["trace"])
        if state["positions"]:
            if self._counter is not None:
                self._counter.close()
                self._counter = None
            self._take_positions(state["positions"])
        if self.planner is not None and state.get("latency") is not None:  # not what is measured now: the same masks
            self.planner.latency = LatencyTable.from_dict(state["latency"])
        self.process.load_state_dict(state["process"])
