"""The maths against worked numbers and slow references."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from thresher.errors import NumericsError
from thresher.oneshot import Smallest, SparseGpt, Wanda
from thresher.oneshot.choosing import best_of, best_of_row, lowest, quotas
from thresher.oneshot.layerwise import relative_error
from thresher.oneshot.obs import inverse_factor, sweep
from thresher.oneshot.problem import Problem
from thresher.operators import parse_groups
from thresher.targets import Target


def problem(weight: Tensor, moments: Tensor, leave: int, groups: str = "weight", **marks: bool) -> Problem:
    weight, moments = weight.double(), moments.double()
    weight = weight if weight.ndim == 3 else weight[None]
    shape = (weight.shape[0] * weight.shape[1], weight.shape[2])
    target = Target(name="w", sites=(), shape=shape, **marks)
    pattern = parse_groups(groups)
    moments = moments if moments.ndim == 3 else moments[None]
    return Problem(weight=weight, moments=moments, leave=leave, pattern=pattern, target=target)


def correlated(seed: int, rows: int = 24, columns: int = 32, samples: int = 400) -> tuple[Tensor, Tensor]:
    """W, and H of inputs that share a few factors and are of unequal size, as those of a trained network."""
    noise = torch.Generator().manual_seed(seed)
    mixing = torch.randn(columns, 4, generator=noise, dtype=torch.float64)
    own, factors = torch.randn(columns + 4, samples, generator=noise, dtype=torch.float64).split([columns, 4])
    scales = torch.linspace(-1.5, 1.5, columns, dtype=torch.float64).exp()
    x = scales[:, None] * (own + mixing @ factors)
    return torch.randn(rows, columns, generator=noise, dtype=torch.float64), x @ x.T


def by_hand_obs(weight: Tensor, moments: Tensor, block: int, share: float, damping: float) -> tuple[Tensor, Tensor]:
    """Exact OBS: every column's error and update from the inverse of H over the columns that are still free."""
    weight, (rows, columns) = weight.clone(), weight.shape
    moments = moments + damping * moments.diagonal().mean() * torch.eye(columns, dtype=torch.float64)
    gone = torch.zeros(weight.shape, dtype=torch.bool)
    for j in range(columns):
        if j % block == 0:
            stop = min(j + block, columns)
            costs = [weight[:, k] ** 2 / torch.linalg.inv(moments[k:, k:])[0, 0] for k in range(j, stop)]
            flat = torch.stack(costs, 1).flatten()
            chosen = torch.zeros(len(flat), dtype=torch.bool)
            chosen[flat.argsort()[: round(share * len(flat))]] = True
            gone[:, j:stop] = chosen.reshape(rows, -1)
        inverse = torch.linalg.inv(moments[j:, j:])
        for row in gone[:, j].nonzero().flatten():
            weight[row, j:] -= weight[row, j] / inverse[0, 0] * inverse[0]
            weight[row, j] = 0
    return weight, gone


@pytest.mark.parametrize(("block", "damping"), [(2, 0.0), (4, 0.01), (128, 0.01)])
def test_sparsegpt_equals_exact_obs_column_by_column(block: int, damping: float) -> None:
    weight, moments = correlated(3, rows=6)
    mine, gone = SparseGpt(block=block, quota="even", damping=damping).solve(problem(weight, moments, 96))
    slow, slow_gone = by_hand_obs(weight, moments, min(block, 32), 0.5, damping)
    assert torch.equal(gone[0], slow_gone)
    torch.testing.assert_close(mine[0], slow, rtol=1e-9, atol=1e-9)
    assert (mine[gone] == 0).all()


def test_when_the_first_columns_leave_the_rest_is_the_least_squares_refit() -> None:
    weight, moments = correlated(1, rows=3, columns=6)
    first = torch.zeros(1, 3, 6, dtype=torch.bool)
    first[..., :2] = True
    factor = inverse_factor(moments[None], 0.0)
    mine, _ = sweep(weight[None], factor, lambda column, costs: first[..., column : column + 3], block=3, every=3)
    refit = weight @ moments[:, 2:] @ torch.linalg.inv(moments[2:, 2:])
    torch.testing.assert_close(mine[0, :, 2:], refit, rtol=1e-8, atol=1e-8)


