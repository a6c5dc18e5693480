"""Weights from safetensors files, and the normalisation that they expect of their input."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from thresher.apps.data.roots import data_roots, find
from thresher.errors import InputError

Normalisation = tuple[tuple[float, ...], tuple[float, ...]]
"""(mean, std), one for each channel, for images in 0..1."""

IMAGENET: Normalisation = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
NAMED = {("resnet20", "cifar10"): ("resnet20_cifar10.safetensors", IMAGENET)}
_ATTRIBUTE = "normalisation"


def normalisation_of(model: nn.Module) -> Normalisation | None:
    """(mean, std) that the weights of `model` expect, or None when the data's own will do.

    >>> normalisation_of(nn.Linear(1, 1)) is None
    True
    """
    return getattr(model, _ATTRIBUTE, None)


def set_normalisation(model: nn.Module, normalisation: Normalisation) -> None:
    """Declare in `model.normalisation` what its weights expect; a plain attribute, no part of the state."""
    object.__setattr__(model, _ATTRIBUTE, normalisation)


def load_weights(model: nn.Module, weights: Path | str, *, name: str = "model") -> None:
    """Copy the tensors of a safetensors file, or of known weights such as "cifar10", into `model`.

    Args:
        model: gets the tensors, and `normalisation` where the weights are known to need one.
        weights: a file, or the name of known weights of the network `name`.
        name: the network's name, e.g. "resnet20".

    Errors: InputError for a file that is missing or no safetensors file, and for tensors that are missing, unexpected
    or of another shape: one error for all. num_batches_tracked may be absent.
    """
    file, normalisation = _resolve(weights, name)
    try:
        tensors = load_file(file)
    except (SafetensorError, OSError, ValueError) as error:
        raise InputError(
            f"weights {file}, which cannot be read ({error})",
            "a safetensors file (no pickle: .pt, .pth and .bin files can run code)",
            "save the tensors with safetensors.torch.save_file",
        ) from error
    _check(model.state_dict(), tensors, file, name)
    model.load_state_dict(tensors, strict=False)  # strict but for num_batches_tracked: checked above
    if normalisation is not None:
        set_normalisation(model, normalisation)


def _resolve(weights: Path | str, name: str) -> tuple[Path, Normalisation | None]:
    known = NAMED.get((name, str(weights)))
    if known:
        file = find(f"weights/{known[0]}")
        if file is None:
            raise InputError(
                f"weights={weights!r}, not found; looked for "
                + ", ".join(str(place / "weights" / known[0]) for place in data_roots()),
                f"the file {known[0]}",
                "set THRESHER_DATA to the folder that holds weights/, or pass the file's path",
            )
        return file, known[1]
    file = Path(weights).expanduser()
    if not file.is_file():
        names = [weight for network, weight in NAMED if network == name]
        raise InputError(
            f"weights={str(weights)!r}, which is no file",
            "a safetensors file" + (f", or one of {', '.join(names)}" if names else f" ({name} has no named weights)"),
            "check the path",
        )
    # The same file by its path needs the same normalisation.
    return file, next((n for (net, _), (base, n) in NAMED.items() if (net, base) == (name, file.name)), None)


def _check(wanted: Mapping[str, Tensor], given: Mapping[str, Tensor], file: Path, name: str) -> None:
    def counts(key: str) -> bool:
        return not key.endswith("num_batches_tracked")

    missing = [key for key in wanted if counts(key) and key not in given]
    strange = [key for key in given if counts(key) and key not in wanted]
    shaped = [key for key in wanted if key in given and given[key].shape != wanted[key].shape]
    problems = []
    if missing:
        problems.append(f"{len(missing)} tensors missing ({_first(missing)})")
    if strange:
        problems.append(f"{len(strange)} unexpected ({_first(strange)})")
    if shaped:
        shapes = [f"{key} {tuple(given[key].shape)} instead of {tuple(wanted[key].shape)}" for key in shaped]
        problems.append(f"{len(shaped)} of another shape ({_first(shapes)})")
    if not problems:
        return
    last = list(wanted)[-2:]  # weight and bias of the classifier
    classes = shaped and not missing and not strange and set(shaped) <= set(last)
    raise InputError(
        f"weights {file}: {'; '.join(problems)}",
        f"the {len(wanted)} tensors of {name}, each in its shape",
        "use a data set with the number of classes that the weights were trained for"
        if classes
        else "name the network that the file was saved from; a shrunk network carries its shapes in its own file",
    )


def _first(items: list[str]) -> str:
    return ", ".join(items[:3]) + (", ..." if len(items) > 3 else "")
