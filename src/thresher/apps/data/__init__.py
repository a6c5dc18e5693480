"""Data sets by name or path, decoded once, and batches that resume bit for bit."""

from thresher.apps.data.augment import Augment, augment_names, augmentation, default_augment
from thresher.apps.data.batches import Batches
from thresher.apps.data.holding import hold_out
from thresher.apps.data.library import data_names, load_data
from thresher.apps.data.roots import data_roots
from thresher.apps.data.split import ArrayData, DataSplit

__all__ = [
    "ArrayData",
    "Augment",
    "Batches",
    "DataSplit",
    "augment_names",
    "augmentation",
    "data_names",
    "data_roots",
    "default_augment",
    "hold_out",
    "load_data",
]