def test_the_cost_of_an_entry_is_by_how_much_the_error_grows() -> None:
    weight, moments = correlated(2, rows=1, columns=5)
    first = torch.tensor([[[True, False, False, False, False]]])
    seen = []

    def choose(column: int, costs: Tensor) -> Tensor:
        seen.append(costs)
        return first[..., column : column + costs.shape[-1]]

    mine, _ = sweep(weight[None], inverse_factor(moments[None], 0.0), choose, block=5, every=5)
    change = weight - mine[0]
    assert float(change @ moments @ change.T) == pytest.approx(float(seen[0][0, 0, 0]), rel=1e-9)


def test_a_ranked_quota_takes_from_each_block_what_the_first_costs_say() -> None:
    weight, moments = correlated(4, rows=6)
    whole = SparseGpt(block=32).solve(problem(weight, moments, 96))[1]
    parts = SparseGpt(block=4).solve(problem(weight, moments, 96))[1]
    assert [int(part.sum()) for part in parts.split(4, -1)] == [int(part.sum()) for part in whole.split(4, -1)]
    assert not torch.equal(parts, whole)  # which ones, the updates have a say in
    even = SparseGpt(block=4, quota="even").solve(problem(weight, moments, 96))[1]
    assert [int(part.sum()) for part in even.split(4, -1)] == [12] * 8


@pytest.mark.parametrize("seed", range(5))
def test_the_default_errs_less_than_what_was_published_on_narrow_layers(seed: int) -> None:
    weight, moments = correlated(seed, columns=64)
    given = problem(weight, moments, 24 * 32)
    mine, published = (method.solve(given)[0] for method in (SparseGpt(), SparseGpt(block=128, quota="even")))
    assert relative_error(given.weight, mine, given.moments) < relative_error(given.weight, published, given.moments)


def test_wanda_equals_the_worked_example() -> None:
    # Norms 1, 2, 8: scores row 0: 4, 2, 8; row 1: 3, 6, 8. One leaves per row: entry 1 and entry 0.
    weight = torch.tensor([[4.0, 1.0, -1.0], [-3.0, 3.0, 1.0]])
    x = torch.tensor([[1.0, 0.0], [0.0, 2.0], [0.0, -8.0]])
    new, _ = Wanda().solve(problem(weight, x @ x.T, 2))
    assert new[0].tolist() == [[4.0, 0.0, -1.0], [0.0, 3.0, 1.0]]
    # Over the whole layer 2 and 3 leave as well; by size alone it is the three ones, the first two of them.
    both, _ = Wanda(scope="layer").solve(problem(weight, x @ x.T, 3))
    assert both[0].tolist() == [[0.0, 0.0, -1.0], [0.0, 3.0, 1.0]]
    size, _ = Smallest().solve(problem(weight, x @ x.T, 2))
    assert size[0].tolist() == [[4.0, 0.0, 0.0], [-3.0, 3.0, 1.0]]


@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize(("groups", "leave"), [("weight", 384), ("weight", 230), ("2:4", 384), ("4:8", 384)])
def test_on_correlated_inputs_the_error_falls_from_magnitude_to_wanda_to_sparsegpt(
    seed: int, groups: str, leave: int
) -> None:
    weight, moments = correlated(seed)
    given = problem(weight, moments, leave, groups)
    errors = []
    for method in (SparseGpt(), Wanda(), Smallest()):
        new, gone = method.solve(given)
        assert int(gone.sum()) == leave == int((new == 0).sum())
        errors.append(relative_error(given.weight, new, given.moments))
    assert errors[0] < errors[1] < errors[2]


@pytest.mark.parametrize("method", [Smallest(), Wanda(), SparseGpt(block=6), SparseGpt()])
@pytest.mark.parametrize(("keep", "of"), [(2, 4), (4, 8), (1, 4)])
def test_n_of_m_holds_in_every_group(method: Wanda, keep: int, of: int) -> None:
    weight, moments = correlated(5, rows=5, columns=24)
    leave = 5 * 24 * (of - keep) // of
    new, _ = method.solve(problem(weight, moments, leave, f"{keep}:{of}"))
    assert (new.reshape(5, -1, of) != 0).sum(-1).unique().tolist() == [keep]


