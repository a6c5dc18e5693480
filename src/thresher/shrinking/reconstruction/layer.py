"""One layer of the smaller network beside its twin: what it should give, and how its weights and its norm are set."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd

from thresher.budget.linear import matrix_of
from thresher.shrinking.bounds.norms import scale_of
from thresher.shrinking.reconstruction.fitting import Fit
from thresher.shrinking.reconstruction.pairing import divided, kept_of, seen_through, settle


@dataclass(frozen=True)
class LayerFit:
    """name of a layer; before and after: ‖Y − Y'‖ / ‖Y‖ with its old and its new weights, Y what it should give."""

    name: str
    before: float
    after: float


@dataclass(frozen=True, eq=False, kw_only=True)
class Layer:
    """module, norm: of the smaller network, the batch norm directly behind it or None. twin, model: the same of the
    dense network. rows: the outputs that are left of the twin's; None: all."""

    name: str
    module: nn.Module
    norm: _BatchNorm | None
    twin: nn.Module
    model: _BatchNorm | None
    rows: Tensor | None

    @cached_property
    def like(self) -> dict[str, Tensor]:
        """The state that the norm shall stand for; {} without one."""
        return {} if self.model is None else kept_of(self.model, self.rows)

    def left_of(self, tensor: Tensor) -> Tensor:
        """What the dense network gives, of the outputs that are left."""
        return self._rows(tensor, 1 if isinstance(self.module, _ConvNd) else -1)

    def is_twin(self) -> bool:
        """Whether weights and norm are those of the dense network, of the outputs that are left."""
        own = {} if self.norm is None else kept_of(self.norm, None)
        same = own.keys() == self.like.keys() and all(torch.equal(own[name], self.like[name]) for name in own)
        return same and torch.equal(matrix_of(self.module), self._rows(matrix_of(self.twin), 0))

    def made_up(self, short: Tensor) -> Tensor:
        """What the layer has to give more, so that a sum behind it (and its norm) lacks nothing of `short`."""
        return short if self._scale is None else divided(short, self._scale)

    def set(self, fit: Fit, ridge: float) -> LayerFit:
        """Weights, bias and norm from the sums of what the layer is given and should give."""
        matrix, own = matrix_of(self.module), cast(Tensor | None, self.module.bias)
        bias = torch.zeros(len(matrix), device=matrix.device) if own is None else own
        present = matrix.flatten(1).double(), bias.double()
        if self.norm is not None and self._scale is not None:
            present = seen_through(self.norm, self.like, self._scale, *present)
        weight, intercept = fit.solve(present[0], intercept=own is not None or self.norm is not None, ridge=ridge)
        found = LayerFit(self.name, fit.error(*present), fit.error(weight, intercept))
        matrix.copy_(weight.reshape(matrix.shape))
        mean, variance = fit.outputs(weight)
        if own is not None:
            own.copy_(intercept)
            mean, intercept = mean + intercept, torch.zeros_like(intercept)
        if self.norm is not None:
            settle(self.norm, self.like, mean, variance, intercept)
        return found

    @cached_property
    def _scale(self) -> Tensor | None:
        return None if self.model is None else self._rows(scale_of(self.model), 0)

    def _rows(self, tensor: Tensor, axis: int) -> Tensor:
        return tensor if self.rows is None else tensor.index_select(axis, self.rows.to(tensor.device))
