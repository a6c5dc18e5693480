"""Networks with the weights of any file: a run's own, known ones by name, or plain safetensors."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import nn

from thresher.apps.models import Normalisation, build_model, normalisation_of
from thresher.deploy.storage import load_state
from thresher.errors import InputError
from thresher.shrinking import load
from thresher.structure import ShrinkPlan

Shape = tuple[int, int, int]


@dataclass(frozen=True, eq=False)
class Network:
    """A model, its name, and what its input must look like; `normalisation` None: that of the data will do.

    plan: what was cut from the network of that name to make the model; None for a whole one.
    """

    model: nn.Module
    name: str
    num_classes: int
    input_shape: Shape
    normalisation: Normalisation | None
    plan: ShrinkPlan | None = None

    def record(self, normalisation: Normalisation) -> dict[str, Any]:
        """What is saved beside the weights, so that the file alone can be built and fed again."""
        return {
            "model": self.name,
            "num_classes": self.num_classes,
            "input_shape": list(self.input_shape),
            "normalisation": [list(part) for part in normalisation],
            **({} if self.plan is None else {"plan": self.plan.to_dict()}),
        }


def load_network(
    name: str | None, weights: str | Path | None, *, num_classes: int | None = None, input_shape: Shape | None = None
) -> Network:
    """The network `name` with `weights`: untrained without, else from a run folder, a file, or known weights.

    Args:
        name: may be None when the weights were saved by a run, which knows it.
        num_classes, input_shape: of the data; may be None likewise.

    Errors: InputError when the weights fit neither the name nor the data, or the file cannot be read.
    """
    path = None if weights is None else weights_file(weights)
    record = {} if path is None else load_state(path)[1]
    if "model" not in record:
        if name is None or num_classes is None or input_shape is None:
            raise InputError(
                f"weights {str(weights)!r}, which do not say of which network they are",
                "a file that thresher saved, or the name of its network and data",
                "add --model NAME and --data NAME",
            )
        model = build_model(name, num_classes=num_classes, input_shape=input_shape, weights=weights)
        return Network(model, name, num_classes, input_shape, normalisation_of(model))
    stored = _stored(record, path)
    for what, mine, theirs in (
        ("network", name, stored.name),
        ("number of classes", num_classes, stored.num_classes),
        ("input shape", input_shape, stored.input_shape),
    ):
        if mine is not None and mine != theirs:
            raise InputError(
                f"weights {str(weights)!r} for {what} {theirs}, with {what} {mine}",
                f"the {what} that the weights were trained for",
                "use the data set and network that they were trained with, or other weights",
            )
    assert path is not None
    model = build_model(stored.name, num_classes=stored.num_classes, input_shape=stored.input_shape)
    if stored.plan is not None:
        model = stored.plan.apply(model)
    return replace(stored, model=load(path, model))


def weights_file(weights: str | Path) -> Path | None:
    """The file behind a path or a run folder; None for a name, or when it is missing (then the name is looked up)."""
    path = Path(weights).expanduser()
    if path.is_dir():
        if not (path / "model.safetensors").is_file():
            raise InputError(
                f"the folder {str(weights)!r} without model.safetensors",
                "the folder of a finished run",
                "finish that run with --resume, or pass a file",
            )
        return path / "model.safetensors"
    return path if path.is_file() else None


def _stored(record: dict[str, Any], path: Path | None) -> Network:
    try:
        channels, height, width = (int(size) for size in record["input_shape"])
        mean, std = (tuple(float(value) for value in part) for part in record["normalisation"])
        return Network(
            nn.Identity(),
            str(record["model"]),
            int(record["num_classes"]),
            (channels, height, width),
            (mean, std),
            ShrinkPlan.from_dict(record["plan"]) if "plan" in record else None,
        )
    except InputError as error:
        raise InputError(f"{str(path)!r} with {error.given}", error.expected, error.do) from error
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(
            f"{str(path)!r}, whose record is incomplete ({error})",
            "a record with model, num_classes, input_shape and normalisation",
            "save the network again with a run of thresher",
        ) from error
