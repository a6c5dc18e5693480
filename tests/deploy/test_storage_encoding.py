"""Claims about one tensor's stored form: bit for bit, as small as said, and never larger than dense."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from thresher.deploy.storage import encoded_bytes, encoded_bytes_of_mask
from thresher.deploy.storage.choosing import HEADER_COST
from thresher.deploy.storage.encoding import Encoded, decode, encode, raw
from thresher.deploy.storage.gaps import gaps_of, pack, rice_size, unpack
from thresher.deploy.storage.header import DTYPES
from thresher.errors import InputError

ALL = sorted(DTYPES.values(), key=str)


def random_tensor(dtype: torch.dtype, shape: tuple[int, ...], density: float, seed: int, block: int = 1) -> Tensor:
    """Random bits (NaN, infinities and negative zeros among them) where a random mask, in runs of `block`, says so."""
    source = torch.Generator().manual_seed(seed)
    numel = math.prod(shape)
    keep = torch.rand(-(-numel // block), generator=source).repeat_interleave(block)[:numel] < density
    if dtype == torch.bool:
        return keep.view(shape)
    bits = torch.randint(0, 256, (numel, dtype.itemsize), dtype=torch.uint8, generator=source)
    return torch.where(keep[:, None], bits, 0).view(-1).view(dtype).view(shape)


def same_bits(a: Tensor, b: Tensor) -> bool:
    def raw(t: Tensor) -> Tensor:
        return t.reshape(-1).clone().view(torch.uint8) if t.numel() else torch.empty(0)

    return a.dtype == b.dtype and a.shape == b.shape and torch.equal(raw(a), raw(b))


shapes = st.one_of(
    st.lists(st.integers(0, 9), max_size=4).map(tuple),
    st.tuples(st.integers(0, 5000)),
    st.tuples(st.integers(0, 70), st.integers(0, 70)),
)


@settings(max_examples=150, deadline=None)
@given(
    st.sampled_from(ALL),
    shapes,
    st.sampled_from([0, 0.001, 0.02, 0.1, 0.3, 0.5, 0.9, 1]),
    st.integers(0, 99),
    st.sampled_from([1, 40]),
)
def test_decode_undoes_encode_bit_for_bit(
    dtype: torch.dtype, shape: tuple[int, ...], density: float, seed: int, block: int
) -> None:
    tensor = random_tensor(dtype, shape, density, seed, block)
    form = encode(tensor)
    assert same_bits(decode(form), tensor)
    assert form.nbytes == encoded_bytes(tensor) <= tensor.nbytes
    nonzero = (raw(tensor).view(tensor.numel(), dtype.itemsize) != 0).any(1).view(shape)
    assert encoded_bytes_of_mask(nonzero, dtype.itemsize) == form.nbytes


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 3000), st.floats(0, 1), st.integers(0, 99), st.sampled_from([1, 30]))
def test_the_choice_is_the_smallest_of_the_three_by_exhaustive_comparison(
    numel: int, density: float, seed: int, block: int
) -> None:
    mask = random_tensor(torch.bool, (numel,), density, seed, block)
    nnz, gaps = int(mask.sum()), gaps_of(mask.numpy())
    for itemsize in (1, 2, 4, 8):
        sparse = [-(-numel // 8)] + [pack(gaps, width).size for width in range(14)] * (2 * nnz < numel)
        smallest = min(sparse) + nnz * itemsize
        expected = smallest if smallest < numel * itemsize - HEADER_COST else numel * itemsize
        # The best width is found in bits; whole bytes for each half can make another width one byte shorter.
        assert (
            encoded_bytes_of_mask(mask, itemsize) - expected in (0, 1) or expected + 1 >= numel * itemsize - HEADER_COST
        )


@settings(max_examples=80, deadline=None)
@given(st.lists(st.integers(0, 400), max_size=60), st.integers(0, 9))
def test_gap_code_round_trips_at_every_width(gaps: list[int], width: int) -> None:
    array = torch.tensor(gaps, dtype=torch.int64).numpy()
    code = pack(array, width)
    indices = (torch.tensor([g + 1 for g in gaps], dtype=torch.int64).cumsum(0) - 1).tolist()
    numel = (indices[-1] if indices else 0) + 1
    assert unpack(code, count=len(gaps), width=width, numel=numel).tolist() == indices
    if indices:
        with pytest.raises(InputError):
            unpack(code, count=len(gaps), width=width, numel=numel - 1)
    best, size = rice_size(array)
    assert size == pack(array, best).size


def test_negative_zero_and_nan_payloads_survive() -> None:
    bits = torch.zeros(4000, dtype=torch.int32)
    bits[17], bits[18], bits[3999] = -(2**31), 0x7FC12345, -1  # -0.0, a NaN with a payload, another NaN
    tensor = bits.view(torch.float32)
    form = encode(tensor)
    assert form.encoding == "gaps"
    assert form.values.numel() == 3
    assert torch.equal(decode(form).view(torch.int32), bits)


def test_all_zero_tensor_takes_no_payload() -> None:
    form = encode(torch.zeros(300, 300))
    assert form.nbytes == 0
    assert torch.equal(decode(form), torch.zeros(300, 300))


@pytest.mark.parametrize("tensor", [torch.tensor(0.0), torch.zeros(0), torch.zeros(3, 0, 2), torch.zeros(8)])
def test_tiny_tensors_stay_dense(tensor: Tensor) -> None:
    assert encode(tensor).encoding == "dense"


def test_non_contiguous_tensors_are_stored_in_logical_order() -> None:
    tensor = random_tensor(torch.float32, (60, 50), 0.1, 1).t()
    assert same_bits(decode(encode(tensor)), tensor)


def test_half_of_the_weights_take_a_bit_each_to_place() -> None:
    mask = torch.arange(80_000) % 2 == 0
    assert encoded_bytes_of_mask(mask, 4) == 80_000 // 8 + 4 * 40_000


@pytest.mark.parametrize(
    ("zeros", "bits"), [(0.80, 3.61), (0.90, 4.69), (0.95, 5.73), (0.98, 7.07)]
)  # entropy of a random mask in bits per nonzero
def test_two_million_weights_cost_four_bytes_and_nearly_the_entropy_per_nonzero(zeros: float, bits: float) -> None:
    mask = torch.rand(2_000_000, generator=torch.Generator().manual_seed(0)) >= zeros
    nnz = int(mask.sum())
    size = encoded_bytes_of_mask(mask, 4)
    assert size < 2_000_000 // 8 + 4 * nnz  # the bitmask form
    assert 0.99 * bits < 8 * (size / nnz - 4) < 1.03 * bits


def test_two_million_bfloat16_weights_with_ninety_percent_zeros_fill_thirteen_percent_of_the_dense_bytes() -> None:
    mask = torch.rand(2_000_000, generator=torch.Generator().manual_seed(0)) >= 0.9
    assert encoded_bytes_of_mask(mask, 2) / 4_000_000 == pytest.approx(0.1297, abs=0.001)


@pytest.mark.parametrize(
    "tensor",
    [
        torch.eye(3).to_sparse(),
        torch.empty(3, device="meta"),
        torch.zeros(3, dtype=torch.complex128),
    ],
)
def test_what_a_file_cannot_hold_is_refused(tensor: Tensor) -> None:
    with pytest.raises(InputError):
        encode(tensor)


def test_a_mask_must_be_boolean_and_the_itemsize_known() -> None:
    with pytest.raises(InputError):
        encoded_bytes_of_mask(torch.ones(3), 4)
    with pytest.raises(InputError):
        encoded_bytes_of_mask(torch.ones(3, dtype=torch.bool), 3)


@settings(max_examples=150, deadline=None)
@given(
    st.sampled_from(["bitmask", "gaps"]),
    st.binary(max_size=40),
    st.integers(0, 40),
    st.integers(-3, 70),
    st.lists(st.integers(0, 60), max_size=3),
)
def test_forms_that_do_not_fit_together_are_refused_not_crashed_on(
    encoding: str, index: bytes, count: int, width: int, shape: list[int]
) -> None:
    form = Encoded(
        encoding=encoding,
        shape=tuple(shape),
        width=width,
        index=torch.tensor(list(index), dtype=torch.uint8),
        values=torch.ones(count),
    )
    try:
        tensor = decode(form)
    except InputError:
        return
    assert list(tensor.shape) == shape
    assert int((tensor != 0).sum()) == count
