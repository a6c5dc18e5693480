"""Claims about blocks and N:M patterns: stored once per block, found by themselves, bit for bit, exactly predicted."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from test_storage_encoding import random_tensor, same_bits
from torch import Tensor

from thresher.deploy.storage import encoded_bytes, encoded_bytes_of_mask, load_state, predicted_file_bytes, save
from thresher.deploy.storage.blocks import grid, positions
from thresher.deploy.storage.choosing import smallest
from thresher.deploy.storage.encoding import decode, encode
from thresher.deploy.storage.nofm import bits_of, pack, unpack
from thresher.errors import InputError


def in_blocks(shape: tuple[int, ...], block: tuple[int, int], density: float, seed: int = 0) -> Tensor:
    """Random bits where a random choice of whole blocks says so; blocks at the far edges are cut off."""
    rows, columns = shape[0], math.prod(shape[1:])
    down, across = -(-rows // block[0]), -(-columns // block[1])
    kept = torch.rand(down, across, generator=torch.Generator().manual_seed(seed)) < density
    kept = kept.repeat_interleave(block[0], 0).repeat_interleave(block[1], 1)[:rows, :columns]
    return torch.where(kept, torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed)), 0).view(shape)


def in_groups(shape: tuple[int, ...], keep: int, of: int) -> Tensor:
    """Random values, the `keep` first of a shuffle in each group of `of` along dim 1."""
    weight = torch.randn(shape, generator=torch.Generator().manual_seed(1))
    grouped = weight.view(shape[0], shape[1] // of, of, -1)
    order = torch.rand(grouped.shape, generator=torch.Generator().manual_seed(2)).argsort(2).argsort(2)
    return torch.where(order < keep, grouped, 0).view(shape)


@pytest.mark.parametrize(
    ("shape", "block", "spelling"),
    [
        ((128, 96), (4, 1), "gaps of 4x1 blocks"),
        ((126, 97), (4, 1), "gaps of 4x1 blocks"),
        ((64, 32, 3, 3), (4, 1), "gaps of 4x1 blocks"),
        ((64, 32, 3, 3), (1, 9), "gaps of 1x9 blocks"),
        ((250, 180), (16, 16), "gaps of 16x16 blocks"),
        ((125, 180), (5, 3), "gaps of 5x3 blocks"),
    ],
)
def test_the_block_is_found_and_its_place_stored_once(
    shape: tuple[int, ...], block: tuple[int, int], spelling: str
) -> None:
    tensor = in_blocks(shape, block, 0.2)
    choice = smallest((tensor != 0).flatten().numpy(), shape, 4)
    assert choice.spelling == spelling
    assert choice.index < -(-tensor.numel() // math.prod(block)) / 8 + 8  # a bit for each block is more
    form = encode(tensor)
    assert form.block == block
    assert form.nbytes == encoded_bytes(tensor) == choice.bytes
    assert same_bits(decode(form), tensor)


def test_a_whole_row_takes_one_bit() -> None:
    tensor = torch.randn(64, 100) * (torch.arange(64) % 3 == 0)[:, None] + 0.0
    form = encode(tensor)
    assert form.index.numel() <= 8
    assert same_bits(decode(form), tensor)


def test_a_zero_inside_a_block_is_stored_and_does_not_undo_the_blocks() -> None:
    tensor = in_blocks((128, 96), (4, 1), 0.2)
    row, column = (int(part[0]) for part in tensor.nonzero(as_tuple=True))
    tensor[row, column] = 0
    form = encode(tensor)
    assert form.block == (4, 1)
    assert same_bits(decode(form), tensor)


def test_free_form_zeros_are_stored_as_before() -> None:
    assert encode(random_tensor(torch.float32, (100, 90), 0.1, 0)).block == (1, 1)


@pytest.mark.parametrize(("keep", "of"), [(2, 4), (1, 4), (4, 8), (1, 2), (3, 16)])
@pytest.mark.parametrize("shape", [(40, 64), (16, 32, 3, 3)])
def test_an_n_of_m_pattern_takes_the_bits_of_its_combinations(keep: int, of: int, shape: tuple[int, ...]) -> None:
    tensor = in_groups(shape, keep, of)
    form = encode(tensor)
    assert (form.encoding, form.keep, form.of) == ("n:m", keep, of)
    groups = tensor.numel() // of
    assert form.nbytes == -(-groups * bits_of(keep, of) // 8) + groups * keep * 4
    assert same_bits(decode(form), tensor)


def test_a_group_that_lost_more_than_the_pattern_asks_comes_back_with_all_its_zeros() -> None:
    tensor = in_groups((64, 64), 2, 4)
    tensor[0, :4] = 0
    tensor[1, 0:4] = torch.tensor([0, 0, -0.0, float("nan")])
    form = encode(tensor)
    assert form.encoding == "n:m"
    assert same_bits(decode(form), tensor)


@settings(max_examples=120, deadline=None)
@given(
    st.lists(st.integers(0, 17), min_size=2, max_size=4).map(tuple),
    st.tuples(st.integers(1, 9), st.integers(1, 9)),
    st.floats(0, 1),
    st.integers(0, 9),
    st.sampled_from([torch.float32, torch.bfloat16, torch.int8]),
)
def test_blocks_of_any_shape_round_trip_and_are_predicted(
    shape: tuple[int, ...], block: tuple[int, int], density: float, seed: int, dtype: torch.dtype
) -> None:
    shape = (shape[0] * 7, *shape[1:])
    tensor = (in_blocks(shape, block, density, seed) * 9).to(dtype)
    form = encode(tensor)
    assert same_bits(decode(form), tensor)
    nonzero = (tensor != 0) | (tensor.signbit() if dtype.is_floating_point else False)
    assert encoded_bytes_of_mask(nonzero, tensor.element_size()) == form.nbytes <= tensor.nbytes


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 9), st.integers(1, 9), st.integers(1, 5), st.integers(1, 5), st.integers(0, 99))
def test_positions_are_those_of_the_grid(rows: int, columns: int, high: int, wide: int, seed: int) -> None:
    matrix, block = (rows, columns), (min(high, rows), min(wide, columns))
    mask = np.random.default_rng(seed).random(matrix) < 0.3
    where = positions(np.flatnonzero(grid(mask, block)), matrix, block)
    covered = np.zeros(rows * columns, dtype=int)
    np.add.at(covered, where, 1)
    slow = np.zeros(matrix, dtype=int)
    for row in range(rows):
        for column in range(columns):
            top, left = row // block[0] * block[0], column // block[1] * block[1]
            slow[row, column] = mask[top : top + block[0], left : left + block[1]].any()
    assert (covered.reshape(matrix) == slow).all()


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 4), st.integers(1, 4), st.integers(1, 4), st.sampled_from([(1, 2), (2, 4), (3, 4), (5, 8)]))
def test_which_n_of_m_round_trips(rows: int, groups: int, taps: int, pattern: tuple[int, int]) -> None:
    keep, of = pattern
    shape = (rows, groups * of, taps)
    mask = (in_groups(shape, keep, of) != 0).flatten().numpy()
    code, where = pack(mask, shape, keep, of)
    assert sorted(where.tolist()) == np.flatnonzero(mask).tolist()
    assert (unpack(code, shape, keep, of) == where).all()
    with pytest.raises(InputError):
        unpack(np.concatenate([code, code]), shape, keep, of)


def test_a_number_beyond_the_combinations_is_refused() -> None:
    with pytest.raises(InputError, match="pattern number 7"):
        unpack(np.array([7], dtype=np.uint8), (1, 4), 2, 4)


def test_a_file_with_patterns_is_predicted_and_read_again(tmp_path) -> None:  # type: ignore[no-untyped-def]
    state = {
        "block": in_blocks((62, 40), (4, 1), 0.2),
        "n:m": in_groups((40, 64), 2, 4),
        "free": random_tensor(torch.float32, (50, 50), 0.1, 3),
    }
    report = save(state, tmp_path / "x")
    assert report.encodings == {"block": "gaps of 4x1 blocks", "n:m": "2:4", "free": "gaps"}
    assert (tmp_path / "x").stat().st_size == report.bytes == predicted_file_bytes(state)
    keep = {name: tensor != 0 for name, tensor in state.items() if name != "free"}
    assert predicted_file_bytes({**state, "block": torch.ones(62, 40)}, keep=keep) == report.bytes
    loaded, _ = load_state(tmp_path / "x")
    assert all(same_bits(loaded[name], state[name]) for name in state)


@pytest.mark.parametrize(
    "change",
    [
        {"block": [4, 2]},
        {"block": [0, 1]},
        {"block": [1000, 1]},
        {"block": [4]},
        {"block": "4x1"},
        {"block": [4.0, 1]},
        {"block": [2**40, 2**40]},
        {"count": 3},
        {"count": -1},
        {"count": None},
        {"shape": [64, 40]},
        {"shape": [2**40, 2**20]},
        {"encoding": "n:m", "keep": 2, "of": 4},
        {"encoding": "bitmask"},
    ],
)
def test_lies_about_blocks_are_refused(tmp_path, change) -> None:  # type: ignore[no-untyped-def]
    import json

    from test_storage_hostile import forged

    save({"w": in_blocks((62, 40), (4, 1), 0.2)}, tmp_path / "x")
    data = (tmp_path / "x").read_bytes()
    length = int.from_bytes(data[:8], "little")
    table = json.loads(data[8 : 8 + length])
    fields = json.loads(table.pop("__metadata__")["thresher"])["tensors"]["w"]
    (tmp_path / "x").write_bytes(forged(table, {"w": fields}, data[8 + length :], version=2))
    assert load_state(tmp_path / "x")[0]["w"].shape == (62, 40)
    (tmp_path / "x").write_bytes(forged(table, {"w": fields | change}, data[8 + length :], version=2))
    with pytest.raises(InputError):
        load_state(tmp_path / "x")


@pytest.mark.parametrize("change", [{"keep": 0}, {"keep": 4}, {"keep": 3}, {"of": 8}, {"of": 3}, {"of": 2**40}])
def test_lies_about_patterns_are_refused(tmp_path, change) -> None:  # type: ignore[no-untyped-def]
    import json

    from test_storage_hostile import forged

    save({"w": in_groups((40, 64), 2, 4)}, tmp_path / "x")
    data = (tmp_path / "x").read_bytes()
    length = int.from_bytes(data[:8], "little")
    table = json.loads(data[8 : 8 + length])
    fields = json.loads(table.pop("__metadata__")["thresher"])["tensors"]["w"]
    assert fields["encoding"] == "n:m"
    (tmp_path / "x").write_bytes(forged(table, {"w": fields | change}, data[8 + length :], version=2))
    with pytest.raises(InputError):
        load_state(tmp_path / "x")
