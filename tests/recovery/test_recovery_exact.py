"""What saves time must not change numbers: shifted sums, prefixes of one factorisation, columns, walking in step."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from thresher.errors import InputError
from thresher.recovery import (
    Part,
    Problem,
    Sampled,
    gfs,
    gfs_sizes,
    ispasp,
    ispasp_sampled,
    refit_loss,
    refit_prefixes,
)
from thresher.recovery.columns import Columns
from thresher.recovery.lockstep import in_lockstep
from thresher.recovery.moments import SecondMoments, collect
from thresher.recovery.reading import hidden_rows
from thresher.recovery.shifts import ShiftedMoments, shiftable


@pytest.mark.parametrize(
    ("module", "shape"),
    [
        (nn.Conv2d(3, 2, 3, padding=1), (2, 3, 7, 6)),
        (nn.Conv2d(3, 2, 3), (2, 3, 7, 6)),
        (nn.Conv2d(3, 2, 3, padding=3), (2, 3, 4, 3)),
        (nn.Conv2d(3, 2, (3, 2), padding=(2, 0), dilation=(2, 1)), (2, 3, 7, 6)),
        (nn.Conv2d(3, 2, 5, padding=2), (2, 3, 2, 6)),
        (nn.Conv2d(3, 2, 5, padding=1), (2, 3, 3, 3)),
        (nn.Conv2d(3, 2, 3, padding=1), (1, 3, 1, 1)),
        (nn.Conv1d(3, 2, 4, padding=1, dilation=2), (2, 3, 9)),
    ],
    ids=str,
)
def test_shifted_sums_are_the_moments_of_the_unfolded_input(module: nn.Conv2d, shape: tuple[int, ...]) -> None:
    total, other, rows = ShiftedMoments(module), ShiftedMoments(module), []
    for wider in (0, 0, 2):
        inputs = torch.randn(*shape[:-1], shape[-1] + wider, dtype=torch.float64)
        rows.append(hidden_rows(module, inputs, torch.arange(3)))
        (other if wider else total).add(inputs)
    total.include(other)
    unfolded = torch.cat(rows)
    assert shiftable(module)
    assert torch.allclose(total.matrix(), unfolded.T @ unfolded, atol=1e-11)


def test_positions_are_counted_alike() -> None:
    module, inputs = nn.Conv2d(2, 1, 3, padding=1, dilation=2), torch.randn(3, 2, 8, 7)
    moments = SecondMoments(module, torch.arange(2))
    moments.add(inputs)
    assert moments.count == len(hidden_rows(module, inputs, torch.arange(2)))


def test_strides_and_other_paddings_are_unfolded() -> None:
    for module in (nn.Conv2d(1, 1, 3, stride=2), nn.Conv2d(1, 1, 1), nn.Conv2d(1, 1, 3, padding_mode="reflect")):
        assert not shiftable(module)


def test_symmetry_gives_what_a_large_product_leaves_out() -> None:
    rows = torch.randn(20, 600)
    moments = SecondMoments(nn.Linear(600, 1), torch.arange(600))
    moments.add(rows)
    assert torch.allclose(moments.result(), rows.double().T @ rows.double(), atol=1e-10)


def test_enough_ends_the_taking_in() -> None:
    moments = SecondMoments(nn.Linear(1, 1), torch.tensor([0]), enough=(3, 5))
    for _ in range(9):
        moments.add(torch.ones(2, 1))
    assert (moments.items, moments.count) == (6, 6)


def problem(units: int = 12, block: int = 2, readers: int = 2) -> Problem:
    noise = torch.Generator().manual_seed(3)
    parts = []
    for _ in range(readers):
        hidden = torch.randn(units * block, 90, generator=noise, dtype=torch.float64).relu()
        weight = torch.randn(5, units * block, generator=noise, dtype=torch.float64)
        parts.append(Part(moments=hidden @ hidden.T, weight=weight, block=block))
    return Problem(tuple(parts))


@pytest.mark.parametrize("kept", [0, 2, 6, 10, 12])
def test_importance_is_the_same_from_what_stays_and_from_what_goes(kept: int) -> None:
    found = problem()
    rest = found.rest(list(range(kept)))
    for part in found.parts:
        rows = part.rows(rest)
        left = part.factor[:, rows]
        direct = left @ part.moments[rows][:, rows] @ left.T
        assert torch.allclose(part.spread(rest), direct, atol=1e-9)


def test_strips_of_the_gram_add_up(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = problem().quadratic
    monkeypatch.setattr("thresher.recovery.problem.STRIP", 1)
    assert torch.allclose(problem().quadratic, whole)
    assert torch.allclose(whole, whole.T)


def test_every_prefix_of_one_factorisation_is_a_refit_of_its_own() -> None:
    found, order = problem(), [7, 0, 3, 11, 5]
    losses = refit_prefixes(found, order)
    for size, loss in enumerate(losses.tolist(), start=1):
        assert loss == pytest.approx(refit_loss(found, torch.tensor(sorted(order[:size]))), rel=1e-4)


def test_prefixes_of_dead_units_leave_everything() -> None:
    dead = Problem.of(torch.zeros(2, 2), torch.ones(1, 2))
    assert refit_prefixes(dead, [1]).tolist() == [0.0]


def test_one_run_of_forward_selection_serves_every_size() -> None:
    found = problem(block=1)
    together = gfs_sizes(found, [1, 4, 9, 12, 99])
    for size, each in together.items():
        alone = gfs(found, size)
        assert each.support.tolist() == alone.support.tolist()
        assert each.scale is not None
        assert alone.scale is not None
        assert torch.allclose(each.scale, alone.scale)
    assert gfs_sizes(found, []) == {}


def test_samples_of_blocks_and_several_readers_say_what_moments_say() -> None:
    noise = torch.Generator().manual_seed(1)
    hidden = [torch.randn(12, 40, generator=noise, dtype=torch.float64) for _ in range(2)]
    weights = [torch.randn(3, 12, generator=noise, dtype=torch.float64) for _ in range(2)]
    pairs = list(zip(hidden, weights, strict=True))
    sampled = [Sampled(hidden=values, weight=weight, block=2) for values, weight in pairs]
    moments = Problem(tuple(Part(moments=values @ values.T, weight=weight, block=2) for values, weight in pairs))
    for size in (1, 2, 5, 6):
        one, other = ispasp_sampled(sampled, size), ispasp(moments, size)
        assert one.support.tolist() == other.support.tolist()
        assert one.loss == pytest.approx(other.loss, abs=1e-8)
    exact = ispasp_sampled(sampled, 2, score="l1", hidden_score="l1", loss_of=moments.loss)
    assert exact.loss == moments.loss(exact.support)
    assert exact.energy == pytest.approx(moments.energy)


def test_columns_come_at_even_distances_and_never_too_many() -> None:
    layer = nn.Linear(1, 1)
    kept = Columns(layer, torch.tensor([0]), taps=True, most=4)
    for start in range(0, 100, 5):
        kept.add(torch.arange(start, start + 5.0)[:, None])
    values = kept.result().flatten()
    assert 4 <= len(values) <= 8
    assert set(values.diff().tolist()) == {16.0}
    few = Columns(layer, torch.tensor([0]), taps=True, most=4)
    few.add(torch.ones(3, 1))
    assert few.result().shape == (1, 3)
    with pytest.raises(InputError, match="at least one batch"):
        Columns(layer, torch.tensor([0]), taps=True, most=4).result()


def test_columns_leave_padding_out() -> None:
    kept = Columns(nn.Linear(1, 1), torch.tensor([0]), taps=True, most=9)
    kept.add(torch.arange(6.0).reshape(2, 3, 1), torch.tensor([[1, 1, 0], [1, 0, 0]]))
    assert kept.result().tolist() == [[0.0, 1.0, 3.0]]


def chain() -> tuple[nn.Sequential, list[Tensor]]:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 2)).train()
    return model, [torch.randn(size, 3) for size in (2, 5, 1)]


def test_batches_in_step_meet_what_was_decided_before() -> None:
    model, data = chain()
    given: dict[str, list[Tensor]] = {"2": [], "4": []}
    weight = model[2].weight.detach().clone()

    def decide(name: str) -> bool:
        assert len(given[name]) == 3  # all rest here
        with torch.no_grad():
            model.get_submodule(name).weight.zero_()
        return True

    in_lockstep(model, data, ["2", "4"], lambda name, inputs, mask: given[name].append(inputs), decide)
    assert model.training
    assert not model[2]._forward_pre_hooks
    later = torch.cat(given["4"])
    assert torch.allclose(later, model[2].bias.relu().expand_as(later))
    moments = SecondMoments(model[2], torch.arange(4))
    collect(model, data, {"2": moments})
    first = torch.cat(given["2"]).double()
    assert torch.allclose(moments.result(), first.T @ first, atol=1e-6)
    assert weight.abs().sum() > 0


def test_a_decision_can_end_the_walk() -> None:
    model, data = chain()
    asked: list[str] = []
    in_lockstep(model, data, ["2", "4"], lambda *_: None, lambda name: bool(asked.append(name)))
    assert asked == ["2"]


class Fork(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.many, self.one = nn.Linear(3, 1), nn.Linear(3, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.many(x) if len(x) > 1 else self.one(x)


def test_what_goes_wrong_on_the_way_is_told_and_nothing_hangs() -> None:
    model, data = chain()
    with pytest.raises(InputError, match="batch 2"):
        in_lockstep(model, [data[0], torch.ones(1, 7)], ["2"], lambda *_: None, lambda name: True)
    with pytest.raises(InputError, match="at the same time"):
        in_lockstep(Fork(), data, ["many"], lambda *_: None, lambda name: True)

    def wrong(name: str) -> bool:
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        in_lockstep(model, data, ["2"], lambda *_: None, wrong)
    assert not model[2]._forward_pre_hooks
