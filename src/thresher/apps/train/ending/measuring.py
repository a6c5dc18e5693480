"""What a saved network is worth: accuracy, zeros, bytes, milliseconds."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from thresher.apps.data import Batches, load_data
from thresher.apps.models import Normalisation
from thresher.apps.runs import Run
from thresher.apps.train.device import pick_device
from thresher.apps.train.ending.evaluate import accuracy
from thresher.apps.train.network import Network, load_network, weights_file
from thresher.deploy.latency import time_model
from thresher.errors import InputError
from thresher.targets import select

TIMED_BATCH = 32


@dataclass(frozen=True, eq=False)
class Saved:
    """A saved network on its device, the test part of its data, what was asked for (`file`) and where its weights lie
    (`path`, None for known weights), and how its input is normalised."""

    file: str
    network: Network
    model: nn.Module
    data: str
    test: Batches
    path: Path | None
    normalisation: Normalisation


def open_saved(
    file: str | Path,
    *,
    data: str | None = None,
    model: str | None = None,
    data_root: Path | None = None,
    limit: int | None = None,
    device_name: str = "auto",
) -> Saved:
    """The network in `file` with data to test it on.

    Args:
        file: a run folder, a file, or the name of known weights. data: default: that of the run.

    Errors: InputError when the file is missing or damaged, or does not fit the data.
    """
    if data is None:
        config = Run.open(file).config if Path(file).is_dir() else {}
        if "data" not in config:
            raise InputError(f"{str(file)!r} without a data set", "a data set to evaluate on", "add --data NAME")
        data = str(config["data"])
        limit = config.get("limit") if limit is None else limit
        data_root = Path(config["data_root"]) if data_root is None and config.get("data_root") else data_root
    device = pick_device(device_name)
    path = weights_file(file)
    split = load_data(data, root=data_root, limit=limit)
    network = load_network(model, file, num_classes=len(split.classes), input_shape=split.input_shape)
    mean, std = network.normalisation or (split.mean, split.std)
    test = Batches(split.test, min(500, len(split.test)), train=False, mean=mean, std=std, device=device)
    return Saved(str(file), network, network.model.to(device), data, test, path, (tuple(mean), tuple(std)))


def measure_saved(saved: Saved, told: Callable[[int, int, str], None] | None = None) -> dict[str, Any]:
    """Accuracy in percent, zeros among convolution and linear weights, size of the file, time of one batch.

    Args: told: hears of each batch of images: (done, in all, what).
    """
    net, path = saved.model, saved.path
    images = next(iter(saved.test))[0][:TIMED_BATCH]
    weights = [getattr(*target.sites[0]).detach() for target in select(net, frozen=True).targets]
    entries = sum(weight.numel() for weight in weights)
    zeros = sum(int((weight == 0).sum()) for weight in weights)
    return {
        "file": saved.file,
        "model": saved.network.name,
        "data": saved.data,
        "images": len(saved.test.data),
        "accuracy": accuracy(net, _counted(saved.test, told)),
        "zeros": zeros,
        "entries": entries,
        "sparsity": zeros / max(entries, 1),
        "bytes": None if path is None else path.stat().st_size,
        "milliseconds": 1000 * time_model(net, images, rounds=5, min_time=0.03).seconds,
        "timed_batch": len(images),
    }


def _counted(batches: Batches, told: Callable[[int, int, str], None] | None) -> Iterator[tuple[Tensor, Tensor]]:
    for number, batch in enumerate(batches):
        if told is not None:
            told(number, len(batches), "test images")
        yield batch
    if told is not None:
        told(len(batches), len(batches), "")
