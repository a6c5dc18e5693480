"""Data sets by name or path."""

from __future__ import annotations

import difflib
from pathlib import Path

from thresher.apps.data.digits import load_digits
from thresher.apps.data.folder import TEST_NAMES, folder_listings
from thresher.apps.data.hub import hub_listings
from thresher.apps.data.listing import Listing, decode, spread
from thresher.apps.data.parquet import parquet_listing, split_files
from thresher.apps.data.roots import data_roots
from thresher.apps.data.split import ArrayData, DataSplit, channel_statistics
from thresher.errors import InputError

# Statistics of the original training images, so that neither `limit` nor lossy copies change the normalisation.
KNOWN = {
    "cifar10": ((0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)),
    "mnist": ((0.1307,), (0.3081,)),
}
HUB = {"cifar10": "hub:uoft-cs/cifar10", "mnist": "hub:ylecun/mnist"}


def data_names() -> list[str]:
    """Names that `load_data` knows without a path.

    >>> data_names()
    ['cifar10', 'digits', 'mnist']
    """
    return sorted([*KNOWN, "digits"])


def load_data(name: str, *, root: Path | None = None, limit: int | None = None) -> DataSplit:
    """A data set, decoded and ready: "digits", "cifar10", "mnist", a folder, or "hub:NAME".

    Args:
        name: one of `data_names()`, a folder with train.parquet and test.parquet, a folder with
            train/CLASS/*.png and test/CLASS/*.png, or "hub:NAME" for the Hugging Face hub.
        root: the folder that holds the named data sets; default: see `data_roots`.
        limit: at most that many images in each part, each class with its share.

    Returns: uint8 images, labels, class names, and mean and std (of the images loaded, except for the named sets,
    where they are those of the whole training part).

    Errors: InputError for an unknown name, or for files that are missing or damaged; it names the file.

    >>> data = load_data("digits")
    >>> data.input_shape, len(data.classes), len(data.train), len(data.test)
    ((1, 8, 8), 10, 1437, 360)
    """
    if limit is not None and limit < 1:
        raise InputError(f"limit={limit}", "a whole number of images, at least 1", "raise it, or leave it out")
    if name == "digits":
        train, test = load_digits()
        mean, std = channel_statistics(train.images)
        return _split(name, _limited(train, limit), _limited(test, limit), tuple("0123456789"), (mean, std))
    listings = hub_listings(name[4:]) if name.startswith("hub:") else _local(name, root)
    classes = _classes(*listings)
    train, test = (decode(listing, limit) for listing in listings)
    return _split(name, train, test, classes, KNOWN.get(name))


def _split(
    name: str,
    train: ArrayData,
    test: ArrayData,
    classes: tuple[str, ...],
    statistics: tuple[tuple[float, ...], tuple[float, ...]] | None,
) -> DataSplit:
    channels, height, width = train.images.shape[1:]
    if test.images.shape[1:] != train.images.shape[1:]:
        raise InputError(
            f"data set {name} with test images {tuple(test.images.shape[1:])}",
            f"the shape of the training images, {(channels, height, width)}",
            "bring all images to one size, and to grey or colour alike",
        )
    if statistics is None or len(statistics[0]) != channels:
        statistics = channel_statistics(train.images)
    return DataSplit(name, train, test, classes, *statistics, (channels, height, width))


def _limited(data: ArrayData, limit: int | None) -> ArrayData:
    rows = spread(data.labels.numpy(), limit)
    return ArrayData(data.images[rows], data.labels[rows])


def _classes(train: Listing, test: Listing) -> tuple[str, ...]:
    if train.classes and test.classes and train.classes != test.classes:
        raise InputError(
            f"{test.where} with the classes {', '.join(test.classes[:10])}",
            f"those of {train.where}: {', '.join(train.classes[:10])}",
            "give both parts the same class names in the same order",
        )
    names = train.classes or test.classes
    top = int(max(train.labels.max(), test.labels.max())) + 1
    # Without names the classes are counted by the largest label; one wild label must not make a million classes.
    allowed = len(names) if names else len(train.labels)
    if top > allowed:
        raise InputError(
            f"{train.where} and {test.where} with label {top - 1}",
            f"labels from 0 to {allowed - 1}" if names else f"fewer classes than the {allowed} training images",
            "number the classes from 0 without gaps",
        )
    return names or tuple(str(label) for label in range(top))


def _local(name: str, root: Path | None) -> tuple[Listing, Listing]:
    """Both parts of a local data set: a named one, or a folder."""
    places = [place / name for place in data_roots(root)]
    if name not in KNOWN:
        places = [Path(name).expanduser(), *places]
    for place in places:
        train, test = split_files(place, ["train"]), split_files(place, TEST_NAMES)
        if train and test:
            return parquet_listing(train), parquet_listing(test)
        found = folder_listings(place)
        if found:
            return found
    looked = ", ".join(str(place) for place in places)
    if name in KNOWN:
        do = (
            f"put train.parquet and test.parquet into one of these folders, set THRESHER_DATA to the folder that "
            f'holds {name}, or load "{HUB[name]}" where there is a network; "digits" needs no files'
        )
    else:
        close = difflib.get_close_matches(name, data_names(), n=3)
        do = f'use one of {", ".join(data_names())}, a folder, or "hub:NAME"'
        do = f"did you mean {', '.join(close)}? {do}" if close else do
    raise InputError(
        f"data set {name!r}, not found; looked for {looked}",
        "a folder with train.parquet and test.parquet, or with train/CLASS/*.png and test/CLASS/*.png",
        do,
    )
