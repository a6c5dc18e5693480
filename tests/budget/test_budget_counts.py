"""Output positions against torch's own count of floating point operations, layer by layer."""

import copy

import pytest
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from thresher.budget.counts import PositionCounter, count_positions, counted_weights, kept_count
from thresher.errors import InputError


class Shared(nn.Module):
    """One layer, applied three times."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(6, 6)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(self.layer(self.layer(x)))


class Named(nn.Module):
    """Takes keyword arguments only."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(6, 2)

    def forward(self, *, inputs: Tensor) -> Tensor:
        return self.layer(inputs)


def macs(model: nn.Module, example: object) -> float:
    positions = count_positions(model, example)
    weights = counted_weights(model)
    return sum(share * getattr(*weights[name]).numel() for name, share in positions.items())


def reference(model: nn.Module, example: Tensor) -> float:
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model.eval()(example)
    return counter.get_total_flops() / 2 / len(example)


@pytest.mark.parametrize(
    ("model", "shape"),
    [
        (nn.Linear(6, 3), (5, 6)),
        (nn.Linear(6, 3), (5, 7, 6)),
        (nn.Conv1d(3, 4, 3, stride=2), (5, 3, 11)),
        (nn.Conv2d(3, 4, 3, padding=1), (5, 3, 8, 8)),
        (nn.Conv2d(3, 4, 3, stride=2, dilation=2), (2, 3, 12, 9)),
        (nn.Conv2d(4, 8, 3, groups=2), (2, 4, 8, 8)),
        (nn.Conv2d(4, 4, 3, groups=4), (2, 4, 8, 8)),
        (nn.Conv3d(2, 3, 2), (2, 2, 4, 5, 6)),
        (nn.ConvTranspose2d(3, 5, 4, stride=2), (2, 3, 6, 6)),
        (Shared(), (4, 6)),
        (nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(144, 3)), (2, 1, 8, 8)),
    ],
)
def test_multiply_adds_are_half_the_flops_that_torch_counts(model: nn.Module, shape: tuple[int, ...]) -> None:
    example = torch.randn(shape)
    assert macs(model, example) == pytest.approx(reference(model, example), rel=1e-12)


def test_attention_counts_its_projections() -> None:
    layer = nn.TransformerEncoderLayer(8, 2, dim_feedforward=16, batch_first=True)
    positions = count_positions(layer, torch.randn(3, 5, 8))
    assert set(positions.values()) == {5.0}
    assert macs(layer, torch.randn(3, 5, 8)) == 5 * (3 * 8 * 8 + 8 * 8 + 2 * 8 * 16)


def test_a_recurrent_layer_counts_every_step() -> None:
    layer = nn.LSTM(4, 6, batch_first=True, bidirectional=True)
    assert macs(layer, torch.randn(3, 5, 4)) == 5 * 2 * (24 * 4 + 24 * 6)


def test_the_batch_does_not_count() -> None:
    model = nn.Conv2d(1, 2, 3)
    assert count_positions(model, torch.zeros(1, 1, 8, 8)) == count_positions(model, torch.zeros(9, 1, 8, 8))


def test_layers_that_never_run_have_no_positions() -> None:
    model = nn.ModuleDict({"used": nn.Linear(2, 2), "idle": nn.Linear(2, 2)})
    model.forward = lambda x: model["used"](x)  # type: ignore[method-assign]
    assert count_positions(model, torch.zeros(1, 2)) == {"used.weight": 1.0}


def test_examples_may_be_tuples_or_keywords() -> None:
    assert count_positions(Named(), {"inputs": torch.zeros(3, 6)}) == {"layer.weight": 1.0}
    assert count_positions(nn.Bilinear(2, 2, 2), (torch.zeros(3, 2), torch.zeros(3, 2))) == {}


def test_counting_leaves_the_model_as_it_was() -> None:
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Dropout(0.5))
    model[2].eval()
    before = copy.deepcopy(model.state_dict())
    state = torch.get_rng_state()
    count_positions(model, torch.randn(4, 1, 8, 8, generator=torch.Generator().manual_seed(0)))
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert [module.training for module in model] == [True, True, False]
    assert torch.equal(torch.get_rng_state(), state)
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


def test_an_example_that_does_not_fit_is_named() -> None:
    with pytest.raises(InputError, match=r"shape \(2, 5\) on which the model fails"):
        count_positions(nn.Linear(6, 2), torch.zeros(2, 5))


def test_a_deep_copy_counts_into_its_own_counter() -> None:
    model = nn.Sequential(nn.Linear(3, 3))
    counter = PositionCounter(model)
    twin = copy.deepcopy(model)
    model(torch.zeros(2, 3))
    twin(torch.zeros(2, 3))
    assert counter.positions == {"0.weight": 1.0}
    counter.close()


def test_the_last_forward_pass_counts_when_gradients_accumulate() -> None:
    model = nn.Sequential(nn.Linear(3, 3))
    counter = PositionCounter(model)
    for _ in range(3):
        model(torch.zeros(2, 3))
    assert counter.positions == {"0.weight": 1.0}
    counter.close()


@pytest.mark.parametrize(("sparsity", "entries", "kept"), [(0.0, 7, 7), (1.0, 7, 0), (0.29, 100, 71), (0.9, 192, 20)])
def test_kept_is_all_but_the_floor(sparsity: float, entries: int, kept: int) -> None:
    assert kept_count(sparsity, entries) == kept
