"""y = γ·(w∗x + b − μ)/√(σ² + ε) + β  as one layer: w' = w·γ/√(σ² + ε), b' = (b − μ)·γ/√(σ² + ε) + β."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval, fuse_linear_bn_eval

from thresher.deploy.examples import batch_of, call, difference, finished, with_batch
from thresher.errors import NumericsError

_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
_LARGEST = 1e-4


def fold_batch_norms(model: nn.Module, example: Any) -> tuple[nn.Module, int]:
    """(a copy in eval mode whose batch norms went into the convolution or linear layer before them, how many).

    Which layer stands before a batch norm is seen in a forward pass on `example`: its input is the very tensor that
    the layer gave. What is folded is replaced by an identity, so names change. Zeros stay zeros, so a mask survives.
    The copy is compared with the model; a layer whose output is used elsewhere too is found out by that.

    >>> net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU())
    >>> folded, count = fold_batch_norms(net, torch.randn(2, 3, 8, 8))
    >>> count, type(folded[1]).__name__
    (1, 'Identity')

    Errors: NumericsError when the copy differs by more than 1e-4 of the largest output.
    """
    twin = finished(model)
    with torch.no_grad():
        expected = call(twin, example)
        pairs = _pairs(twin, example)
        for layer_name, norm_name in pairs:
            layer, norm = twin.get_submodule(layer_name), twin.get_submodule(norm_name)
            fuse: Any = fuse_linear_bn_eval if isinstance(layer, nn.Linear) else fuse_conv_bn_eval
            _replace(twin, layer_name, fuse(layer, norm).requires_grad_(False))
            _replace(twin, norm_name, nn.Identity().eval())
        off = difference(call(twin, example), expected)
        wide = with_batch(example, batch_of(example) + 1) if pairs else example
        off = max(off, difference(call(twin, wide), call(finished(model), wide))) if pairs else off
    if not off <= _LARGEST:
        raise NumericsError(
            f"a model whose outputs differ by {off:.3g} when its batch norms are folded",
            f"at most {_LARGEST:g}; a folded layer must be used by its batch norm alone",
            "export without folding",
        )
    return twin, len(pairs)


def _pairs(model: nn.Module, example: Any) -> list[tuple[str, str]]:
    """(layer, batch norm) names, where the norm reads what the layer gave; each used once in the pass."""
    made: dict[int, str] = {}
    uses: dict[str, int] = {}
    pairs: list[tuple[str, str]] = []
    alive: list[Tensor] = []  # an id means something only while its tensor lives

    def note(name: str) -> Any:
        def hook(module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
            uses[name] = uses.get(name, 0) + 1
            if isinstance(module, _NORMS):
                before = made.get(id(args[0]))
                if before is not None and module.track_running_stats and module.running_mean is not None:
                    pairs.append((before, name))
            else:
                made[id(output)] = name
                alive.append(output)

        return hook

    kinds = (*_CONVOLUTIONS, nn.Linear, *_NORMS)
    handles = [
        module.register_forward_hook(note(name)) for name, module in model.named_modules() if isinstance(module, kinds)
    ]
    try:
        call(model, example)
    finally:
        for handle in handles:
            handle.remove()
    shared = _shared(model)
    found = [pair for pair in pairs if uses[pair[0]] == uses[pair[1]] == 1 and pair[0] not in shared]
    layers = [layer for layer, _ in found]
    # A linear layer on tokens has its features last; batch norm has them second.
    return [
        (layer, norm)
        for layer, norm in found
        if layers.count(layer) == 1 and _width(model.get_submodule(layer)) == _width(model.get_submodule(norm))
    ]


def _shared(model: nn.Module) -> set[str]:
    """Layers whose weight is that of another module too: folding one would leave the other behind."""
    owners: dict[int, list[str]] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        owners.setdefault(id(parameter), []).append(name.rpartition(".")[0])
    return {name for names in owners.values() if len(names) > 1 for name in names}


def _width(module: Any) -> int:
    for name in ("out_channels", "out_features", "num_features"):
        if hasattr(module, name):
            return int(getattr(module, name))
    return -1


def _replace(model: nn.Module, name: str, module: nn.Module) -> None:
    parent, _, last = name.rpartition(".")
    setattr(model.get_submodule(parent), last, module)
