"""What a training step lowers: the labels' cross entropy, and the distance from the dense network's answers."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional


def distillation(logits: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """T² · KL(softmax(teacher/T) ‖ softmax(logits/T)), mean over the batch, in float32: a scalar.

    Shapes: both (batch, classes). Gradient: to `logits`; T² keeps its size whatever T.
    Source: Hinton et al., Distilling the Knowledge in a Neural Network (arXiv 1503.02531).

    >>> distillation(torch.tensor([[1.0, 2.0]]), torch.tensor([[1.0, 2.0]]), 4.0).item()
    0.0
    """
    wanted = functional.log_softmax(teacher.float() / temperature, 1)
    given = functional.log_softmax(logits.float() / temperature, 1)
    return temperature**2 * functional.kl_div(given, wanted, log_target=True, reduction="batchmean")


class Objective:
    """`(1 - distill) * cross_entropy + distill * distillation` of logits, inputs and labels.

    Args:
        teacher: the network before pruning, in eval mode from here on; only asked where `distill` is above 0.
        label_smoothing: of the cross entropy.
    """

    def __init__(self, teacher: nn.Module, *, distill: float, temperature: float, label_smoothing: float) -> None:
        self._teacher, self._distill, self._temperature = teacher, distill, temperature
        self._smoothing = label_smoothing

    def __call__(self, logits: Tensor, inputs: Tensor, labels: Tensor) -> Tensor:
        """Shapes: logits (batch, classes); inputs as the network takes them; labels (batch,). A scalar."""
        loss = functional.cross_entropy(logits, labels, label_smoothing=self._smoothing)
        if not self._distill:
            return loss
        self._teacher.eval()
        with torch.no_grad():
            answers = self._teacher(inputs)
        return (1 - self._distill) * loss + self._distill * distillation(logits, answers, self._temperature)
