"""Layers timed in the engine: what is measured, and that it is measured once. No time itself is asserted."""

from pathlib import Path

import pytest
import torch
from torch import nn

import thresher.deploy.times.clock as clock_module
from thresher.deploy.times import ZEROS, EngineClock, LayerCase
from thresher.errors import InputError

pytestmark = pytest.mark.usefixtures("engine_library")

CASES = (
    LayerCase("linear", (24, 16), (1, 16)),
    LayerCase("linear", (24, 16), (2, 5, 16), block=(4, 1)),
    LayerCase("conv2d", (8, 4, 3, 3), (2, 4, 9, 9), (2, 2), (1, 1), (1, 1)),
    LayerCase("conv2d", (8, 1, 3, 3), (1, 8, 9, 9), (1, 1), "same", (1, 1), 8),
    LayerCase("conv1d", (8, 4, 3), (1, 4, 20), (1,), (1,), (1,)),
)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.key)
def test_a_layer_is_measured_once_on_a_machine(
    case: LayerCase, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("thresher.deploy.times.layer.LIMIT", 0.02)
    first = EngineClock(1, tmp_path).layer(case)
    assert tuple(first) == ZEROS
    assert all(seconds > 0 for seconds in first.values())
    monkeypatch.setattr(clock_module, "seconds_by_zeros", lambda *_: pytest.fail("measured again"))
    assert EngineClock(1, tmp_path).layer(case) == first
    with pytest.raises(pytest.fail.Exception, match="measured again"):
        EngineClock(2, tmp_path).layer(case)  # other threads, other times


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.key)
def test_masks_have_the_zeros_and_the_blocks_that_are_asked(case: LayerCase) -> None:
    generator = torch.Generator().manual_seed(0)
    for zeros in ZEROS:
        mask = case.mask(zeros, generator)
        assert mask.shape == case.shape
        high, wide = case.block
        flat = mask.flatten(1)
        blocks = flat.reshape(len(flat) // high, high, -1, wide)
        assert bool((blocks == blocks[:, :1, :, :1]).all())
        assert int((~mask).sum()) == high * wide * round(zeros * mask.numel() / (high * wide))


def test_keys_tell_layers_apart() -> None:
    assert len({case.key for case in CASES}) == len(CASES)


def test_a_whole_network_is_timed_as_it_is(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Linear(8, 8), nn.ReLU()).train()
    assert EngineClock(1, tmp_path).network(model, torch.randn(2, 8)) > 0
    assert model.training


def test_without_the_library_the_reason_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    from thresher.deploy.engine.library import Native

    monkeypatch.setattr(clock_module, "native", lambda: Native(None, "no compiler here"))
    with pytest.raises(InputError, match="no compiler here"):
        EngineClock()
