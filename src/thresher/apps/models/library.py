"""ImageNet networks from the `transformers` library, built from a configuration or from a local folder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, cast

from torch import Tensor, nn

from thresher.apps.models.weights import set_normalisation
from thresher.errors import InputError, require

WHY = "building a network of the transformers library"


class Logits(nn.Module):
    """x ↦ network(pixel_values=x).logits, so that a library network is called like any other."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> Tensor:
        return cast(Tensor, self.network(pixel_values=x).logits)


def library_model(name: str, num_classes: int, input_shape: tuple[int, int, int]) -> nn.Module:
    """resnet50, mobilenetv1, mobilenetv2, efficientnet-b0 or vit-small, untrained, for any input shape.

    Errors: InputError when vit-small cannot cut the image into patches; MissingExtraError without transformers.
    """
    library = require("transformers", extra="hf", why=WHY)
    channels, height, width = input_shape
    common: dict[str, Any] = {"num_labels": num_classes, "num_channels": channels}
    if name == "resnet50":
        config = library.ResNetConfig(**common)
    elif name == "mobilenetv1":
        config = library.MobileNetV1Config(**common, tf_padding=False)
    elif name == "mobilenetv2":
        config = library.MobileNetV2Config(**common, tf_padding=False)
    elif name == "efficientnet-b0":
        config = library.EfficientNetConfig(
            **common, width_coefficient=1.0, depth_coefficient=1.0, hidden_dim=1280, image_size=height, dropout_rate=0.2
        )
    else:
        config = library.ViTConfig(
            **common,
            hidden_size=384,
            num_attention_heads=6,
            intermediate_size=1536,
            image_size=(height, width),
            patch_size=_patch(height, width),
        )
    return Logits(_repaired(library.AutoModelForImageClassification.from_config(config)))


def _patch(height: int, width: int) -> int:
    """16 for large images; about 8 patches in each direction for small ones."""
    patch = 16 if min(height, width) >= 112 else max(1, min(height, width) // 8)
    if height % patch or width % patch:
        raise InputError(
            f"vit-small for images of {height}x{width}",
            f"sides that are multiples of the patch, {patch}",
            "crop or pad the images, or use another network",
        )
    return patch


def _repaired(network: nn.Module) -> nn.Module:
    """Batch norm that follows its batches slowly, and dropout that keeps most.

    The library takes over TensorFlow's batch norm momentum (0.9997, 0.997, 0.99), which in PyTorch means that the
    running statistics are those of the last batch, and evaluation is noise. In its MobileNets it takes over the share
    that dropout keeps (0.999, 0.8) as the share to drop.
    """
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d) and module.momentum is not None and module.momentum > 0.5:
            module.momentum = 0.1
        if isinstance(module, nn.Dropout) and module.p > 0.7:
            module.p = round(1 - module.p, 6)
    return network


def folder_model(folder: Path, num_classes: int, channels: int) -> nn.Module:
    """A network for image classification that `save_pretrained` wrote into `folder`; safetensors only, no network.

    Sets `normalisation` when preprocessor_config.json names image_mean and image_std.

    Errors: InputError for a folder that is missing or cannot be read, for weights that do not fit the configuration,
    and for another number of classes or channels; MissingExtraError without transformers.
    """
    do = "pass a folder that save_pretrained wrote, with config.json and model.safetensors, of an image classifier"
    if not (folder / "config.json").is_file():
        raise InputError(f"hf:{folder}, which has no config.json", "a from_pretrained folder", do)
    library = require("transformers", extra="hf", why=WHY)
    try:
        network, loaded = library.AutoModelForImageClassification.from_pretrained(
            folder, local_files_only=True, use_safetensors=True, output_loading_info=True
        )
    except Exception as error:  # damaged files raise errors of many libraries
        reason = (str(error).splitlines() or [""])[0]
        raise InputError(
            f"hf:{folder}, which cannot be loaded ({type(error).__name__}: {reason})", "a from_pretrained folder", do
        ) from error
    missing = sorted(loaded.get("missing_keys", ()))
    if missing:
        raise InputError(
            f"hf:{folder}, whose weights lack {len(missing)} tensors, e.g. {', '.join(missing[:3])}",
            "weights for every layer of its config.json",
            do,
        )
    given = (network.config.num_labels, getattr(network.config, "num_channels", channels))
    if given != (num_classes, channels):
        raise InputError(
            f"hf:{folder}, a network for {given[0]} classes and {given[1]} channels",
            f"{num_classes} classes and {channels} channels, as in the data",
            "use the data set that it was trained on, or replace its classifier and save it again",
        )
    model = Logits(_repaired(network))
    mean, std = _statistics(folder / "preprocessor_config.json")
    if mean and std and len(mean) == len(std) == channels:
        set_normalisation(model, (mean, std))
    return model


def _statistics(file: Path) -> tuple[tuple[float, ...], tuple[float, ...]]:
    try:
        stored = json.loads(file.read_text(encoding="utf-8"))
        return tuple(map(float, stored["image_mean"])), tuple(map(float, stored["image_std"]))
    except (OSError, ValueError, KeyError, TypeError):
        return (), ()
