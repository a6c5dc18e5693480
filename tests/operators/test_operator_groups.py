"""Claims about patterns: text, norms, numbering, N:M caps."""

import itertools
import math

import pytest
import torch

from thresher.errors import InputError
from thresher.operators import UNSTRUCTURED, hard_threshold, parse_groups, power_threshold, soft_threshold

SPELLINGS = ["weight", "2:4", "1:4", "block:4x1", "block:2x3", "row", "column", "kernel"]
SHAPES = [(8, 8), (4, 8, 3, 3), (5, 7), (5, 7, 3), (6, 1, 3, 3), (1, 4)]


def reference_groups(spelling, shape):
    """Group key of each entry, by the words of the specification and one entry at a time."""
    keys = {}
    for entry in itertools.product(*(range(n) for n in shape)):
        out, inp, *tap = entry
        if spelling == "weight":
            key = entry
        elif spelling == "row":
            key = out
        elif spelling == "column":
            key = inp
        elif spelling == "kernel":
            key = (out, inp)
        elif spelling.startswith("block"):
            rows, columns = map(int, spelling[6:].split("x"))
            flat = inp
            for size, position in zip(shape[2:], tap, strict=True):
                flat = flat * size + position
            key = (out // rows, flat // columns)
        else:
            key = (out, inp // int(spelling.split(":")[1]), *tap)
        keys.setdefault(key, []).append(entry)
    return list(keys.values())


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_spelling_reads_back_to_an_equal_pattern(spelling):
    groups = parse_groups(spelling)
    assert groups.spelling == spelling
    assert parse_groups(groups.spelling) == groups
    assert hash(parse_groups(spelling)) == hash(groups)


def test_channel_is_another_word_for_row():
    assert parse_groups("channel") == parse_groups("row")


def test_default_pattern_is_free_form():
    assert parse_groups("weight") == UNSTRUCTURED


@pytest.mark.parametrize("text", ["", "4:2", "4:4", "0:4", "block:0x1", "block:4", "rows", "2:4:8", "-1:4"])
def test_bad_text_is_refused_with_the_spellings(text):
    with pytest.raises(InputError, match="block:RxC"):
        parse_groups(text)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("spelling", SPELLINGS)
def test_index_numbers_the_groups_without_gaps(spelling, shape):
    index = parse_groups(spelling).index(torch.empty(shape))
    assert index.shape == shape
    assert index.dtype == torch.int64
    members = reference_groups(spelling, shape)
    assert sorted(index.unique().tolist()) == list(range(len(members)))
    for group in members:
        assert len({int(index[entry]) for entry in group}) == 1


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("spelling", SPELLINGS)
def test_sizes_count_the_entries_of_each_group(spelling, shape):
    groups, theta = parse_groups(spelling), torch.empty(shape)
    sizes = groups.sizes(theta)
    assert sizes.sum() == theta.numel()
    assert sorted(sizes.tolist()) == sorted(len(group) for group in reference_groups(spelling, shape))


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("spelling", SPELLINGS)
def test_magnitude_is_the_rms_of_the_real_entries_of_the_group(spelling, shape):
    theta = torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    magnitude = parse_groups(spelling).magnitude(theta)
    for group in reference_groups(spelling, shape):
        values = [float(theta[entry]) for entry in group]
        rms = math.sqrt(sum(v * v for v in values) / len(values))
        for entry, value in zip(group, values, strict=True):
            expected = abs(value) if ":" in spelling and "block" not in spelling else rms
            assert float(magnitude[entry]) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_magnitude_has_no_nan_gradient_at_zero(spelling):
    theta = torch.zeros(4, 8, 3, 3, requires_grad=True)
    parse_groups(spelling).magnitude(theta).sum().backward()
    assert theta.grad.isfinite().all()


@pytest.mark.parametrize("spelling", [s for s in SPELLINGS if s not in ("2:4", "1:4")])
def test_cap_is_the_threshold_where_nothing_must_survive(spelling):
    assert parse_groups(spelling).cap(torch.randn(4, 8), torch.tensor([0.3])).tolist() == torch.tensor([0.3]).tolist()


def test_fits_asks_n_of_m_for_a_divisible_input_axis():
    assert parse_groups("2:4").fits((3, 8, 3, 3))
    assert not parse_groups("2:4").fits((8, 6))
    assert not parse_groups("2:4").fits((8,))
    assert parse_groups("block:4x1").fits((5, 7))
    assert not parse_groups("row").fits((5,))


@pytest.mark.parametrize("operator", [soft_threshold, hard_threshold, power_threshold])
@pytest.mark.parametrize("spelling", ["2:4", "1:4", "3:8"])
@pytest.mark.parametrize("shape", [(3, 16), (2, 8, 3, 3)])
def test_n_of_m_keeps_exactly_n_once_the_threshold_is_large(operator, spelling, shape):
    keep, of = map(int, spelling.split(":"))
    theta = torch.randn(shape, generator=torch.Generator().manual_seed(1))
    w = operator(theta, torch.tensor([1e6]), groups=parse_groups(spelling))
    kept = (w != 0).unflatten(1, (-1, of)).sum(2)
    assert (kept == keep).all()
    largest = theta.abs().unflatten(1, (-1, of)).topk(keep, dim=2).values.amin(2, keepdim=True)
    assert ((w != 0) == (theta.abs().unflatten(1, (-1, of)) >= largest).reshape(shape)).all()


def test_n_of_m_prunes_nothing_below_its_threshold():
    theta = torch.tensor([[0.1, 0.9, 0.8, 0.7]])
    w = hard_threshold(theta, torch.tensor([0.5]), groups=parse_groups("2:4"))
    assert (w != 0).tolist() == [[False, True, True, True]]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_n_of_m_breaks_ties_by_pruning_the_lower_index(dtype):
    theta = torch.tensor([[0.5, -0.5, 0.5, 0.5]], dtype=dtype)
    w = hard_threshold(theta, torch.tensor([9.0]), groups=parse_groups("2:4"))
    assert w.tolist() == [[0, 0, 0.5, 0.5]]


def test_n_of_m_leaves_a_ragged_last_group_dense():
    theta = torch.randn(3, 10, generator=torch.Generator().manual_seed(2))
    w = hard_threshold(theta, torch.tensor([1e6]), groups=parse_groups("2:4"))
    assert torch.equal(w[:, 8:], theta[:, 8:])
    assert (w[:, :8] != 0).sum() == 3 * 4


@pytest.mark.parametrize("spelling", ["block:4x1", "block:2x3", "row", "column", "kernel"])
@pytest.mark.parametrize("shape", [(8, 6, 3, 3), (7, 5)])
def test_a_group_lives_or_dies_as_one(spelling, shape):
    theta = torch.randn(shape, generator=torch.Generator().manual_seed(3))
    groups = parse_groups(spelling)
    threshold = groups.magnitude(theta).median().reshape(1)
    for operator in (soft_threshold, hard_threshold, power_threshold):
        alive = operator(theta, threshold, groups=groups) != 0
        assert alive.any()
        assert not alive.all()
        for group in reference_groups(spelling, shape):
            assert len({bool(alive[entry]) for entry in group}) == 1


@pytest.mark.parametrize("spelling", SPELLINGS)
@pytest.mark.parametrize("shape", [(0, 8), (4, 0), (0, 8, 3, 3)])
def test_empty_tensors_pass(spelling, shape):
    theta = torch.zeros(shape, requires_grad=True)
    groups = parse_groups(spelling)
    w = soft_threshold(theta, torch.tensor([0.1]), groups=groups)
    w.sum().backward()
    assert w.shape == theta.shape == groups.index(theta).shape == theta.grad.shape
