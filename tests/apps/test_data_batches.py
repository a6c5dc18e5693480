"""Claims about batches: order and augmentation depend on (seed, epoch, batch) alone."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from thresher.apps.data import ArrayData, Batches
from thresher.errors import InputError, StateError


def numbered(count=50):
    images = torch.randint(0, 256, (count, 3, 8, 8), generator=torch.Generator().manual_seed(0)).to(torch.uint8)
    return ArrayData(images, torch.arange(count))


def make(data=None, batch_size=8, **settings):
    chosen = {"train": True, "augment": "crop_flip", "mean": [0.5, 0.4, 0.3], "std": [0.2, 0.3, 0.4], "seed": 7}
    return Batches(data or numbered(), batch_size, **(chosen | settings))


def same(some, others):
    some, others = list(some), list(others)
    return len(some) == len(others) and all(
        torch.equal(x, u) and torch.equal(y, v) for (x, y), (u, v) in zip(some, others, strict=True)
    )


@given(stop=st.integers(0, 6), epoch=st.integers(0, 3), seed=st.integers(-5, 5))
@settings(max_examples=20, deadline=None)
def test_an_epoch_killed_at_any_batch_resumes_bit_for_bit(stop, epoch, seed):
    whole, killed, resumed = make(seed=seed), make(seed=seed), make(seed=seed)
    for batches in (whole, killed):
        batches.set_epoch(epoch)
    expected = list(whole) + list(whole)
    iterator = iter(killed)
    begun = [next(iterator) for _ in range(stop)]
    resumed.load_state_dict(killed.state_dict())
    resumed.set_epoch(resumed.epoch)
    assert same(begun + list(resumed) + list(resumed), expected)


def test_the_state_after_a_whole_epoch_starts_the_next_one():
    batches, later = make(), make()
    list(batches)
    later.load_state_dict(batches.state_dict())
    assert (later.epoch, later.start_batch) == (1, 0)
    assert same(later, batches)


def test_the_state_after_the_last_batch_but_inside_the_loop_yields_nothing_more_of_that_epoch():
    batches, later = make(), make()
    for _ in batches:
        state = batches.state_dict()
    later.load_state_dict(state)
    assert list(later) == []
    assert same(later, batches)


def test_a_look_at_the_first_batch_changes_nothing():
    batches = make()
    next(iter(batches))
    assert same(batches, make())


def test_order_and_augmentation_differ_between_epochs_and_seeds():
    first, again, other = make(), make(), make(seed=8)
    again.set_epoch(1)
    label_rows = [torch.cat([labels for _, labels in batches]).tolist() for batches in (first, again, other)]
    assert label_rows[0] != label_rows[1]
    assert label_rows[0] != label_rows[2]


def test_training_drops_the_last_part_and_repeats_nothing():
    seen = torch.cat([labels for _, labels in make()])
    assert len(make()) == 6
    assert len(seen) == len(seen.unique()) == 48


def test_evaluation_keeps_order_and_every_image_and_never_augments():
    data = numbered()
    batches = make(data, train=False)
    inputs = torch.cat([x for x, _ in batches])
    assert len(batches) == 7
    assert torch.equal(torch.cat([y for _, y in batches]), data.labels)
    mean, std = (torch.tensor(v).reshape(3, 1, 1) for v in ([0.5, 0.4, 0.3], [0.2, 0.3, 0.4]))
    torch.testing.assert_close(inputs, (data.images / 255 - mean) / std)
    assert same(batches, batches)


def test_inputs_are_float32_and_labels_int64():
    inputs, labels = next(iter(make()))
    assert (inputs.dtype, labels.dtype, inputs.shape) == (torch.float32, torch.int64, (8, 3, 8, 8))


@pytest.mark.parametrize("world_size", [2, 4])
def test_all_ranks_together_make_the_batches_of_one_process_augmentation_included(world_size):
    one = list(make())
    ranks = [list(make(batch_size=8 // world_size, rank=rank, world_size=world_size)) for rank in range(world_size)]
    for k, (inputs, labels) in enumerate(one):
        for rank, batches in enumerate(ranks):
            assert torch.equal(batches[k][0], inputs[rank::world_size])
            assert torch.equal(batches[k][1], labels[rank::world_size])


def test_ranks_share_out_evaluation_without_loss_or_repeat():
    data = numbered(11)
    parts = [list(make(data, batch_size=2, train=False, rank=rank, world_size=3)) for rank in range(3)]
    assert sorted(torch.cat([y for part in parts for _, y in part]).tolist()) == list(range(11))
    assert [len(part) for part in parts] == [2, 2, 2]


def test_two_processes_may_resume_as_one():
    one, half = make(), make(batch_size=4, world_size=2)
    iterator = iter(half)
    next(iterator)
    one.load_state_dict(half.state_dict())
    assert one.start_batch == 1


@pytest.mark.parametrize("change", [{"seed": 8}, {"batch_size": 10}, {"data": numbered(49)}, {"train": False}])
def test_a_state_of_another_run_is_refused_by_name(change):
    with pytest.raises(StateError, match=r"seed=7|whole_batch=8|count=50|train=True"):
        make(**change).load_state_dict(make().state_dict())


def test_a_state_without_its_place_is_refused():
    state = make().state_dict()
    del state["batch"]
    with pytest.raises(StateError, match="no epoch or batch"):
        make().load_state_dict(state)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"batch_size": 51}, "at least one whole batch"),
        ({"batch_size": 0}, "at least 1"),
        ({"batch_size": 26, "world_size": 2}, "for 50 images"),
        ({"mean": [0.5], "std": [0.5]}, "for 3 channel"),
        ({"std": [0.1, 0.0, 0.1]}, "std above 0"),
        ({"rank": 1}, "rank=1, world_size=1"),
        ({"world_size": 0}, "world_size=0"),
    ],
)
def test_settings_that_do_not_fit_are_refused(settings, message):
    with pytest.raises(InputError, match=message):
        make(**settings)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_gets_the_same_images():
    for (x, y), (u, v) in zip(make(), make(device="cuda"), strict=True):
        torch.testing.assert_close(x, u.cpu())
        assert torch.equal(y, v.cpu())


@pytest.mark.parametrize(
    ("images", "labels", "message"),
    [
        (torch.zeros(2, 1, 8, 8), torch.zeros(2, dtype=torch.int64), "uint8 images"),
        (torch.zeros(2, 8, 8, dtype=torch.uint8), torch.zeros(2, dtype=torch.int64), "uint8 images"),
        (torch.zeros(2, 1, 8, 8, dtype=torch.uint8), torch.zeros(3, dtype=torch.int64), "for 2 images"),
        (torch.zeros(2, 1, 8, 8, dtype=torch.uint8), torch.zeros(2), "int64 labels"),
    ],
)
def test_array_data_refuses_other_shapes_and_dtypes(images, labels, message):
    with pytest.raises(InputError, match=message):
        ArrayData(images, labels)
