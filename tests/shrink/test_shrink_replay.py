"""Replaying gives what running gives, whatever the network does with what is remembered."""

import pytest
import torch
from torch import Tensor, nn

from thresher.shrinking.allocation.replaying import Replay, output_of


class Residual(nn.Module):
    """Works in place on what its layers give, calls one layer twice, and reads one weight in two layers."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.again, self.second = nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 4)
        self.act = nn.ReLU(inplace=True)
        self.third, self.last = nn.Linear(4, 4), nn.Linear(4, 4)
        self.last.weight = self.second.weight

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        x += self.again(self.act(self.again(x)))
        y = self.act(self.second(x))
        y *= 2
        return self.last(self.third(y) + x)


@pytest.mark.parametrize("name", ["first", "again", "second", "third", "last"])
def test_a_replayed_output_is_that_of_the_changed_model(name: str) -> None:
    torch.manual_seed(0)
    model, inputs = Residual(), torch.randn(5, 4)
    replay = Replay(model, inputs)
    for _ in range(3):  # what is remembered must not change by being used
        with torch.no_grad():
            model.get_submodule(name).weight.mul_(-0.7)
        assert torch.equal(replay.output([name]), output_of(model, inputs))
        assert not any("forward" in vars(module) for module in model.modules())


def test_what_comes_before_is_not_worked_out_again(monkeypatch: pytest.MonkeyPatch) -> None:
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.Conv2d(2, 2, 3), nn.Flatten(), nn.Linear(8, 2))
    replay = Replay(model, torch.randn(1, 1, 6, 6))
    calls = []
    for module in (model[0], model[2], model[4]):
        module._conv_forward = lambda *_, **__: pytest.fail("run again")  # type: ignore[assignment, method-assign]
    monkeypatch.setattr(nn.functional, "linear", lambda *args: calls.append(1) or torch.zeros(1, 2))
    replay.output(["4"])
    assert calls == [1]


def test_a_forward_that_somebody_put_on_a_layer_stays_there() -> None:
    model, inputs = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 2)), torch.randn(2, 3)
    model[0].forward = put = lambda x: 2 * x  # as libraries that move layers between devices do
    replay = Replay(model, inputs)
    assert torch.equal(replay.output(["1"]), output_of(model, inputs))
    assert vars(model[0])["forward"] is put