@pytest.mark.parametrize("method", [Smallest(), Wanda(), SparseGpt(block=8)])
def test_part_of_a_pattern_keeps_n_of_m_and_the_count(method: Wanda) -> None:
    weight, moments = correlated(6, rows=5, columns=24)
    new, _ = method.solve(problem(weight, moments, 31, "2:4"))
    assert int((new == 0).sum()) == 31
    assert int((new.reshape(5, -1, 4) != 0).sum(-1).min()) >= 2


@pytest.mark.parametrize("method", [Wanda(), SparseGpt(block=4), SparseGpt()])
def test_weights_on_dead_inputs_leave_first_and_the_count_holds(method: Wanda) -> None:
    weight, moments = correlated(7, rows=4, columns=8)
    moments[2], moments[:, 2] = 0, 0
    new, gone = method.solve(problem(weight * 9, moments, 16))
    assert gone[0, :, 2].all()
    assert int((new == 0).sum()) == 16
    assert torch.isfinite(new).all()


@pytest.mark.parametrize("leave", [0, 1, 31, 32])
@pytest.mark.parametrize("method", [Smallest(), Wanda(), SparseGpt(block=3)])
def test_the_count_is_exact_from_nothing_to_everything(method: Wanda, leave: int) -> None:
    weight, moments = correlated(8, rows=4, columns=8)
    _, gone = method.solve(problem(weight, moments, leave))
    assert int(gone.sum()) == leave


@pytest.mark.parametrize("method", [Smallest(), Wanda(), SparseGpt(block=2)])
def test_every_depthwise_filter_keeps_an_entry(method: Wanda) -> None:
    noise = torch.Generator().manual_seed(0)
    x = torch.randn(6, 9, 50, generator=noise, dtype=torch.float64)
    weight = torch.randn(6, 1, 9, generator=noise) * torch.logspace(-3, 3, 6)[:, None, None]
    given = problem(weight, x @ x.mT, 40)
    given = replace(given, target=Target(name="w", sites=(), shape=(6, 1, 3, 3), depthwise=True))
    new, gone = method.solve(given)
    assert int(gone.sum()) == 40
    assert (new != 0).any(-1).all()


def test_groups_of_inputs_do_not_mix() -> None:
    parts = [correlated(seed, rows=4, columns=6) for seed in (1, 2)]
    weight, moments = (torch.stack(each) for each in zip(*parts, strict=True))
    new, gone = SparseGpt().solve(problem(weight, moments, 24))
    for part in range(2):
        alone, _ = sweep(
            weight[part][None],
            inverse_factor(moments[part][None], 0.01),
            lambda column, costs, part=part: gone[part][None],
            block=6,
            every=6,
        )
        torch.testing.assert_close(new[part], alone[0])


def test_ties_leave_from_the_lowest_index() -> None:
    same = torch.ones(2, 4)
    assert lowest(same, 3).tolist() == [[True, True, True, False], [False] * 4]
    assert lowest(same, 3, by_row=True).tolist() == [[True, True, False, False], [True, False, False, False]]
    assert best_of(same, 2, 4).tolist() == [[False, False, True, True]] * 2
    assert best_of_row(same).tolist() == [[True, False, False, False]] * 2


def test_a_row_with_too_few_free_entries_gives_what_it_has() -> None:
    stays = torch.tensor([[True, True, True, False], [False] * 4])
    gone = lowest(torch.arange(8.0).reshape(2, 4), 4, by_row=True, stays=stays)
    assert gone.sum(1).tolist() == [1, 3]
    assert int(lowest(torch.rand(2, 4), 8, by_row=True, stays=stays).sum()) == 5


def test_quotas_add_up_and_fit() -> None:
    assert quotas(10, [4, 4, 4], [2, 2, 2]) == [3, 4, 3]
    assert quotas(9, [1, 4, 4], [2, 2, 2]) == [1, 4, 4]
    assert quotas(0, [4], [2]) == [0]


def test_the_inverse_factor_gives_the_inverse() -> None:
    _, moments = correlated(4, columns=7)
    factor = inverse_factor(moments[None], 0.0)[0]
    assert torch.equal(factor, factor.triu())
    torch.testing.assert_close(factor.T @ factor, torch.linalg.inv(moments), rtol=1e-8, atol=1e-12)


def test_without_damping_a_singular_matrix_is_refused() -> None:
    column = torch.tensor([[1.0], [2.0], [3.0]], dtype=torch.float64)
    with pytest.raises(NumericsError, match="raise damping"):
        inverse_factor((column @ column.T)[None] - 1e-12, 0.0)
