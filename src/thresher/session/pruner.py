"""`thresher.prune`: attach a method to a model and an optimizer; the loop stays the user's."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.utils.hooks import RemovableHandle

from thresher.attach import attach, detach, effective, finalize_copy, latent
from thresher.budget.counts import PositionCounter, count_positions, counted_layers
from thresher.budget.language import Budget
from thresher.budget.planner import Planner
from thresher.budget.report import Report
from thresher.contracts import Job, Method
from thresher.errors import InputError, NumericsError, StateError
from thresher.methods import method_record, parse_method
from thresher.operators import Groups, parse_groups
from thresher.session.forecast import LrSchedule, effective_rate, forecast
from thresher.session.measure import dense_file_bytes, file_size_of, measure
from thresher.session.trace import Trace
from thresher.targets import Rule, parse_rule, select

_RECORDS = 2000


def prune(
    model: nn.Module,
    optimizer: Optimizer | None,
    method: Method | str,
    budget: str | Mapping[str, object] | Budget | None = None,
    *,
    steps: int = 0,
    rules: Sequence[Rule | str] = (),
    groups: str | Groups = "weight",
    start: int | float = 0,
    example: Any = None,
    lr_schedule: LrSchedule | None = None,
    record: dict[str, Any] | None = None,
) -> Pruner:
    """Prune `model` by `method` to `budget` while the user's own loop trains it; `finish()` ends it exactly there.

    Args:
        model: any module; convolution and linear weights are prunable unless `rules` say otherwise.
        optimizer: the optimizer that trains it; None for one-shot methods. It may be made before or after.
        method: e.g. `thresher.Lats()`, or its text form.
        budget: e.g. "sparsity=90%", "flops=25%,bytes=500KB"; see `thresher.Budget`.
        steps: optimizer steps of the whole run, from this call on.
        rules: `thresher.include/exclude/dense/bound(...)` or their text forms; later ones win.
        groups: what is pruned as one: "weight", "2:4", "block:4x1", "row", "column", "kernel".
        start: where pruning begins: a step number, or a share of the run when it is a float below 1.
        example: one batch of inputs. Needed for `flops=` with one-shot methods; otherwise output positions are
            noted during the first forward pass.
        lr_schedule: the scheduler (or rates) that the loop will follow, see `thresher.session.forecast`; lets the
            controller hold the L1 coefficient constant. The scheduler itself is not touched.
        record: JSON object that will be saved beside the weights; its size counts towards `bytes=`.

    Returns: a `Pruner`. The modules stay the model's own; prunable weights are read through the method's operator.
    Errors: InputError, BudgetError, StateError, each saying what to do.

    >>> model = nn.Linear(8, 4)
    >>> print(prune(model, None, "magnitude", "sparsity=75%").finish().zeros)
    24
    """
    return Pruner(
        model,
        optimizer,
        parse_method(method),
        None if budget is None else Budget.parse(budget),
        steps=steps,
        rules=[parse_rule(rule) if isinstance(rule, str) else rule for rule in rules],
        groups=parse_groups(groups) if isinstance(groups, str) else groups,
        start=start,
        example=example,
        lr_schedule=lr_schedule,
        record=record,
    )


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
        lr_schedule: LrSchedule | None,
        record: dict[str, Any] | None,
    ) -> None:
        # A compiled module wraps the real one; names and hooks belong to the real one.
        self.model: nn.Module = getattr(model, "_orig_mod", model)
        self.method, self.budget, self.groups = method, budget, groups
        self._optimizer = _unwrapped(optimizer)
        self.steps, self._start = _checked_steps(steps, start, self._optimizer)
        selection = select(self.model, rules, groups=groups, frozen=self._optimizer is None)
        self.targets, self.skipped = selection.targets, selection.skipped
        if self._optimizer is not None:
            self._group_of()
        self._record = record
        self._dense_bytes = dense_file_bytes(self.model, record)
        self._total_params = sum(parameter.numel() for parameter in self.model.parameters())
        self.planner = None if budget is None else self._plan(budget)
        self.positions: dict[str, float] = {}
        self._counter: PositionCounter | None = None
        if example is not None:
            self._take_positions(count_positions(self.model, example))
        elif self._optimizer is not None:
            self._counter = PositionCounter(self.model)
        self.step = 0
        span = self.steps - self._start
        rates: list[float] = []
        if self._optimizer is not None:
            rates = forecast(self._optimizer, self.steps, lr_schedule, self._group_of()[0])[self._start :]
        job = Job(
            targets=self.targets,
            groups=groups,
            steps=span,
            forecast=rates,
            planner=self.planner,
            model=self.model,
            optimizer=self._optimizer,
        )
        self.process = method.begin(job)
        for number, target in enumerate(self.targets):
            attach(target, self.process.shell(number))
        names = tuple(target.name for target in self.targets)
        self.trace = Trace(names, every=max(self.steps // _RECORDS, 1))
        self._finished = False
        self._hooks: list[RemovableHandle] = []
        if self._optimizer is not None:
            self._hooks.append(self._optimizer.register_step_pre_hook(self._before))
            self._hooks.append(self._optimizer.register_step_post_hook(self._after))
        if self._start == 0:
            self.process.advance(0, [0.0] * len(self.targets))

    def _plan(self, budget: Budget) -> Planner:
        entries = sum(target.numel for target in self.targets)
        return Planner(
            budget,
            self.targets,
            self.groups,
            other_params=self._total_params - entries,
            file_size=file_size_of(self.model, self.targets, self._record) if budget.bytes is not None else None,
        )

    def _take_positions(self, positions: Mapping[str, float]) -> None:
        self.positions = dict(positions)
        prunable = {id(module) for target in self.targets for module, _ in target.sites}
        fixed = sum(
            positions.get(name, 0.0) * layer.weight.numel()  # type: ignore[operator, union-attr, misc]
            for name, layer in counted_layers(self.model).items()
            if id(layer) not in prunable
        )
        # A tied weight costs at each of its sites.
        names = {id(layer): name for name, layer in counted_layers(self.model).items()}
        costs = {
            target.name: sum(positions.get(names.get(id(module), ""), 0.0) for module, _ in target.sites)
            for target in self.targets
        }
        self.fixed_macs = fixed
        self.costs = costs
        if self.planner is not None:
            self.planner.set_positions(costs, fixed)

    def _before(self, optimizer: Optimizer, args: object, kwargs: object) -> None:
        if not _skipped_by_scaler(optimizer):
            self.process.before_step()

    def _after(self, optimizer: Optimizer, args: object, kwargs: object) -> None:
        if _skipped_by_scaler(optimizer):
            return
        if self._counter is not None and self._counter.positions:
            self._counter.close()
            positions, self._counter = self._counter.positions, None
            self._take_positions(positions)
        self.step += 1
        rates = [effective_rate(optimizer, group) for group in self._group_of()]
        if self.step > self._start:
            self.process.advance(self.step - self._start, rates)
        elif self.step == self._start:
            self.process.advance(0, rates)
        self.trace.record(self.step, rates, self.process.thresholds())

    def _group_of(self) -> list[int]:
        """The optimizer's parameter group of each target."""
        assert self._optimizer is not None
        owner = {
            id(parameter): number
            for number, group in enumerate(self._optimizer.param_groups)
            for parameter in group["params"]
        }
        missing = [target.name for target in self.targets if id(latent(target)) not in owner]
        if missing:
            raise InputError(
                f"an optimizer that does not hold {', '.join(missing[:3])}"
                + (f" and {len(missing) - 3} more" if len(missing) > 3 else ""),
                "an optimizer over the parameters of this very model",
                "make it from model.parameters(), or exclude these tensors by a rule",
            )
        return [owner[id(latent(target))] for target in self.targets]

    @property
    def sparsity(self) -> float:
        """Share of exact zeros over the prunable tensors right now, counted on the effective weights."""
        zeros = sum(int((effective(target) == 0).sum()) for target in self.targets)
        return zeros / sum(target.numel for target in self.targets)

    def plain_state_dict(self) -> dict[str, Tensor]:
        """The model as its forward pass sees it, under its own class's names; the run goes on undisturbed."""
        return finalize_copy(self.model).state_dict()

    def finish(self, path: str | os.PathLike[str] | None = None) -> Report:
        """Project exactly onto the budget, restore plain modules, and report; with `path` also write the report there.

        Errors: StateError when finished already or when positions for `flops=` are missing; NumericsError on NaN.
        """
        if self._finished:
            raise StateError("finish() on a finished run", "one finish() per prune()", "call thresher.prune again")
        before = [effective(target) != 0 for target in self.targets]
        keep = tuple(before) if self.planner is None else self.planner.solve(self.process.scores()).keep
        zero = torch.zeros((), device=before[0].device)
        weights = []
        for number, (target, mask) in enumerate(zip(self.targets, keep, strict=True)):
            weight = self.process.export(number, mask)
            if not torch.isfinite(weight).all():
                raise NumericsError(
                    f"{target.name} with NaN or infinity", "finite weights", "resume from the last good checkpoint"
                )
            weights.append(torch.where(mask, weight, zero.to(weight.dtype)))
        touched = sum(int((old ^ new).sum()) for old, new in zip(before, keep, strict=True))
        detach(self.targets, weights)
        self._finished = True
        self.close()
        report = measure(self, touched + int(getattr(self.process, "touched_at_freeze", 0)))
        if path is not None:
            report.save(path)
        return report

    def close(self) -> None:
        """Take the hooks off the optimizer and the model; thresholds no longer move."""
        for hook in self._hooks:
            hook.remove()
        self._hooks.clear()
        if self._counter is not None:
            self._counter.close()
            self._counter = None

    def state_dict(self) -> dict[str, Any]:
        """What a resumed run needs beside the model's and the optimizer's state dicts: plain containers, tensors."""
        return {
            "version": 1,
            "method": method_record(self.method),
            "budget": None if self.budget is None else str(self.budget),
            "names": [target.name for target in self.targets],
            "step": self.step,
            "steps": self.steps,
            "positions": self.positions,
            "trace": self.trace.state_dict(),
            "process": self.process.state_dict(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take up a run where it stopped; the model's and the optimizer's state are loaded by the user as always.

        Errors: StateError when the state belongs to another method, budget, length or model.
        """
        mine = self.state_dict()
        for key in ("version", "method", "budget", "names", "steps"):
            if state.get(key) != mine[key]:
                raise StateError(
                    f"a state with {key}={_short(state.get(key))}",
                    f"{key}={_short(mine[key])}, as in this run",
                    "resume with the model, method, budget and steps of the interrupted run",
                )
        self.step = int(state["step"])
        self.trace = Trace.from_state(state["trace"])
        if state["positions"]:
            if self._counter is not None:
                self._counter.close()
                self._counter = None
            self._take_positions(state["positions"])
        self.process.load_state_dict(state["process"])


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 120 else text[:117] + "..."


def _unwrapped(optimizer: Optimizer | None) -> Optimizer | None:
    # Accelerate and others wrap the optimizer that really steps.
    while isinstance(inner := getattr(optimizer, "optimizer", None), Optimizer):
        optimizer = inner
    if optimizer is not None and not isinstance(optimizer, Optimizer):
        raise InputError(
            f"an optimizer of type {type(optimizer).__name__}",
            "a torch.optim.Optimizer, or None for one shot",
            "pass thresher.prune(model, optimizer, method, budget, steps=...)",
        )
    return optimizer


def _checked_steps(steps: int, start: int | float, optimizer: Optimizer | None) -> tuple[int, int]:
    if optimizer is not None and (not isinstance(steps, int) or steps < 1):
        raise InputError(f"steps={steps!r}", "the number of optimizer steps of the run", "pass len(loader) * epochs")
    if optimizer is None and steps:
        raise InputError(f"steps={steps} without an optimizer", "an optimizer", "pass the optimizer that trains it")
    first = round(start * steps) if isinstance(start, float) and start < 1 else int(start)
    if first < 0 or (steps and first >= steps):
        raise InputError(f"start={start!r} of {steps} steps", "a step, or a share, before the end", "start earlier")
    return steps, first


def _skipped_by_scaler(optimizer: Optimizer) -> bool:
    # Fused optimizers are called even when the gradient scaler found infinities; they skip inside.
    found = getattr(optimizer, "found_inf", None)
    return found is not None and bool(torch.as_tensor(found).sum() > 0)
