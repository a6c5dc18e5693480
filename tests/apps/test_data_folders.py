"""Claims about image folders and the hub."""

import sys
import types

import pytest
from data_files import failure, own_cache, picture  # noqa: F401

from thresher.apps.data import load_data


def make_folder(root, test="test"):
    for part, count in (("train", 3), (test, 2)):
        for label, name in enumerate(("cat", "dog")):
            (root / part / name).mkdir(parents=True)
            for k in range(count):
                (root / part / name / f"{k}.png").write_bytes(picture(10 * label + k))
    (root / "train" / "cat" / "notes.txt").write_text("no image")
    return root


@pytest.mark.parametrize("test", ["test", "val"])
def test_an_image_folder_gives_classes_by_name(tmp_path, test):
    data = load_data(str(make_folder(tmp_path, test)))
    assert (data.classes, data.train.labels.tolist()) == (("cat", "dog"), [0, 0, 0, 1, 1, 1])
    assert (len(data.test), data.input_shape) == (4, (3, 4, 5))


def test_an_image_folder_without_a_test_part_is_refused(tmp_path):
    make_folder(tmp_path, "held")
    assert "no test part" in failure(tmp_path).given


def test_a_test_class_that_training_lacks_is_refused(tmp_path):
    (make_folder(tmp_path) / "test" / "fish").mkdir()
    assert "class folder fish" in failure(tmp_path).given


def test_a_class_without_images_is_refused(tmp_path):
    (make_folder(tmp_path) / "train" / "fish").mkdir()
    assert "fish, which holds no images" in failure(tmp_path).given


def test_a_broken_image_file_is_named_by_folder_and_number(tmp_path):
    (make_folder(tmp_path) / "test" / "dog" / "1.png").write_bytes(b"broken")
    assert f"image 3 of {tmp_path / 'test'}" in failure(tmp_path).given


def fake_library(load):
    library = types.ModuleType("datasets")
    library.load_dataset = load
    library.Image = lambda decode: None
    return library


class Part(list):
    """A stand-in for datasets.Dataset: rows by number, columns by name."""

    def __init__(self, rows, names):
        super().__init__(rows)
        self.features = {"image": object(), "label": types.SimpleNamespace(names=names)}

    def __getitem__(self, key):
        return [row[key] for row in self] if isinstance(key, str) else super().__getitem__(key)

    def cast_column(self, name, feature):
        return self


def test_the_hub_loads_through_datasets(monkeypatch):
    rows = [{"image": {"bytes": picture(k), "path": None}, "label": k % 2} for k in range(4)]
    found = {"train": Part(rows, ["a", "b"]), "test": Part(rows[:2], ["a", "b"])}
    monkeypatch.setitem(sys.modules, "datasets", fake_library(lambda name: found))
    data = load_data("hub:some/set")
    assert (data.classes, len(data.train), len(data.test)) == (("a", "b"), 4, 2)


def test_a_hub_that_cannot_be_reached_is_said_so(monkeypatch):
    def load(name):
        raise ConnectionError("no route")

    monkeypatch.setitem(sys.modules, "datasets", fake_library(load))
    error = failure("hub:some/set")
    assert "hub:some/set" in error.given
    assert "ConnectionError: no route" in error.given
    assert "network" in error.do


def test_a_hub_set_without_a_test_part_is_refused(monkeypatch):
    monkeypatch.setitem(sys.modules, "datasets", fake_library(lambda name: {"train": []}))
    assert "splits train" in failure("hub:some/set").given
