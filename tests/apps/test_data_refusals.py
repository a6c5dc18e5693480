"""Claims about what is said when a data set is missing, damaged or of another form."""

import io

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from data_files import failure, make_set, own_cache, picture, write  # noqa: F401
from PIL import Image


def test_a_missing_named_set_says_where_it_looked_and_how_to_get_it(tmp_path):
    error = failure("cifar10", root=tmp_path / "empty")
    assert str(tmp_path / "empty" / "cifar10") in error.given
    assert "THRESHER_DATA" in error.do
    assert "hub:uoft-cs/cifar10" in error.do


def test_an_unknown_name_is_answered_with_close_ones():
    error = failure("cifar")
    assert "did you mean cifar10?" in error.do
    assert "digits" in error.do


def test_a_folder_with_half_a_set_is_not_found(tmp_path):
    write(tmp_path / "train.parquet", [picture(0)], [0])
    assert "test.parquet" in failure(tmp_path).expected


def break_test(folder, images=None, labels=None, **settings):
    images = [picture(k) for k in range(3)] if images is None else images
    write(folder / "test.parquet", images, [0, 1, 2] if labels is None else labels, **settings)


@pytest.mark.parametrize(
    ("settings", "given"),
    [
        ({"labels": [0, 3, 1], "names": ["a", "b", "c"]}, "row 1 has label 3"),
        ({"labels": [0, 1, -1]}, "row 2 has label -1"),
        ({"labels": [0, 1, 10**9]}, "label 1000000000"),
        ({"labels": [0.0, 1.0, 2.0]}, "column label of type double"),
        ({"labels": [0, None, 2]}, "1 of its rows empty"),
        ({"images": [picture(0), None, picture(1)]}, "row 1 holds no image"),
        ({"images": [picture(0), b"no image", picture(1)]}, "image 1 of"),
        ({"images": [picture(0), picture(1)[:60], picture(1)]}, "image 1 of"),
        ({"images": [picture(0), picture(1), picture(2, size=(4, 4))]}, "4x4 pixels"),
        ({"images": [], "labels": []}, "type null"),
        ({"images": [picture(k, size=(6, 6)) for k in range(3)]}, "test images (3, 6, 6)"),
        ({"column": "picture"}, "with the columns picture, label"),
    ],
)
def test_a_bad_parquet_file_is_named_with_what_is_wrong(tmp_path, settings, given):
    make_set(tmp_path)
    break_test(tmp_path, **settings)
    error = failure(tmp_path)
    assert given in error.given
    assert str(tmp_path) in error.given
    assert error.expected
    assert error.do


def test_other_class_names_in_the_test_part_are_refused(tmp_path):
    make_set(tmp_path, names=["a", "b", "c"])
    break_test(tmp_path, names=["c", "b", "a"])
    assert "c, b, a" in failure(tmp_path).given


@pytest.mark.parametrize("content", [b"", b"PAR1", b"no parquet at all, but long enough to be looked at PAR1"])
def test_a_damaged_parquet_file_is_named(tmp_path, content):
    (make_set(tmp_path) / "test.parquet").write_bytes(content)
    error = failure(tmp_path)
    assert str(tmp_path / "test.parquet") in error.given
    assert "a Parquet file" in error.expected


def test_a_parquet_file_cut_short_is_named(tmp_path):
    file = make_set(tmp_path) / "train.parquet"
    file.write_bytes(file.read_bytes()[:-100])
    assert str(file) in failure(tmp_path).given


def test_a_flat_image_column_is_refused(tmp_path):
    make_set(tmp_path)
    pq.write_table(pa.table({"img": [picture(0)], "label": [0]}), tmp_path / "test.parquet")
    error = failure(tmp_path)
    assert "column img of type binary" in error.given
    assert "struct<bytes" in error.expected


def test_an_empty_parquet_file_is_refused(tmp_path):
    make_set(tmp_path)
    table = pq.read_table(tmp_path / "test.parquet")
    pq.write_table(table.slice(0, 0), tmp_path / "test.parquet")
    assert "holds no rows" in failure(tmp_path).given


def test_sixteen_bit_images_are_refused_instead_of_clipped(tmp_path):
    stream = io.BytesIO()
    Image.fromarray(np.full((4, 5), 60000, dtype=np.uint16)).save(stream, "PNG")
    make_set(tmp_path)
    break_test(tmp_path, images=[stream.getvalue()] * 3)
    assert "8 bits" in failure(tmp_path).expected
