"""Small data sets on disk for the tests of the loaders, and a cache of their own for each test."""

import io
import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from thresher.apps.data import load_data
from thresher.errors import InputError


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def picture(seed, size=(5, 4), mode="RGB", kind="PNG"):
    shape = (size[1], size[0]) if mode == "L" else (size[1], size[0], 3)
    pixels = np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, kind)
    return stream.getvalue()


def write(file, images, labels, column="img", names=None):
    file.parent.mkdir(parents=True, exist_ok=True)
    rows = [None if image is None else {"bytes": image, "path": "a.png"} for image in images]
    table = pa.table(
        {column: pa.array(rows, pa.struct([("bytes", pa.binary()), ("path", pa.string())])), "label": pa.array(labels)}
    )
    if names:
        features = {"label": {"names": names, "_type": "ClassLabel"}, column: {"_type": "Image"}}
        table = table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    pq.write_table(table, file)


def make_set(folder, **settings):
    write(folder / "train.parquet", [picture(k) for k in range(12)], [k % 3 for k in range(12)], **settings)
    write(folder / "test.parquet", [picture(50 + k) for k in range(6)], [k % 3 for k in range(6)], **settings)
    return folder


def failure(name, **settings):
    with pytest.raises(InputError) as caught:
        load_data(str(name), **settings)
    return caught.value
