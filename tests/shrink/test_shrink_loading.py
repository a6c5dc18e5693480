"""Claims about `thresher.load`: a shrunk model is rebuilt from its file and any dense model of its class."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

import thresher
from thresher.errors import InputError


def dense(seed: int = 0, hidden: int = 24) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(3, hidden, 3),
        nn.BatchNorm2d(hidden),
        nn.ReLU(),
        nn.Conv2d(hidden, 8, 3),
        nn.Flatten(),
        nn.LazyLinear(4),
    )


def built(seed: int = 0, hidden: int = 24) -> nn.Module:
    model = dense(seed, hidden)
    model(torch.randn(2, 3, 8, 8))
    return model.eval()


@pytest.fixture
def shrunk() -> thresher.Shrunk:
    return thresher.shrink_plan(built(), "l1", "params=60%", calibration=[torch.randn(8, 3, 8, 8)])


def test_a_shrunk_model_comes_back_from_its_plan_with_equal_outputs(shrunk: thresher.Shrunk, tmp_path: Path) -> None:
    thresher.save(shrunk.model, tmp_path / "x", plan=shrunk.plan)
    other = built(seed=5)
    before = {name: tensor.clone() for name, tensor in other.state_dict().items()}
    small = thresher.load(tmp_path / "x", other)
    x = torch.randn(3, 3, 8, 8)
    assert small is not other
    assert small[0].out_channels < 24
    assert torch.equal(small(x), shrunk.model.eval()(x))
    assert all(torch.equal(tensor, before[name]) for name, tensor in other.state_dict().items())


def test_a_model_that_is_small_already_is_filled_in_place(shrunk: thresher.Shrunk, tmp_path: Path) -> None:
    thresher.save(shrunk.model, tmp_path / "x", plan=shrunk.plan)
    again = shrunk.plan.apply(built(seed=5))
    assert thresher.load(tmp_path / "x", again) is again
    assert torch.equal(again[0].weight, shrunk.model[0].weight)


def test_a_shrunk_and_rounded_file_with_zeros_is_rebuilt(shrunk: thresher.Shrunk, tmp_path: Path) -> None:
    thresher.prune(shrunk.model, None, "magnitude", "sparsity=80%").finish()
    thresher.save(shrunk.model, tmp_path / "x", plan=shrunk.plan.to_json(), dtype=torch.bfloat16)
    small = thresher.load(tmp_path / "x", built(seed=5))
    assert torch.equal(small[3].weight, shrunk.model[3].weight.bfloat16().float())


def test_a_file_without_a_plan_does_not_fit_a_larger_model(shrunk: thresher.Shrunk, tmp_path: Path) -> None:
    thresher.save(shrunk.model, tmp_path / "x")
    with pytest.raises(InputError, match="shape"):
        thresher.load(tmp_path / "x", built())


def test_a_plan_for_another_model_is_refused_and_names_the_file(shrunk: thresher.Shrunk, tmp_path: Path) -> None:
    thresher.save(shrunk.model, tmp_path / "x", plan=shrunk.plan)
    with pytest.raises(InputError, match=r"plan in .*x"):
        thresher.load(tmp_path / "x", built(hidden=32))
    with pytest.raises(InputError, match=r"plan in .*x"):
        thresher.load(tmp_path / "x", nn.Linear(2, 2))


def test_a_plan_that_lies_is_refused(shrunk: thresher.Shrunk, tmp_path: Path) -> None:
    record = {**shrunk.plan.to_dict(), "version": 9}
    thresher.save(shrunk.model, tmp_path / "x", plan=record)
    with pytest.raises(InputError, match="another version"):
        thresher.load(tmp_path / "x", built())
