"""`thresher.prune_oneshot`: exact zeros from a few unlabeled batches, without training."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import chain as joined
from itertools import islice
from typing import Any

import torch
from torch import nn

from thresher.attach import check_plain, real_model
from thresher.budget.language import Budget
from thresher.errors import InputError, NumericsError
from thresher.methods import Magnitude
from thresher.oneshot.allocation import counts
from thresher.oneshot.chains import candidates, proven
from thresher.oneshot.costs import macs_of
from thresher.oneshot.layerwise import check_finite, prune_stage
from thresher.oneshot.methods import Oneshot, parse_oneshot
from thresher.oneshot.report import LayerError, OneshotReport
from thresher.oneshot.reporting import budget_report, dense_bytes, file_size_of, meet_bytes
from thresher.oneshot.selecting import block_of, layers_of
from thresher.oneshot.sparsegpt import SparseGpt
from thresher.oneshot.walking import Whole, stages
from thresher.operators import Groups, parse_groups
from thresher.recovery.moments import inputs_of, placed
from thresher.targets import Rule, parse_rule


def prune_oneshot(
    model: nn.Module,
    method: Oneshot | Magnitude | str = "sparsegpt",
    budget: str | Mapping[str, object] | Budget | None = None,
    *,
    calibration: Iterable[Any],
    rules: Sequence[Rule | str] = (),
    groups: str | Groups = "weight",
    allocation: str | None = None,
    order: str = "block",
    blocks: str | None = "auto",
    limit: int | None = None,
    frozen: bool = False,
    progress: Callable[[int, int, str], None] | None = None,
) -> OneshotReport:
    """Set weights of linear layers and convolutions to exact zeros, in place, by what calibration inputs say of them.

    Args:
        method: "sparsegpt", "wanda" or "magnitude", or a configured `thresher.SparseGpt(...)`, `thresher.Wanda(...)`,
            `thresher.Magnitude(...)`.
        budget: e.g. "sparsity=50%", met to one weight; may be left out with an N:M pattern, which then is whole.
        calibration: batches of inputs (tensors, (inputs, labels), or mappings); labels are not used.
        rules: `thresher.include/exclude/dense/bound(...)` or their text forms; later ones win.
        groups: "weight", or "2:4" and the like along the inputs; with scores (not SparseGPT) also the other patterns.
        allocation: "uniform", the same share of every layer, or "global", as one ranking of |w| over all layers takes
            it; default: what the method says (uniform; `thresher.Magnitude` by its scope).
        order: "block": one set of statistics per block; "layer": a new one for each layer, on what the pruned layers
            before it give.
        blocks: "auto" goes through transformers models block by block, holding the statistics of one block and the
            hidden states at its door; a name of a `ModuleList` does so in any model; None takes the network at once.
        limit: at most that many batches. frozen: prune frozen tensors, too.
        progress: called with (layers done, layers in all, name of the one that is next).

    Returns: the report. Modules, Parameter objects and ties stay. After an error in the middle (NaN in a later block)
    the layers before it are pruned already.
    Errors: InputError, BudgetError, NumericsError, StateError, each saying what to do.

    >>> net = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 4))
    >>> prune_oneshot(net, "wanda", "sparsity=50%", calibration=[torch.randn(32, 8)]).zeros
    96
    """
    model = real_model(model)
    check_plain(model)
    way, asks = parse_oneshot(method)
    pattern = parse_groups(groups) if isinstance(groups, str) else groups
    asked = None if budget is None else Budget.parse(budget)
    share = _checked("allocation", allocation or asks, ("uniform", "global"))
    _checked("order", order, ("block", "layer"))
    if isinstance(way, SparseGpt) and not pattern.entrywise:
        raise InputError(
            f"groups={pattern.spelling!r} with sparsegpt", '"weight" or N:M', "use wanda, or thresher.shrink for units"
        )
    parsed = [parse_rule(rule) if isinstance(rule, str) else rule for rule in rules]
    tried = candidates(model, blocks)
    batches, first = _opened(model, calibration, limit, again=bool(tried) or order == "layer")
    chains, output = proven(model, tried, first)
    notes = _notes(tried, chains, blocks)
    if len(chains) < len(tried):
        chains = []
    layers, skipped = layers_of(model, parsed, pattern, chains, frozen=frozen)
    check_finite(layers)
    _refuse_nan(output, "outputs on the first batch")
    del output  # of a language model, it is large
    costs, fixed = macs_of(model, layers, first) if asked is not None and asked.flops is not None else (None, 0.0)
    dense = dense_bytes(model)
    size = file_size_of(model, layers) if asked is not None and asked.bytes is not None else None
    leave = dict(
        zip(
            [layer.name for layer in layers],
            counts(model, layers, pattern, asked, allocation=share, costs=costs, fixed_macs=fixed, file_size=size),
            strict=True,
        )
    )
    errors: list[LayerError] = []

    def tell(name: str) -> None:
        if progress is not None:
            progress(len(errors), len(layers), name)

    alive = asked is None or asked.sparsity != 1
    rest = layers
    for stage in stages(model, chains, batches):
        here = [layer for layer in rest if not chains or block_of(layer, chains) == stage.name]
        rest = [layer for layer in rest if layer not in here]
        for error in prune_stage(stage, here, leave, way, pattern, order=order, alive=alive, tell=tell):
            errors.append(error)
        stage.leave()
    if rest:  # outside the blocks, by rule: when everything before them is pruned
        whole = Whole(model, batches)
        for error in prune_stage(whole, rest, leave, way, pattern, order=order, alive=alive, tell=tell):
            errors.append(error)
    touched = meet_bytes(model, layers, pattern, asked) if asked is not None else 0
    if touched:
        notes.append(f"bytes={asked and asked.bytes}: {touched:,} more weights left after the errors were measured")
    unseen = [error.name for error in errors if not error.columns]
    notes += [f"{name}: nothing but zeros reached it, pruned as if inputs were white noise" for name in unseen]
    report = budget_report(
        model,
        layers,
        method=repr(way),
        asked=", ".join(filter(None, ["" if asked is None else str(asked), _named(pattern)])),
        budget=asked,
        dense=dense,
        costs=costs,
        fixed_macs=fixed,
        touched=touched,
        skipped=skipped,
        notes=notes,
    )
    return OneshotReport(budget=report, errors=tuple(errors))


def _checked(name: str, value: str, allowed: tuple[str, ...]) -> str:
    if value not in allowed:
        raise InputError(f"{name}={value!r}", " or ".join(map(repr, allowed)), f"correct {name}")
    return value


def _named(pattern: Groups) -> str:
    return "" if pattern.spelling == "weight" else pattern.spelling


def _notes(tried: Sequence[Any], chains: Sequence[Any], blocks: str | None) -> list[str]:
    lost = [name for name, _ in tried if name not in {name for name, _ in chains}]
    if lost and blocks != "auto":
        raise InputError(
            f"blocks={blocks!r}, whose blocks do not simply read what the one before gives",
            "a list of blocks, hidden states in and hidden states out",
            "pass blocks=None for one pass over the whole network",
        )
    return [f"{name}: no plain chain of blocks; the whole network was taken in one pass" for name in lost]


def _opened(model: nn.Module, calibration: Iterable[Any], limit: int | None, *, again: bool) -> tuple[Any, Any]:
    """The inputs of every batch on the model's device (a list where they are gone through `again`), and the first."""
    if limit is not None and (type(limit) is not int or limit < 1):
        raise InputError(f"limit={limit!r}", "a number of batches, at least 1, or None", "correct limit")
    if isinstance(calibration, (torch.Tensor, Mapping)):
        calibration = [calibration]
    place = next((tensor.device for tensor in model.parameters()), torch.device("cpu"))

    def inputs() -> Iterator[Any]:
        for number, batch in enumerate(islice(calibration, limit), start=1):
            given = placed(inputs_of(batch), place)
            _refuse_nan(given, f"batch {number}")
            yield given

    found = inputs()
    first = next(found, None)
    if first is None:
        raise InputError("no batches", "at least one batch of inputs", "pass a loader that is not empty or used up")
    return ([first, *found] if again else joined([first], found)), first


def _refuse_nan(value: Any, what: str) -> None:
    if isinstance(value, torch.Tensor):
        if value.is_floating_point() and bool(torch.isnan(value).any()):
            raise NumericsError(f"{what} with NaN", "numbers", "clean the data, and look at the weights")
    elif isinstance(value, Mapping):
        for each in value.values():
            _refuse_nan(each, what)
    elif isinstance(value, (tuple, list)):
        for each in value:
            _refuse_nan(each, what)
