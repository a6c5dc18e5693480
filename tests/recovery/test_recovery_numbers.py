"""The worked example, done by hand, and the corners of sparse recovery."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from thresher.errors import InputError, NumericsError
from thresher.recovery import (
    Part,
    Problem,
    gfs,
    greedy,
    ispasp,
    ispasp_samples,
    omp,
    refit,
    refit_loss,
    residual_curve,
)

H = torch.tensor(
    [[4, 0, 2], [0, 3, 0], [1, 1, 1], [0, 0, 5], [2, 2, 0], [1, 0, 0]], dtype=torch.float64
)  # 6 units, 3 samples
W = torch.tensor([[1, 0, 2, 0, -1, 3], [0, 2, -1, 0.1, 1, 0]], dtype=torch.float64)
EXAMPLE = Problem.of(H @ H.T, W)


def near(values: list[float], tolerance: float = 1e-9) -> object:
    return pytest.approx(values, abs=tolerance)


def test_energy_and_hidden_sizes() -> None:
    assert EXAMPLE.energy == near(57.625)
    assert EXAMPLE.sizes.tolist() == near([4.472136, 3, 1.732051, 5, 2.828427, 1], 1e-6)


def test_importance_before_and_after_the_first_iteration() -> None:
    first = [8.062258, 14.177447, 17.036725, 0.708872, 10.259142, 24.186773]
    second = [10.049876, 3, 21.406775, 0.15, 11.368817, 30.149627]
    assert EXAMPLE.importance([]).tolist() == near(first, 1e-6)
    assert EXAMPLE.importance([1, 4]).tolist() == near(second, 1e-6)


@pytest.mark.parametrize("problem", [EXAMPLE, Problem.from_gram(H @ H.T, W.T @ W)], ids=["weight", "gram"])
def test_two_units(problem: Problem) -> None:
    found = ispasp(problem, 2)
    assert found.support.tolist() == [0, 1]
    assert list(found.losses) == near([51.625, 7.625, 7.625])
    assert found.loss == near(7.625)
    assert found.relative == near(7.625 / 57.625)


@pytest.mark.parametrize(("size", "support", "loss"), [(1, [1], 33.625), (3, [0, 1, 3], 8.0), (4, [0, 1, 3, 4], 18.0)])
def test_other_sizes_are_not_monotone(size: int, support: list[int], loss: float) -> None:
    found = ispasp(EXAMPLE, size)
    assert found.support.tolist() == support
    assert found.loss == near(loss)


def test_curve_is_the_loss_of_every_size() -> None:
    assert list(residual_curve(EXAMPLE, [1, 2, 3, 4, 6]).values()) == near([33.625, 7.625, 8.0, 18.0, 0.0])


def test_other_scores() -> None:
    signed = ispasp_samples(H, W, 2, score="sum", hidden_score="sum")
    absolute = ispasp_samples(H, W, 2, score="l1", hidden_score="l1")
    assert (signed.support.tolist(), signed.loss) == ([0, 1], near(7.625))
    assert (absolute.support.tolist(), absolute.loss) == ([0, 4], near(29.625))


def test_refit() -> None:
    pair = torch.tensor([0, 1])
    exact = refit(EXAMPLE.parts[0], pair, ridge=0.0)
    assert exact.flatten().tolist() == near([1.8, 0, 0.15, 7 / 3])
    assert refit_loss(EXAMPLE, pair, ridge=0.0) == near(0.5)
    assert refit_loss(EXAMPLE, torch.tensor([0, 4]), ridge=0.0) == near(13 / 6)
    assert refit_loss(EXAMPLE, pair) == near(0.5, 1e-6)


def test_gfs_picks_and_losses() -> None:
    found = gfs(EXAMPLE, 6, steps=7)
    assert list(found.losses) == near([63.625, 37, 22.625, 8.40625, 7.705, 8.125, 1.2984693878])
    counts = {3: 2, 5: 1, 1: 1, 2: 1, 0: 1, 4: 1}
    assert found.scale is not None
    assert found.scale.tolist() == near([6 * counts[unit] / 7 for unit in range(6)])


def test_gfs_stops_at_distinct_units() -> None:
    found = gfs(EXAMPLE, 3)
    assert found.support.tolist() == [1, 3, 5]
    assert len(found.losses) == 3


def test_gfs_that_only_repeats_is_cut_off() -> None:
    # Twins: the first alone gives the mean exactly, so ties keep choosing it. After 10 N picks the other one has to.
    found = gfs(Problem.of(torch.ones(2, 2), torch.ones(1, 2)), 2)
    assert found.support.tolist() == [0, 1]
    assert len(found.losses) == 21


def test_plain_greedy_and_omp() -> None:
    plain, pursuit = greedy(EXAMPLE, 3), omp(EXAMPLE, 3)
    assert (plain.support.tolist(), list(plain.losses)) == ([0, 1, 5], near([31.625, 7.625, 3.125]))
    assert (pursuit.support.tolist(), list(pursuit.losses)) == ([0, 1, 3], near([25, 0.5, 0]))


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("outputs", [3, 30])
def test_moments_say_the_same_as_samples(seed: int, outputs: int) -> None:
    noise = torch.Generator().manual_seed(seed)
    hidden = torch.randn(12, 40, generator=noise, dtype=torch.float64).relu()
    weight = torch.randn(outputs, 12, generator=noise, dtype=torch.float64)
    problem = Problem.of(hidden @ hidden.T, weight)
    for size in (1, 3, 5, 8, 12):
        exact, moments = ispasp_samples(hidden, weight, size), ispasp(problem, size)
        assert moments.support.tolist() == exact.support.tolist()
        assert list(moments.losses) == near(list(exact.losses), 1e-8)
        direct = (weight @ hidden - weight[:, moments.support] @ hidden[moments.support]).square().sum() / 2
        assert moments.loss == near(float(direct), 1e-8)


def test_omp_is_the_refit_of_its_support_with_blocks_and_parts() -> None:
    hidden = torch.randn(12, 50, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    weights = [torch.randn(4, 12, dtype=torch.float64, generator=torch.Generator().manual_seed(n)) for n in (1, 2)]
    parts = tuple(Part(moments=hidden @ hidden.T, weight=weight, block=3) for weight in weights)
    found = omp(Problem(parts), 2)
    rows = parts[0].rows(found.support)
    target = torch.cat(weights) @ hidden
    left = target - target @ torch.linalg.pinv(hidden[rows]) @ hidden[rows]
    assert found.loss == near(float(left.square().sum() / 2), 1e-8)


def test_all_units_are_the_identity_and_none_is_refused() -> None:
    assert ispasp(EXAMPLE, 6).support.tolist() == list(range(6))
    assert ispasp(EXAMPLE, 99).losses == (0.0,)
    for size in (0, -1):
        with pytest.raises(InputError, match="at least one unit"):
            ispasp(EXAMPLE, size)


def test_twice_the_size_covers_everything_and_the_largest_win() -> None:
    assert ispasp(EXAMPLE, 3).support.tolist() == [0, 1, 3]  # by hidden size alone
    assert len(ispasp(EXAMPLE, 3).losses) == 2


def test_ties_go_to_the_lowest_index() -> None:
    found = ispasp(Problem.of(torch.eye(4), torch.eye(4)), 2)
    assert found.support.tolist() == [0, 1]


def test_dead_units_are_no_candidates_while_enough_live() -> None:
    hidden, weight = H.clone(), W.clone()
    hidden[5] = 0
    weight[:, 5] = 100
    found = ispasp(Problem.of(hidden @ hidden.T, weight), 1)
    assert found.support.tolist() != [5]
    assert ispasp_samples(hidden, weight, 1).support.tolist() == found.support.tolist()


def test_fewer_live_units_than_asked() -> None:
    moments = torch.diag(torch.tensor([0.0, 1.0, 0.0]))
    found = ispasp(Problem.of(moments, torch.ones(1, 3)), 2)
    assert 1 in found.support.tolist()
    assert (len(found.support), found.loss) == (2, 0.0)


def test_no_signal_at_all() -> None:
    found = ispasp(Problem.of(torch.zeros(3, 3), torch.ones(1, 3)), 1)
    assert (found.support.tolist(), found.loss, found.relative) == ([0], 0.0, 0.0)
    assert refit(Part(moments=torch.zeros(2, 2), weight=torch.ones(1, 2)), torch.tensor([1])).tolist() == [[1.0]]


def test_blocks_are_kept_and_left_together() -> None:
    hidden = torch.tensor([[1.0, 0], [0, 1], [3, 0], [0, 3]])
    problem = Problem.of(hidden @ hidden.T, torch.eye(4), block=2)
    assert problem.units == 2
    assert ispasp(problem, 1).support.tolist() == [1]
    assert ispasp(problem, 1).loss == near(1.0)


@pytest.mark.parametrize(
    ("moments", "weight", "error"),
    [
        (torch.eye(3), torch.ones(1, 2), InputError),
        (torch.ones(2, 3), torch.ones(1, 3), InputError),
        (torch.full((2, 2), torch.nan), torch.ones(1, 2), NumericsError),
        (torch.zeros(0, 0), torch.ones(1, 0), InputError),
    ],
)
def test_what_cannot_be_is_refused(moments: Tensor, weight: Tensor, error: type[Exception]) -> None:
    with pytest.raises(error):
        Problem.of(moments, weight)
