"""m_l(s) = the metric with a share s of layer l alone set to zero: which layers can be pruned, and which cannot."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from thresher.attach import check_plain, latent
from thresher.budget.counts import eval_mode, kept_count
from thresher.budget.guards import Guard, bounds_of, units_of
from thresher.budget.language import Budget
from thresher.budget.planner import Planner
from thresher.config import check_share
from thresher.diagnostics.layer_curves import CurvePoint, LayerCurve, Sensitivity
from thresher.errors import InputError, NumericsError
from thresher.operators import Groups, parse_groups
from thresher.targets import Rule, Target, parse_rule, select

SPARSITIES = (0.5, 0.8, 0.9, 0.95)


def sensitivity(
    model: nn.Module,
    evaluate: Callable[[nn.Module], float],
    sparsities: Sequence[float] = SPARSITIES,
    *,
    rules: Sequence[Rule | str] = (),
    groups: str | Groups = "weight",
    about: Mapping[str, Any] | None = None,
    progress: Callable[[int, int, str], None] | None = None,
) -> Sensitivity:
    """m_l(s) = evaluate(model with layer l alone pruned to s, smallest magnitudes first), for each layer and s.

    Args:
        model: a plain network; no pruner may be at work on it.
        evaluate: the metric, higher is better. It runs in eval mode and must not change the network.
        sparsities: shares of zeros in (0, 1].
        rules, groups: as for `thresher.prune`; frozen weights are measured too. Tensors that a rule keeps dense are
            left out. Where a guard (a tensor never empties, a depthwise filter keeps an entry, N:M) or a bound allows
            less than asked, the nearest reachable sparsity is measured, so that every point can be reached by pruning.
        about: words about what is measured, kept in the record.
        progress: called as (evaluations done, evaluations in all, tensor about to be measured).

    The network comes back bit for bit, weights, buffers and training flags, also when `evaluate` raises. A tied weight
    is one layer. NaN as a metric of a pruned network counts as minus infinity.
    Units: those of the metric. Gradient: none.
    Errors: InputError for shares outside (0, 1], rules that match nothing, a model without prunable tensors;
    StateError for a model that is being pruned; NumericsError when the metric of the whole network is not finite.
    Source: one-shot magnitude pruning of one layer at a time, as in Han et al. 2015 (arXiv 1506.02626), figure 6.

    >>> model = nn.Linear(4, 1, bias=False)
    >>> _ = nn.init.constant_(model.weight, 1.0)
    >>> found = sensitivity(model, lambda net: float(net(torch.ones(4)).detach()), (0.25, 0.5))
    >>> [point.value for point in found.layers[0].points], float(model.weight.detach().sum())
    ([3.0, 2.0], 4.0)
    """
    asked = _checked(sparsities)
    pattern = parse_groups(groups) if isinstance(groups, str) else groups
    check_plain(model)
    selection = select(
        model, [parse_rule(rule) if isinstance(rule, str) else rule for rule in rules], groups=pattern, frozen=True
    )
    targets = [target for target in selection.targets if target.max_sparsity > 0]
    if not targets:
        raise InputError("rules that keep every tensor dense", "at least one tensor to prune", "loosen the rules")
    skipped = [(skip.name, skip.reason) for skip in selection.skipped]
    skipped += [(target.name, "kept dense by a rule") for target in selection.targets if target not in targets]
    total = 1 + len(targets) * len(asked)
    tell = progress or (lambda done, total, name: None)
    layers: list[LayerCurve] = []
    tell(0, total, "the whole network")
    dense = _measured(model, evaluate)
    if not math.isfinite(dense):
        raise NumericsError(f"a metric of {dense} for the whole network", "a finite number", "check evaluate")
    for target in targets:
        done = 1 + len(layers) * len(asked)
        layers.append(_curve(model, target, pattern, asked, evaluate, partial(_tell, tell, total, target.name, done)))
    tell(total, total, "")
    return Sensitivity(
        dense=dense,
        sparsities=asked,
        layers=tuple(layers),
        groups=pattern.spelling,
        skipped=tuple(skipped),
        about=dict(about or {}),
    )


def _tell(tell: Callable[[int, int, str], None], total: int, name: str, before: int, number: int) -> None:
    tell(before + number, total, name)


def _curve(
    model: nn.Module,
    target: Target,
    groups: Groups,
    asked: Sequence[float],
    evaluate: Callable[[nn.Module], float],
    tell: Callable[[int], None],
) -> LayerCurve:
    theta = latent(target)
    score = groups.magnitude(theta.detach().float())
    points: list[CurvePoint] = []
    for number, share in enumerate(asked):
        tell(number)
        keep = _support(target, groups, share, score)
        with _pruned(theta, keep):
            sparsity = int((theta == 0).sum()) / target.numel
            # Where guards gave the same support as for the point before, the same network needs no second look.
            same = points and points[-1].sparsity == sparsity
            value = points[-1].value if same else _measured(model, evaluate)
        points.append(CurvePoint(asked=share, sparsity=sparsity, value=-math.inf if math.isnan(value) else value))
    return LayerCurve(
        name=target.name,
        shape=target.shape,
        entries=target.numel,
        zeros=int((theta == 0).sum()),
        points=tuple(points),
    )


def _support(target: Target, groups: Groups, asked: float, score: Tensor) -> Tensor:
    """The entries that stay when `target` alone is pruned to `asked`, or to the nearest share that it can reach."""
    units = units_of((target,), groups)

    def fewest(alive: bool) -> int:
        return Guard(target, groups, units.index[0], units.sizes[0], alive).fewest()

    wanted = kept_count(asked, target.numel)
    least = fewest(alive=asked < 1)
    # Short of 100 %, the guards hold again that 100 % would have overruled.
    kept = min(wanted if wanted >= least else fewest(alive=True), bounds_of(target)[1])
    share = asked if kept == wanted else 1 - kept / target.numel
    return Planner(Budget(sparsity=share), [target], groups).solve([score]).keep[0]


@contextmanager
def _pruned(theta: nn.Parameter, keep: Tensor) -> Iterator[None]:
    before = theta.detach().clone()
    try:
        with torch.no_grad():
            theta.masked_fill_(~keep, 0.0)
        yield
    finally:
        with torch.no_grad():
            theta.copy_(before)


def _measured(model: nn.Module, evaluate: Callable[[nn.Module], float]) -> float:
    # An evaluate that forgets eval mode moves running statistics: each measurement shall start from the same network.
    held = [
        (module, name, buffer, buffer.detach().clone())
        for module in model.modules()
        for name, buffer in module._buffers.items()
        if buffer is not None
    ]
    try:
        with eval_mode(model):
            return float(evaluate(model))
    finally:
        with torch.no_grad():
            for module, name, buffer, before in held:
                module._buffers[name] = buffer
                buffer.copy_(before)


def _checked(sparsities: Sequence[float]) -> tuple[float, ...]:
    for share in sparsities:
        check_share("sparsity", share, closed=False)
    if not sparsities:
        raise InputError("no sparsities", "at least one share of zeros in (0, 1]", "pass e.g. (0.5, 0.8, 0.9, 0.95)")
    return tuple(sorted({float(share) for share in sparsities}))
