"""Claims about files that are damaged, foreign or made to harm: InputError, or the right tensors, and nothing else."""

from __future__ import annotations

import hashlib
import json
import os
import random
import struct
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from test_storage_encoding import random_tensor, same_bits
from torch import Tensor

from thresher.deploy.storage import load_state, save
from thresher.errors import InputError

BLANK = "0" * 64


def sample() -> dict[str, Tensor]:
    shared = random_tensor(torch.float32, (40, 30), 0.1, 0)
    return {
        "gaps.weight": shared,
        "mask.weight": random_tensor(torch.float32, (40, 30), 0.6, 1),
        "tied.weight": shared,
        "bias": torch.ones(7),
        "flags": torch.tensor([True, False]),
    }


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("good") / "x.safetensors"
    save(sample(), path, record={"note": "as it was"})
    return path.read_bytes()


def refused_or_identical(path: Path, data: bytes) -> None:
    path.write_bytes(data)
    try:
        state, record = load_state(path)
    except InputError:
        return
    expected = sample()
    assert list(state) == list(expected)
    assert all(same_bits(state[name], expected[name]) for name in expected)
    assert state["tied.weight"] is state["gaps.weight"]
    assert record == {"note": "as it was"}


def test_every_single_flipped_byte_is_refused(good: bytes, tmp_path: Path) -> None:
    generator = random.Random(0)
    header = 8 + int.from_bytes(good[:8], "little")
    for at in [*range(header), *range(header, len(good), 9)]:
        changed = bytearray(good)
        changed[at] ^= generator.randrange(1, 256)
        refused_or_identical(tmp_path / "x", bytes(changed))


def test_every_truncation_is_refused(good: bytes, tmp_path: Path) -> None:
    for length in [*range(0, len(good), 7), len(good) - 1]:
        (tmp_path / "x").write_bytes(good[:length])
        with pytest.raises(InputError):
            load_state(tmp_path / "x")


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    cuts=st.lists(st.tuples(st.integers(0, 3000), st.integers(0, 20), st.binary(max_size=20)), min_size=1, max_size=4)
)
def test_splices_are_refused(good: bytes, tmp_path: Path, cuts: list[tuple[int, int, bytes]]) -> None:
    data = good
    for at, length, replacement in cuts:
        data = data[:at] + replacement + data[at + length :]
    refused_or_identical(tmp_path / "x", data)


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.binary(max_size=300), length=st.integers(0, 2**64 - 1) | st.integers(0, 300))
def test_noise_is_refused(tmp_path: Path, data: bytes, length: int) -> None:
    (tmp_path / "x").write_bytes(struct.pack("<Q", length) + data)
    with pytest.raises(InputError):
        load_state(tmp_path / "x")


def forged(entries: dict[str, Any], tensors: Any, payload: bytes, record: Any = None, version: Any = 1) -> bytes:
    """A file with a right digest, as someone who means harm would make it."""
    manifest = json.dumps({"version": version, "tensors": tensors, "record": {} if record is None else record})
    table = {"__metadata__": {"thresher": manifest, "thresher.sha256": BLANK}} | entries
    text = json.dumps(table, separators=(",", ":")).encode()
    head = struct.pack("<Q", len(text)) + text
    return head.replace(BLANK.encode(), hashlib.sha256(head + payload).hexdigest().encode(), 1) + payload


def parts(index: bytes, count: int, kind: str = "gaps") -> tuple[dict[str, Any], bytes]:
    n = len(index)
    entries = {
        f"w#{kind}": {"dtype": "U8", "shape": [n], "data_offsets": [0, n]},
        "w#values": {"dtype": "F32", "shape": [count], "data_offsets": [n, n + 4 * count]},
    }
    return entries, index + bytes([1] * 4 * count)


def test_a_forged_file_that_tells_the_truth_is_read(tmp_path: Path) -> None:
    entries, payload = parts(b"\x05", 2)
    fields = {"encoding": "gaps", "width": 0, "shape": [2, 2], "dtype": "F32"}
    (tmp_path / "x").write_bytes(forged(entries, {"w": fields}, payload))
    assert (load_state(tmp_path / "x")[0]["w"] != 0).tolist() == [[True, False], [True, False]]


@pytest.mark.parametrize(
    "change",
    [
        {"shape": [2, 1]},  # an index beyond the tensor
        {"shape": [2**62, 2**62]},
        {"shape": [10**14]},  # far more memory than any machine has
        {"shape": [2**64]},
        {"shape": [0, 2**62, 2**62]},
        {"shape": [-4]},
        {"shape": [4.0]},
        {"shape": [True]},
        {"shape": "4"},
        {"shape": [1] * 70},
        {"shape": None},
        {"dtype": "F16"},
        {"dtype": "os.system"},
        {"dtype": None},
        {"dtype": [1]},
        {"width": -1},
        {"width": 49},
        {"width": 2**70},
        {"width": 1.5},
        {"width": True},
        {"width": "0"},
        {"encoding": "bitmask"},
        {"encoding": "dense"},
        {"encoding": "pickle"},
        {"encoding": None},
        {"encoding": ["gaps"]},
        {"tie": "w"},
        {"tie": "nowhere"},
    ],
)
def test_lies_in_the_manifest_are_refused_without_allocating(tmp_path: Path, change: dict[str, Any]) -> None:
    entries, payload = parts(b"\x05", 2)
    fields = {"encoding": "gaps", "width": 0, "shape": [4], "dtype": "F32"} | change
    (tmp_path / "x").write_bytes(forged(entries, {"w": fields}, payload))
    with pytest.raises(InputError):
        load_state(tmp_path / "x")


