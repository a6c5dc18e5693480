"""Claims about augmentation: compared with a slow loop, one image at a time."""

import pytest
import torch

from thresher.apps.data import Augment, augment_names, augmentation
from thresher.apps.data.augment import DRAWS, crop_flip, none, shift
from thresher.errors import InputError


def slow(images, draws, pad, flip):
    out = torch.zeros_like(images)
    count, _, height, width = images.shape
    for n in range(count):
        down, right = (int(draws[n, k].item() * (2 * pad + 1)) - pad for k in range(2))
        for i in range(height):
            for j in range(width):
                column = width - 1 - j if flip and draws[n, 2] >= 0.5 else j
                y, x = i + down, column + right
                if 0 <= y < height and 0 <= x < width:
                    out[n, :, i, j] = images[n, :, y, x]
    return out


@pytest.fixture
def images():
    return torch.randint(1, 256, (24, 3, 9, 7), generator=torch.Generator().manual_seed(1)).to(torch.uint8)


@pytest.fixture
def draws():
    return torch.rand(24, DRAWS, generator=torch.Generator().manual_seed(2))


def test_crop_flip_equals_a_slow_loop(images, draws):
    assert torch.equal(crop_flip(images, draws), slow(images, draws, pad=4, flip=True))


def test_shift_equals_a_slow_loop_and_never_mirrors(images, draws):
    assert torch.equal(shift(images, draws), slow(images, draws, pad=1, flip=False))


def test_shift_moves_mnist_by_up_to_two_pixels():
    image = torch.zeros(2, 1, 28, 28, dtype=torch.uint8)
    image[:, :, 14, 14] = 255
    moved = shift(image, torch.tensor([[0.0, 0.0, 0.0], [1 - 2**-24, 1 - 2**-24, 0.0]]))
    assert moved.nonzero()[:, 2:].tolist() == [[16, 16], [12, 12]]


def test_the_middle_draw_without_mirror_is_identity(images):
    assert torch.equal(crop_flip(images, torch.tensor([[0.5, 0.5, 0.1]] * 24)), images)


def test_a_draw_just_below_one_stays_inside(images):
    crop_flip(images, torch.full((24, DRAWS), 1 - 2**-24))


@pytest.mark.parametrize("name", augment_names())
def test_every_augmentation_keeps_shape_and_dtype_also_of_no_images(name, images, draws):
    apply: Augment = augmentation(name)
    changed = apply(images, draws)
    assert (changed.shape, changed.dtype) == (images.shape, torch.uint8)
    assert apply(images[:0], draws[:0]).shape == images[:0].shape


def test_none_returns_the_images_themselves(images, draws):
    assert none(images, draws) is images


def test_a_function_is_its_own_augmentation():
    def black(images, draws):
        return images * 0

    assert augmentation(black) is black


def test_an_unknown_name_is_answered_with_a_close_one():
    with pytest.raises(InputError) as caught:
        augmentation("cropflip")
    assert "crop_flip, none, shift" in caught.value.expected
    assert "'crop_flip'" in caught.value.do
