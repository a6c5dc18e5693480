"""score = Σ |θ ∂L/∂θ| over the weights that make a unit: how much the loss moves, to first order, when it goes."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.modules.conv import _ConvTransposeNd

from thresher.budget.counts import call, eval_mode
from thresher.budget.linear import is_linear, is_transposed
from thresher.errors import InputError, NumericsError
from thresher.recovery import Problem, Recovery, top
from thresher.recovery.moments import inputs_of, placed
from thresher.shrinking.selections.given import recovered
from thresher.structure import CoupledGroup, first_tensor

if TYPE_CHECKING:
    from thresher.shrinking.selections.registry import View

Loss = Callable[[Any, Any], Tensor]


@dataclass(frozen=True, kw_only=True)
class Taylor:
    """The s units with the largest Σ |θ ∂L/∂θ| over the weights of the layers that make them; needs labels.

    The gradient is that of the mean loss of the calibration batches, on the dense network in eval mode, once.

    Args:
        loss: (output, labels) to a mean; default: the output's own `loss` where it has one, else cross entropy.
        debias: refit the reading weights by least squares to what the whole layer gave.

    Errors: InputError for batches without labels.
    Source: Molchanov et al. 2019, arXiv 1906.10771, with |θ g| summed over the weights of a unit.
    """

    name: ClassVar[str] = "taylor"
    loss: Loss | None = field(default=None, repr=False)
    debias: bool = False

    def prepared(self, model: nn.Module, batches: Iterable[Any] | None) -> Weighed:
        """The scores from one pass over labelled `batches`. Errors: InputError when they can be read only once."""
        if batches is None:
            raise InputError(
                "calibration that can be read only once",
                "batches that can be gone through again: a list or a DataLoader",
                "pass list(batches)",
            )
        return Weighed(self, filter_scores(model, batches, self.loss))

    def recover(self, problem: Problem, sizes: Sequence[int], view: View) -> dict[int, Recovery]:
        """Not before `prepared`, which `thresher.shrink` calls."""
        raise InputError("Taylor without gradients", "the outcome of prepared(model, batches)", "use thresher.shrink")


@dataclass(frozen=True, eq=False)
class Weighed:
    """Taylor with its scores: module name to one number for each of its filters."""

    config: Taylor
    filters: Mapping[str, Tensor]
    name: ClassVar[str] = "taylor"

    @property
    def debias(self) -> bool:
        """As configured."""
        return self.config.debias

    def recover(self, problem: Problem, sizes: Sequence[int], view: View) -> dict[int, Recovery]:
        """Top s by score, ties to the lowest index."""
        scores = unit_scores(view.group, self.filters)
        return {size: recovered(problem, top(scores, size)) for size in sizes}

    def __repr__(self) -> str:
        return repr(self.config)


def unit_scores(group: CoupledGroup, filters: Mapping[str, Tensor]) -> Tensor:
    """One score per unit, float64: the sum over the filters that make it."""
    total = torch.zeros(group.units, dtype=torch.float64)
    for member in group.members:
        if member.module in group.producers and member.axis != "in" and member.module in filters:
            total += filters[member.module][torch.tensor(member.index)].sum(1)
    return total


def filter_scores(model: nn.Module, batches: Iterable[Any], loss: Loss | None = None) -> dict[str, Tensor]:
    """Σ |θ g| for each filter (output) of each convolution, linear layer and embedding; `model` is not changed.

    >>> net = nn.Linear(2, 1, bias=False)
    >>> _ = net.weight.data.copy_(torch.tensor([[3.0, -1.0]]))
    >>> data = [(torch.tensor([[1.0, 2.0]]), torch.tensor([[0.0]]))]
    >>> filter_scores(net, data, lambda output, label: (output - label).sum())["" ].tolist()   # |3 * 1| + |-1 * 2|
    [5.0]
    """
    twin = copy.deepcopy(model)
    for parameter in twin.parameters():
        parameter.requires_grad_(parameter.is_floating_point())
    modules = {
        name: module
        for name, module in twin.named_modules()
        if is_linear(module) or isinstance(module, (nn.modules.conv._ConvNd, nn.Embedding))
    }
    seen = accumulate_gradients(twin, batches, loss)
    found: dict[str, Tensor] = {}
    for name, module in modules.items():
        weight: Tensor = module.weight  # type: ignore[assignment]
        grad = torch.zeros_like(weight) if weight.grad is None else weight.grad / seen
        product = (weight.detach() * grad).abs().to("cpu", torch.float64)
        turned = isinstance(module, nn.Embedding) or is_transposed(module)
        turned = turned or (isinstance(module, _ConvTransposeNd) and module.groups == 1)
        found[name] = (product.transpose(0, 1) if turned else product).flatten(1).sum(1)
        if not torch.isfinite(found[name]).all():
            raise NumericsError(
                f"gradients of {name} with NaN or infinity", "a finite loss", "check the data, the weights and the loss"
            )
    return found


def accumulate_gradients(model: nn.Module, batches: Iterable[Any], loss: Loss | None = None) -> int:
    """Add the gradients of each batch's mean loss to `.grad`, in eval mode; returns how many batches there were.

    Errors: InputError for no batches, batches without labels, or a loss that is no single number.
    """
    place = next((tensor.device for tensor in model.parameters()), torch.device("cpu"))
    seen = 0
    with torch.enable_grad(), eval_mode(model):
        for seen, batch in enumerate(batches, start=1):
            value = _loss_of(model, batch, loss, place, seen)
            if value.numel() != 1 or not value.requires_grad:
                raise InputError(f"a loss of shape {tuple(value.shape)}", "one number with a gradient", "correct loss=")
            value.backward()  # type: ignore[no-untyped-call]
    if not seen:
        raise InputError("no batches", "at least one batch with labels", "pass a loader that is not empty")
    return seen


def _loss_of(model: nn.Module, batch: Any, loss: Loss | None, place: torch.device, number: int) -> Tensor:
    inputs = placed(inputs_of(batch), place)
    if isinstance(batch, Mapping) and "labels" in batch:
        labels = placed(batch["labels"], place)
        if loss is None:
            output = model(**inputs, labels=labels)
            if getattr(output, "loss", None) is not None:
                return output.loss  # type: ignore[no-any-return]
    elif isinstance(batch, (tuple, list)) and len(batch) > 1:
        labels = placed(batch[1], place)
    else:
        raise InputError(
            f"batch {number} without labels",
            "(inputs, labels), or a mapping with 'labels': Taylor scores follow the loss",
            "pass labelled batches, or choose a method that needs none, such as ispasp",
        )
    output = call(model, inputs)
    if loss is not None:
        return loss(output, labels)
    return functional.cross_entropy(first_tensor(output), labels)
