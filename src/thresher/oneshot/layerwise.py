"""One layer after another: statistics from the batches, the method's answer, written back, its error noted."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from thresher.attach import latent
from thresher.errors import NumericsError
from thresher.oneshot.layers import Layer, state_of
from thresher.oneshot.methods import Oneshot
from thresher.oneshot.problem import Problem
from thresher.oneshot.report import LayerError
from thresher.oneshot.statistics import Statistics
from thresher.oneshot.walking import Stage
from thresher.operators import Groups


def prune_stage(
    stage: Stage,
    layers: Sequence[Layer],
    leave: Mapping[str, int],
    method: Oneshot,
    pattern: Groups,
    *,
    order: str,
    alive: bool,
    tell: Callable[[str], None],
) -> Iterator[LayerError]:
    """Prune the layers of one part of the network, all on one set of statistics or (order "layer") each on its own;
    what became of each comes as soon as it is done.

    Args:
        leave: per layer name, entries that become zero; a layer with 0 stays as it is, bit for bit.
        tell: called with the name of the layer that is next.

    Errors: NumericsError for NaN or infinity in inputs or results.
    """
    parts = [list(layers)] if order == "block" or len(layers) < 2 else _parts(stage, layers)
    for part in filter(None, parts):
        tell(part[0].name)
        with Statistics(part) as seen:
            for number, inputs in enumerate(stage.batches):
                seen.begin(inputs)
                stage.run(number, inputs)
        for layer in part:
            tell(layer.name)
            yield _prune(layer, seen, leave[layer.name], method, pattern, alive)


def _prune(layer: Layer, seen: Statistics, leave: int, method: Oneshot, pattern: Groups, alive: bool) -> LayerError:
    moments, columns = seen.take(layer)
    weight = layer.weight()
    if moments is None or not bool(moments.any()):
        columns = 0
        moments = torch.eye(weight.shape[-1], dtype=weight.dtype, device=weight.device).repeat(len(weight), 1, 1)
    moments = moments.to(weight.device)
    if not leave:
        return _error(layer, weight, weight, weight, moments, columns)
    problem = Problem(weight=weight, moments=moments, leave=leave, pattern=pattern, target=layer.target, alive=alive)
    new, gone = method.solve(problem)
    layer.write(new, gone)
    now = layer.weight()
    if not bool(torch.isfinite(now).all()):
        raise NumericsError(
            f"{layer.name} with NaN or infinity after pruning",
            "finite weights",
            "use a wider dtype than half precision, or more damping",
        )
    return _error(layer, weight, weight.masked_fill(gone, 0.0), now, moments, columns)


def _error(layer: Layer, dense: Tensor, masked: Tensor, now: Tensor, moments: Tensor, columns: int) -> LayerError:
    return LayerError(
        name=layer.name,
        entries=now.numel(),
        zeros=int((now == 0).sum()),
        masked=relative_error(dense, masked, moments),
        after=relative_error(dense, now, moments),
        columns=columns,
    )


def relative_error(dense: Tensor, now: Tensor, moments: Tensor) -> float:
    """‖(W − W')X‖² / ‖WX‖² = tr(D H Dᵀ) / tr(W H Wᵀ), 0 where W X is 0.

    >>> one = torch.tensor([[[3.0, 4.0]]])
    >>> round(relative_error(one, torch.tensor([[[0.0, 4.0]]]), torch.eye(2)[None]), 6)
    0.36
    """
    change = dense - now
    whole = float(((dense @ moments) * dense).sum())
    return max(float(((change @ moments) * change).sum()), 0.0) / whole if whole > 0 else 0.0


def _parts(stage: Stage, layers: Sequence[Layer]) -> list[list[Layer]]:
    """The layers in the order in which the first batch reaches them; those that read the same tensor together."""
    read: dict[str, Any] = {}

    def note(name: str, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        inputs = args[0] if args else next(iter(kwargs.values()))
        read.setdefault(name, (inputs, state_of(inputs)))

    handles = [
        module.register_forward_pre_hook(partial(note, layer.name), with_kwargs=True)
        for layer in layers
        for module in layer.readers()
    ]
    try:
        stage.run(0, next(iter(stage.batches)))
    finally:
        for handle in handles:
            handle.remove()
    by_name = {layer.name: layer for layer in layers}
    parts: dict[tuple[int, int], list[Layer]] = {}
    for name, (_, state) in read.items():  # the tensors are held: a freed address could come back
        parts.setdefault(state, []).append(by_name[name])
    unreached = [layer for layer in layers if layer.name not in read]
    return [*parts.values(), *([unreached] if unreached else [])]


def check_finite(layers: Sequence[Layer]) -> None:
    """Refuse NaN and infinity. Errors: NumericsError naming the first tensor."""
    for layer in layers:
        if not bool(torch.isfinite(latent(layer.target).detach()).all()):
            raise NumericsError(
                f"{layer.name} with NaN or infinity", "finite weights", "load the weights again, or exclude the layer"
            )
