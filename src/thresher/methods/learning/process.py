"""x -= rate * dL/dx, x += pull: thresholds that learn, from the weights' own gradients, and are steered to a budget."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from thresher.attach import effective, latent
from thresher.budget.steering import Steering
from thresher.contracts import Job
from thresher.methods.learning.descent import Descent
from thresher.methods.learning.law import Course, Law
from thresher.methods.learning.shells import ALIVE, LearnedShell, largest, put
from thresher.methods.masked import MaskableProcess, freeze_at_budget, load_masks, saved_masks
from thresher.methods.scheduled.shells import weight_on, within_bounds


class LearnedProcess(MaskableProcess[LearnedShell]):
    """Moves the learned variables after each optimizer step; steers them to the budget; freezes the support.

    The variables are no Parameters of the model: no optimizer, weight decay or norm clipping of the user sees them.
    """

    def __init__(self, job: Job, law: Law, descent: Descent, course: Course) -> None:
        self._job, self._law, self._descent, self._course = job, law, descent, course
        self._last, self._settles = max(round(course.settle * job.steps), 1), course.settle < 1
        self._steering: Steering | None = None
        if job.planner is not None:
            self._steering = Steering(
                job.planner,
                steps=job.steps,
                end=course.end,
                plans=course.plans,
                initial=course.initial,
                weight=course.weight,
            )
        peak = max(job.forecast, default=0.0) or 1.0
        self._rate = course.rate
        # The same to the end of the schedule: the budget still has to be held where the learning rate comes to 0.
        self._gain = max(course.rate * peak if course.gain is None else course.gain, 1e-8)
        thetas = self._thetas()
        self._shells = [law.shell(target) for target in job.targets]
        device = thetas[0].device
        wide = torch.float32 if device.type == "mps" else torch.float64  # what the shells hold is rounded, this is not
        self._x = torch.full((len(thetas),), law.start, dtype=wide, device=device)
        self._held = torch.zeros_like(self._x)
        self._drift = torch.zeros_like(self._x)
        self._carried = torch.zeros_like(self._x)  # by the task, since the start
        self._shift = torch.zeros_like(self._x)
        self._top = torch.full_like(self._x, torch.inf)  # the largest magnitude of each tensor
        sizes = self._x.new_tensor([float(target.numel) for target in job.targets])
        self._sizes = sizes / sizes.sum()
        self._begun = self._placed = False
        self._read: Tensor | None = None
        self._pull = self._drift
        self._leaf: Tensor | None = None
        self._divide()
        law.begin(thetas)
        self.touched_at_freeze = 0

    def _thetas(self) -> list[Tensor]:
        return [latent(target).detach() for target in self._job.targets]

    @torch.no_grad()
    def before_step(self) -> None:
        """Read the task's pull off the weights' gradients, and the penalty's off its explicit form if there is one."""
        leaf, self._leaf = self._leaf, None
        if not self._begun or self.frozen:
            return
        thetas = self._thetas()
        gradients = [latent(target).grad for target in self._job.targets]
        filled = [torch.zeros_like(t) if g is None else g for t, g in zip(thetas, gradients, strict=True)]
        task = self._law.task(self._x, thetas, filled, self._shells)
        scale = getattr(self._job.optimizer, "grad_scale", None)  # fused optimizers unscale inside their own step
        self._read = task if scale is None else task / scale.to(task)
        explicit = leaf is not None and leaf.grad is not None
        self._pull = -leaf.grad if explicit else self._law.pull(self._x, thetas)  # type: ignore[union-attr, operator]

    def penalty(self) -> Tensor | None:
        """The method's own loss term, a function of leaf tensors that belong to this process; None while it has none.

        Its gradient takes the place of the one that `before_step` works out. Every call until the next optimizer step
        adds to the same leaf, so over micro-batches the penalty counts as often as the losses it is added to.
        """
        if not self._begun or self.frozen:
            return None
        gradients = (latent(target).grad for target in self._job.targets)
        if not any(gradient is not None and bool(gradient.any()) for gradient in gradients):
            self._leaf = None  # a new step: what an abandoned one left behind must not count
        if self._leaf is None:
            self._leaf = self._x.clone().requires_grad_()
        return self._law.penalty(self._leaf, self._thetas())

    @torch.no_grad()
    def advance(self, step: int, rates: Sequence[float]) -> None:
        """Move x, hold the thresholds within their bounds, measure the budget when due, freeze in the end."""
        if self.frozen or step > self._job.steps:
            return
        thetas = self._thetas()
        if step == 0:
            self._law.begin(thetas)
            self._begun = True
        elif self._read is not None:
            speed = torch.tensor([self._rate * rate for rate in rates], dtype=self._x.dtype)
            self._move(self._read, speed.to(self._x.device))
        self._read = None
        due = step == 0 or self._steering is None or self._steering.due(step)
        self._law.refresh(thetas, self._shells, due=due)
        if step > 0 or self._steering is None:  # with a budget, attaching changes no weight
            self._hold(step, thetas)
        if due and self._steering is not None and self._steering.ready:
            self._measure(step, thetas)
        if self._settles and step >= self._last:
            self.touched_at_freeze = freeze_at_budget(
                self._job.targets, self._shells, self._job.planner, self.scores(), self.export
            )

    def _move(self, task: Tensor, speed: Tensor) -> None:
        if self._steering is None:
            self._x = self._x - self._descent.step(task - self._pull, speed)
            return
        # A batch norm behind a filter with no weight left multiplies gradients by hundreds: no step may be that long.
        limit = min(20 / self._job.steps, 0.5)
        carried = self._carried - self._descent.step(task, speed).clamp(-limit, limit)
        if math.isfinite(self._course.travel):
            common = (self._sizes * carried).sum()
            carried = common + (carried - common).clamp(-self._course.travel, self._course.travel)
        after = (self._x + carried - self._carried).clamp(min=self._law.low)
        self._carried = carried
        self._drift = self._x - after  # what a threshold at its lower end really loses, is what the pull makes up for
        self._x = after + (self._gain * self._law.metric(self._x) * self._pull).clamp(-0.5, 0.5)

    def _hold(self, step: int, thetas: Sequence[Tensor]) -> None:
        groups, targets = self._job.groups, self._job.targets
        self._top = torch.stack([largest(theta, groups).to(self._x) for theta in thetas])
        self._x = torch.minimum(self._x.clamp(min=self._law.low), self._law.level(self._top * ALIVE))
        self._held = self._law.thresholds(self._x)
        progress = 1.0 if self._steering is None else self._steering.progress(step)
        for number, target in enumerate(targets):
            if target.max_sparsity < 1 or target.min_sparsity > 0:
                self._held[number] = within_bounds(float(self._held[number]), target, groups, progress)
        put(self._held, [shell.threshold for shell in self._shells])

    def _measure(self, step: int, thetas: Sequence[Tensor]) -> None:
        steering = self._steering
        assert steering is not None
        if len(steering.shares) > 1:
            steering.balance([effective(target) != 0 for target in self._job.targets], step)
        self._divide()
        cut = steering.cut(self.scores(), step)
        self._shift = self._law.shift(cut, self._x, thetas)
        if cut > 0 and not self._placed:
            self._x, self._placed = self._law.place(self._x, self._shift), True
            if step > 0 or self._course.initial:
                self._hold(step, thetas)
            self._shift = self._law.shift(cut, self._x, thetas)
        # What has come to its end in the wanted direction does not answer to a pull.
        ends = self._law.level(self._top * ALIVE)
        able = torch.where(self._shift < 0, self._x > self._law.low, self._x < ends)
        self._law.shares = self._law.shares * able / (self._law.shares * able).sum().clamp(min=1e-30)
        self._law.aim(self._x, self._shift, self._drift, steering.rate, self._gain, thetas)

    def _divide(self) -> None:
        """How the pull divides among the tensors; what rules keep dense has no part in it."""
        targets = self._job.targets
        if self._steering is not None and self._steering.ready:
            shares = self._steering.pull_shares()
        else:
            shares = [float(target.numel) for target in targets]
        shares = [0.0 if target.max_sparsity == 0 else one for target, one in zip(targets, shares, strict=True)]
        self._law.shares = self._x.new_tensor(shares) / (sum(shares) or 1.0)

    def scores(self) -> list[Tensor]:
        """Distance of each entry from its tensor's threshold, in units of x; magnitudes once the support is fixed."""
        found = []
        for number, (theta, shell) in enumerate(zip(self._thetas(), self._shells, strict=True)):
            magnitude = self._job.groups.magnitude(theta if shell.mask is None else theta * shell.mask)
            found.append(magnitude.float() if shell.mask is not None else self._law.score(self._x, magnitude, number))
        return found

    def thresholds(self) -> list[float]:
        """The threshold of each target, in weight units; the last one once the support is fixed."""
        return [float(value) for value in self._held.tolist()]

    def diagnostics(self) -> dict[str, float]:
        """Numbers to log: how far x still has to move (mean over the tensors), and those of the law."""
        if self.frozen or not self._begun:
            return {}
        return {"shift": float(self._shift.mean()), **self._law.diagnostics(self._x, self._thetas())}

    def export(self, number: int, keep: Tensor) -> Tensor:
        """The effective weight on `keep`; what the budget keeps although it is thresholded gets next to nothing."""
        return weight_on(keep, self._job.targets[number], self._shells[number])

    def state_dict(self) -> dict[str, Any]:
        """Learned variables, their descent, the law's measurements and aim, the masks."""
        tensors = {
            "x": self._x,
            "held": self._held,
            "drift": self._drift,
            "shift": self._shift,
            "carried": self._carried,
        }
        return {
            **{name: value.clone() for name, value in tensors.items()},
            "begun": self._begun,
            "placed": self._placed,
            "rate": self._rate,
            "gain": self._gain,
            "descent": self._descent.state_dict(),
            "law": {**self._law.state_dict(), "shares": self._law.shares.clone()},
            "steering": None if self._steering is None else self._steering.state_dict(),
            "masks": saved_masks(self._shells),
            "touched_at_freeze": self.touched_at_freeze,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Resume."""
        like = self._x
        self._x, self._held, self._drift, self._shift, self._carried = (
            state[name].to(like).clone() for name in ("x", "held", "drift", "shift", "carried")
        )
        self._begun, self._placed = state["begun"], state["placed"]
        self._rate, self._gain = float(state["rate"]), float(state["gain"])
        self._descent.load_state_dict(state["descent"])
        self._law.shares = state["law"]["shares"].to(like).clone()
        self._law.load_state_dict(state["law"], like)
        if self._steering is not None:
            self._steering.load_state_dict(state["steering"])
        put(self._held, [shell.threshold for shell in self._shells])
        load_masks(self._job.targets, self._shells, state["masks"])
        self.touched_at_freeze = state["touched_at_freeze"]
