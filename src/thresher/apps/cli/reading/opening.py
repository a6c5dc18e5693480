"""Networks that export, bench and doctor are pointed at: a run folder, a file, or a name."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from thresher.errors import InputError

if TYPE_CHECKING:
    from thresher.apps.train.network import Network, Shape

_IMAGENET = ("resnet50", "mobilenetv1", "mobilenetv2", "efficientnet-b0", "vit-small")


def open_network(file: str, model: str | None, shape: str | None, classes: int | None) -> Network:
    """The network in a run folder or file, or, when `file` names a network, that one untrained.

    `shape` ("3,32,32") and `classes` are needed only where a file does not say; for a name they default to 3,224,224
    and 1000 for the ImageNet networks, 3,32,32 and 10 for the others.

    Errors: InputError for a file that is missing or damaged, or does not say what it holds.
    """
    from thresher.apps.train.network import load_network

    size = None if shape is None else parse_shape(shape)
    if Path(file).expanduser().exists():
        return load_network(model, file, num_classes=classes, input_shape=size)
    large = file in _IMAGENET
    default: Shape = (3, 224, 224) if large else (3, 32, 32)
    return load_network(file, None, num_classes=classes or (1000 if large else 10), input_shape=size or default)


def parse_shape(text: str) -> tuple[int, int, int]:
    """ "3,32,32" -> (3, 32, 32). Errors: InputError for anything else.

    >>> parse_shape("3, 32, 32")
    (3, 32, 32)
    """
    sizes = parse_counts("--shape", text)
    if len(sizes) != 3:
        raise InputError(f"--shape {text}", "channels, height and width, e.g. 3,32,32", "correct it")
    return sizes[0], sizes[1], sizes[2]


def parse_counts(flag: str, text: str) -> list[int]:
    """ "1,16" -> [1, 16]. Errors: InputError for anything but numbers of 1 or more, joined by commas.

    >>> parse_counts("--batch", "1, 16")
    [1, 16]
    """
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isdecimal() and int(part) > 0 for part in parts):
        raise InputError(f"{flag} {text}", "numbers of 1 or more, joined by commas, e.g. 1,16", f"correct {flag}")
    return [int(part) for part in parts]