@pytest.mark.parametrize("width", [40, 48])
def test_gaps_whose_sum_overflows_are_refused(tmp_path: Path, width: int) -> None:
    entries, payload = parts(b"\xff" + b"\xff" * (8 * width // 8), 8)
    fields = {"encoding": "gaps", "width": width, "shape": [1000], "dtype": "F32"}
    (tmp_path / "x").write_bytes(forged(entries, {"w": fields}, payload))
    with pytest.raises(InputError):
        load_state(tmp_path / "x")


@pytest.mark.parametrize(
    "tensors", [None, [], {"w": None}, {"w": 3}, {}, {"v": {"encoding": "dense"}}, {"w": {"tie": ["w"]}}]
)
def test_manifests_of_another_kind_are_refused(tmp_path: Path, tensors: Any) -> None:
    entries, payload = parts(b"\x05", 2)
    (tmp_path / "x").write_bytes(forged(entries, tensors, payload))
    with pytest.raises(InputError):
        load_state(tmp_path / "x")


def test_a_newer_version_and_a_record_that_is_no_object_are_refused(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(forged({}, {}, b"", version=3))
    with pytest.raises(InputError, match="version 3"):
        load_state(tmp_path / "x")
    (tmp_path / "x").write_bytes(forged({}, {}, b"", record=[1]))
    with pytest.raises(InputError):
        load_state(tmp_path / "x")


def test_a_small_file_that_unfolds_to_a_huge_one_needs_permission(tmp_path: Path) -> None:
    save({"w": torch.zeros(1000, 1000)}, tmp_path / "x")
    with pytest.raises(InputError, match="max_bytes"):
        load_state(tmp_path / "x", max_bytes=3_999_999)
    assert load_state(tmp_path / "x", max_bytes=4_000_000)[0]["w"].shape == (1000, 1000)


@pytest.mark.parametrize(
    "text",
    [
        b"[]",
        b"null",
        b"{",
        b"[" * 100_000,
        b'{"a":' * 100_000,
        b'{"a":NaN}',
        b'{"a":{},"a":{}}',
        b'{"__metadata__":{"a":1}}',
        b'{"__metadata__":[]}',
        b'{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}',
        b'{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}',
        b'{"a":{"dtype":"F32","shape":[3],"data_offsets":[0,8]}}',
        b'{"a":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}}',
        b'{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"b":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}',
        b'{"a":{"dtype":"F32","shape":[-1],"data_offsets":[0,-4]}}',
        b'{"a":{"dtype":"F31","shape":[],"data_offsets":[0,0]}}',
        b'{"a":{"dtype":[],"shape":[],"data_offsets":[0,0]}}',
        b'{"a":' + b"9" * 6000 + b"}",
        b"\xff\xfe{}",
    ],
)
def test_headers_that_lie_are_refused(tmp_path: Path, text: bytes) -> None:
    (tmp_path / "x").write_bytes(struct.pack("<Q", len(text)) + text)
    with pytest.raises(InputError):
        load_state(tmp_path / "x")


def test_an_empty_tensor_with_enormous_sizes_is_empty(tmp_path: Path) -> None:
    text = b'{"a":{"dtype":"F32","shape":[0,4611686018427387904,4611686018427387904],"data_offsets":[0,0]}}'
    (tmp_path / "x").write_bytes(struct.pack("<Q", len(text)) + text)
    assert load_state(tmp_path / "x")[0]["a"].numel() == 0


def test_booleans_that_are_neither_zero_nor_one_are_refused(tmp_path: Path) -> None:
    text = b'{"a":{"dtype":"BOOL","shape":[1],"data_offsets":[0,1]}}'
    (tmp_path / "x").write_bytes(struct.pack("<Q", len(text)) + text + b"\x02")
    with pytest.raises(InputError, match="booleans"):
        load_state(tmp_path / "x")


def test_a_foreign_safetensors_file_loads_as_plain_tensors(tmp_path: Path) -> None:
    state = {
        "b": torch.ones(3, dtype=torch.float16),
        "a": random_tensor(torch.int64, (4, 5), 0.2, 0),
        "e": torch.zeros(0, 2),
    }
    safetensors.torch.save_file(state, tmp_path / "x", metadata={"format": "pt", "by": "someone"})
    loaded, record = load_state(tmp_path / "x")
    assert record == {}
    assert loaded.keys() == state.keys()
    assert all(same_bits(loaded[name], state[name]) for name in state)


def test_a_pickle_is_refused_and_not_executed(tmp_path: Path) -> None:
    class Trap:
        def __reduce__(self) -> tuple[Any, tuple[str]]:
            return os.mkdir, (str(tmp_path / "sprung"),)

    torch.save({"a": Trap()}, tmp_path / "x")
    with pytest.raises(InputError):
        load_state(tmp_path / "x")
    assert not (tmp_path / "sprung").exists()


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"nowhere.safetensors"):
        load_state(tmp_path / "nowhere.safetensors")
