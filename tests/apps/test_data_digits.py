"""Claims about the embedded digits, limits and statistics."""

import numpy as np
import pytest
import torch

from thresher.apps.data import load_data
from thresher.apps.data.digits import load_digits
from thresher.apps.data.listing import spread
from thresher.apps.data.split import channel_statistics
from thresher.errors import InputError


def failure(name, **settings):
    with pytest.raises(InputError) as caught:
        load_data(str(name), **settings)
    return caught.value


def test_digits_are_always_the_same_stratified_split():
    data, again = load_data("digits"), load_data("digits")
    assert (len(data.train), len(data.test), data.input_shape) == (1437, 360, (1, 8, 8))
    assert torch.equal(data.test.images, again.test.images)
    assert data.test.labels.bincount().tolist() == [36, 36, 36, 36, 37, 36, 36, 36, 35, 36]
    assert int(data.test.images.long().sum()) == 1803094
    assert (data.train.images.max(), data.train.images.dtype) == (255, torch.uint8)
    assert data.classes == tuple("0123456789")


def test_digits_of_the_two_parts_are_all_the_digits():
    train, test = load_digits()
    counts = train.labels.bincount() + test.labels.bincount()
    assert counts.tolist() == [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]


def test_a_limit_keeps_every_class_and_the_normalisation_of_digits():
    data = load_data("digits", limit=50)
    assert (len(data.train), len(data.test)) == (50, 50)
    assert data.train.labels.bincount().tolist() == [5, 6, 4, 6, 5, 5, 5, 5, 4, 5]
    assert data.mean == load_data("digits").mean


@pytest.mark.parametrize("limit", [0, -1])
def test_a_limit_below_one_is_refused(limit):
    assert f"limit={limit}" in failure("digits", limit=limit).given


def test_a_limit_survives_labels_that_repeat_in_step():
    rows = spread(np.arange(1000) % 10, 100)
    assert np.bincount(rows % 10).tolist() == [10] * 10


def test_channel_statistics_equal_those_of_one_float_array():
    images = torch.randint(0, 256, (9000, 2, 3, 3), generator=torch.Generator().manual_seed(0)).to(torch.uint8)
    mean, std = channel_statistics(images)
    values = images.double() / 255
    assert mean == pytest.approx(values.mean((0, 2, 3)).tolist())
    assert std == pytest.approx(values.std((0, 2, 3), unbiased=False).tolist())
