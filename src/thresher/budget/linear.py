"""Linear layers in both layouts: torch's (out, in), and the (in, out) of transformers' Conv1D (GPT-2)."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn


def is_transposed(module: nn.Module) -> bool:
    """Whether the module is transformers' Conv1D: y = x W + b with W of shape (in, out). Known by its name and fields,
    so that transformers is not imported for it."""
    return type(module).__name__ == "Conv1D" and hasattr(module, "nf") and getattr(module, "weight", None) is not None


def is_linear(module: nn.Module) -> bool:
    """Whether the module is a linear layer in either layout.

    >>> is_linear(nn.Linear(2, 3)), is_linear(nn.ReLU())
    (True, False)
    """
    return isinstance(module, nn.Linear) or is_transposed(module)


def matrix_of(module: nn.Module) -> Tensor:
    """The weight as (out, in, ...): a view that writes through for Conv1D, the weight itself for all others.

    >>> matrix_of(nn.Linear(2, 3)).shape
    torch.Size([3, 2])
    """
    weight: Any = module.weight
    return weight.T if is_transposed(module) else weight  # type: ignore[no-any-return]


def features_of(module: nn.Module) -> tuple[int, int]:
    """(inputs, outputs) of a linear layer.

    >>> features_of(nn.Linear(2, 3))
    (2, 3)
    """
    # Fields, not shapes: a weight under pruning is worked out anew at every reading.
    names = ("nx", "nf") if is_transposed(module) else ("in_features", "out_features")
    return int(getattr(module, names[0])), int(getattr(module, names[1]))
