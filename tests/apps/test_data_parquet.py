"""Claims about Parquet files: pixels, names, shards, and the cache of decoded images."""

import io

import numpy as np
import pytest
import torch
from data_files import failure, make_set, own_cache, picture, write  # noqa: F401
from PIL import Image

from thresher.apps.data import data_roots, default_augment, load_data
from thresher.apps.data.cache import cache_file, read_cache
from thresher.apps.data.listing import decode
from thresher.apps.data.parquet import parquet_listing
from thresher.apps.data.split import channel_statistics

ROOT = next((place for place in data_roots() if (place / "cifar10" / "test.parquet").is_file()), None)
REAL = pytest.mark.skipif(ROOT is None, reason="no data folder beside the checkout, and THRESHER_DATA is not set")


@pytest.mark.parametrize("column", ["img", "image"])
def test_parquet_gives_pixels_labels_and_names(tmp_path, column):
    data = load_data(str(make_set(tmp_path, column=column, names=["a", "b", "c"])))
    assert (data.input_shape, data.classes, data.train.labels.tolist()) == ((3, 4, 5), ("a", "b", "c"), [0, 1, 2] * 4)
    expected = np.asarray(Image.open(io.BytesIO(picture(7)))).transpose(2, 0, 1)
    assert np.array_equal(data.train.images[7].numpy(), expected)
    assert (data.mean, data.std) == channel_statistics(data.train.images)
    assert default_augment(data) == "crop_flip"


def test_a_named_set_is_found_under_root_variable_and_working_folder(tmp_path, monkeypatch):
    make_set(tmp_path / "shared" / "data" / "cifar10")
    base = tmp_path / "shared" / "data"
    assert load_data("cifar10", root=base).mean == (0.4914, 0.4822, 0.4465)
    monkeypatch.chdir(tmp_path)
    assert len(load_data("cifar10").train) == 12
    (tmp_path / "below").mkdir()
    monkeypatch.chdir(tmp_path / "below")
    assert len(load_data("cifar10").train) == 12
    make_set(tmp_path / "elsewhere" / "mine")
    monkeypatch.setenv("THRESHER_DATA", str(tmp_path / "elsewhere"))
    assert len(load_data("mine").train) == 12


def test_classes_without_names_are_numbered(tmp_path):
    assert load_data(str(make_set(tmp_path))).classes == ("0", "1", "2")


def test_shards_are_read_in_order(tmp_path):
    for part in range(2):
        write(tmp_path / f"data/train-0000{part}-of-00002.parquet", [picture(part * 2 + k) for k in range(2)], [0, 1])
    write(tmp_path / "data/test-00000-of-00001.parquet", [picture(9)], [1])
    data = load_data(str(tmp_path))
    expected = np.asarray(Image.open(io.BytesIO(picture(3)))).transpose(2, 0, 1)
    assert np.array_equal(data.train.images[3].numpy(), expected)


def test_grey_images_get_one_channel_and_one_colour_image_among_them_makes_all_colour(tmp_path):
    grey = [picture(k, mode="L") for k in range(3)]
    write(tmp_path / "test.parquet", grey, [0, 1, 0])
    write(tmp_path / "train.parquet", grey, [0, 1, 0])
    data = load_data(str(tmp_path))
    assert data.input_shape == (1, 4, 5)
    assert default_augment(data) == "shift"
    write(tmp_path / "train.parquet", [*grey, picture(5)], [0, 1, 0, 1])
    mixed = parquet_listing([tmp_path / "train.parquet"])
    assert decode(mixed).images.shape == (4, 3, 4, 5)
    assert "test images (1, 4, 5)" in failure(tmp_path).given


def test_a_second_load_decodes_nothing_and_is_equal(tmp_path, monkeypatch):
    make_set(tmp_path)
    first = load_data(str(tmp_path))
    monkeypatch.setattr("thresher.apps.data.listing._pixels", None)
    second = load_data(str(tmp_path))
    assert torch.equal(first.train.images, second.train.images)
    assert torch.equal(load_data(str(tmp_path), limit=3).train.images, first.train.images[[0, 1, 2]])


def test_a_limited_load_is_the_same_with_and_without_cache_and_stores_none(tmp_path):
    make_set(tmp_path)
    cold = load_data(str(tmp_path), limit=5)
    assert not list((tmp_path / "cache").rglob("*.npz"))
    load_data(str(tmp_path))
    warm = load_data(str(tmp_path), limit=5)
    assert torch.equal(cold.train.images, warm.train.images)
    assert torch.equal(cold.train.labels, warm.train.labels)


@pytest.mark.parametrize("damage", [lambda b: b[:100], lambda b: b"", lambda b: b[:300] + b"\x00\x01\x02" + b[303:]])
def test_a_damaged_cache_is_rebuilt(tmp_path, damage):
    make_set(tmp_path)
    first = load_data(str(tmp_path))
    stored = cache_file((tmp_path / "train.parquet",))
    stored.write_bytes(damage(stored.read_bytes()))
    assert read_cache(stored, 12) is None
    assert torch.equal(load_data(str(tmp_path)).train.images, first.train.images)
    assert read_cache(stored, 12) is not None
    assert not list(stored.parent.glob("*.part"))


def test_a_changed_file_has_another_cache(tmp_path):
    file = make_set(tmp_path) / "train.parquet"
    before = cache_file((file,))
    write(file, [picture(k) for k in range(13)], [k % 3 for k in range(13)])
    assert cache_file((file,)) != before
    assert len(load_data(str(tmp_path)).train) == 13


def test_a_cache_that_cannot_be_written_is_no_error(tmp_path, monkeypatch):
    (tmp_path / "blocked").write_text("a file where the folder should be")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "blocked"))
    assert len(load_data(str(make_set(tmp_path))).train) == 12


@REAL
@pytest.mark.shared_data
@pytest.mark.parametrize(("name", "shape"), [("cifar10", (3, 32, 32)), ("mnist", (1, 28, 28))])
def test_the_real_sets_load_with_a_limit(name, shape):
    data = load_data(name, root=ROOT, limit=100)
    assert (data.input_shape, len(data.classes)) == (shape, 10)
    assert data.train.labels.bincount().min() >= 8
    assert 0 < data.train.images.float().mean() < 255
