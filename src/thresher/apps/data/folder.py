"""Image folders: ROOT/train/CLASS/*.png beside ROOT/test/CLASS/*.png (or val, validation)."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from thresher.apps.data.listing import Listing
from thresher.errors import InputError

SUFFIXES = {".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".avif", ".tif", ".tiff", ".ppm", ".pgm"}
TEST_NAMES = ("test", "val", "validation")


def class_folders(folder: Path) -> tuple[str, ...]:
    """Names of the class folders in `folder`, sorted; hidden ones do not count.

    >>> class_folders(Path("nowhere"))
    ()
    """
    if not folder.is_dir():
        return ()
    return tuple(sorted(place.name for place in folder.iterdir() if place.is_dir() and not place.name.startswith(".")))


def folder_listings(folder: Path) -> tuple[Listing, Listing] | None:
    """Training and test part of an image folder, or None when `folder` is not one.

    Errors: InputError for a class without images, a test class that training lacks, or no test part.
    """
    classes = class_folders(folder / "train")
    if not classes:
        return None
    test = next((folder / name for name in TEST_NAMES if (folder / name).is_dir()), None)
    if test is None:
        raise InputError(
            f"{folder}, which has train but no test part",
            f"one of the folders {', '.join(TEST_NAMES)} beside train",
            "put images for testing there, in class folders of the same names",
        )
    strange = sorted(set(class_folders(test)) - set(classes))
    if strange:
        raise InputError(
            f"{test} with the class folder {strange[0]}",
            f"the classes of {folder / 'train'}: {', '.join(classes[:10])}",
            "name the class folders alike in both parts",
        )
    return _listing(folder / "train", classes, every=True), _listing(test, classes, every=False)


def _listing(part: Path, classes: tuple[str, ...], every: bool) -> Listing:
    images: list[Path] = []
    labels: list[int] = []
    for label, name in enumerate(classes):
        found = sorted(file for file in (part / name).glob("*") if file.suffix.lower() in SUFFIXES and file.is_file())
        if every and not found:
            raise InputError(f"{part / name}, which holds no images", "at least one image for each class", _DO)
        images += found
        labels += [label] * len(found)
    if not images:
        raise InputError(f"{part}, which holds no images", "images in class folders", _DO)
    return Listing(str(part), tuple(images), images.__getitem__, np.asarray(labels, dtype=np.int64), classes)


_DO = f"add image files (one of {' '.join(sorted(SUFFIXES))}), or remove the folder"
