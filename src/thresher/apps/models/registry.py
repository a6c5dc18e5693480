"""Networks by name."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable
from functools import partial
from pathlib import Path

from torch import nn

from thresher.apps.models.cifar_resnet import cifar_resnet
from thresher.apps.models.library import folder_model, library_model
from thresher.apps.models.small import mlp, small_cnn
from thresher.apps.models.vgg import vgg
from thresher.apps.models.weights import load_weights
from thresher.apps.models.wide_resnet import wide_resnet
from thresher.errors import InputError

Shape = tuple[int, int, int]
Builder = Callable[[int, Shape], nn.Module]

_BUILDERS: dict[str, Builder] = {
    "mlp": mlp,
    "small-cnn": small_cnn,
    **{f"resnet{depth}": partial(cifar_resnet, depth) for depth in (20, 32, 44, 56, 110)},
    **{f"vgg{depth}": partial(vgg, depth) for depth in (11, 16, 19)},
    **{f"wrn{depth}-{width}": partial(wide_resnet, depth, width) for depth, width in ((16, 8), (28, 10))},
    **{
        name: partial(library_model, name)
        for name in ("resnet50", "mobilenetv1", "mobilenetv2", "efficientnet-b0", "vit-small")
    },
}


def model_names() -> list[str]:
    """Names that `build_model` knows; beside them it takes any "wrnD-K", and "hf:FOLDER".

    >>> model_names()[:3]
    ['efficientnet-b0', 'mlp', 'mobilenetv1']
    """
    return sorted(_BUILDERS)


def build_model(
    name: str, *, num_classes: int, input_shape: tuple[int, int, int], weights: Path | str | None = None
) -> nn.Module:
    """A network that maps images (N, *input_shape) to logits (N, num_classes).

    Args:
        name: one of `model_names()`, "wrnD-K" (wide ResNet of depth D = 6n + 4, width K), or "hf:FOLDER" for a folder
            that `save_pretrained` wrote.
        num_classes: the number of logits.
        input_shape: (C, H, W).
        weights: a safetensors file, or "cifar10" for resnet20; default: untrained.

    Returns: the network; its attribute `normalisation` (see `normalisation_of`) is set when its weights need one.

    Errors: InputError for an unknown name (with close ones), a shape that does not suit, or weights that do not fit.

    >>> import torch
    >>> model = build_model("small-cnn", num_classes=10, input_shape=(1, 8, 8))
    >>> model(torch.zeros(2, 1, 8, 8)).shape
    torch.Size([2, 10])
    """
    shape = tuple(input_shape)
    if num_classes < 1 or len(shape) != 3 or min(shape) < 1:
        raise InputError(
            f"num_classes={num_classes}, input_shape={shape}",
            "at least one class, and (C, H, W) of positive numbers",
            "pass len(data.classes) and data.input_shape",
        )
    if name.startswith("hf:"):
        model = folder_model(Path(name[3:]).expanduser(), num_classes, shape[0])
    else:
        model = _builder(name)(num_classes, shape)
    if weights is not None:
        load_weights(model, weights, name=name)
    return model


def _builder(name: str) -> Builder:
    wide = re.fullmatch(r"wrn(\d+)-(\d+)", name)
    if wide:
        return partial(wide_resnet, int(wide[1]), int(wide[2]))
    if name not in _BUILDERS:
        close = difflib.get_close_matches(name, model_names(), n=3)
        raise InputError(
            f"model {name!r}",
            f"one of {', '.join(model_names())}, any wrnD-K, or hf:FOLDER",
            f"did you mean {', '.join(close)}?" if close else "choose one of these names",
        )
    return _BUILDERS[name]
