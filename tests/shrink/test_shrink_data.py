"""Calibration of every kind gives one choice: lists, iterators, passes, in step, two processes, other scores."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from ddp_shrinking import batch, network, reconstructed, shrunk, worker
from torch import Tensor, multiprocessing, nn

import thresher
from thresher.errors import InputError
from thresher.recovery import Problem
from thresher.shrinking.calibration import bytes_of, count_of, head_of, held, opened
from thresher.shrinking.selections.registry import View
from thresher.structure import coupled_groups

DATA = [batch(0), batch(1), batch(2)[:7]]


class Again:
    """An iterable that is no list: gone through anew each time."""

    def __init__(self) -> None:
        self.passes = 0

    def __iter__(self) -> Iterator[tuple[Tensor, None]]:
        self.passes += 1
        yield from ((one, None) for one in DATA)


def same(one: nn.Module, other: nn.Module) -> bool:
    pairs = zip(one.state_dict().values(), other.state_dict().values(), strict=True)
    return all(torch.allclose(a, b, atol=1e-5) for a, b in pairs)


@pytest.mark.parametrize("budget", ["flops=50%", None])
@pytest.mark.parametrize("method", ["ispasp", thresher.ISpaSP(score="sum"), "omp"])
def test_in_step_and_layer_by_layer_are_the_same(budget: str | None, method: object) -> None:
    keep = None if budget else {"0": 9, "2": 5}
    step = thresher.shrink(network(), method, budget, keep=keep, calibration=DATA)
    passes = thresher.shrink(network(), method, budget, keep=keep, calibration=DATA, memory=0)
    assert [tensor.shape for tensor in step.state_dict().values()] == [t.shape for t in passes.state_dict().values()]
    assert same(step, passes)


def test_held_data_is_read_once_and_other_data_once_per_layer() -> None:
    for memory, passes in ((1 << 30, 3), (0, 4)):  # a look at the first batch, and for budgets a pass for the curves
        data = Again()
        thresher.shrink(network(), "ispasp", "flops=50%", calibration=data, memory=memory)
        assert data.passes <= passes


def test_an_iterator_that_fits_is_as_good_as_a_list() -> None:
    wanted = thresher.shrink(network(), "ispasp", "flops=50%", calibration=DATA)
    result = thresher.shrink_plan(network(), "ispasp", "flops=50%", calibration=iter(DATA))
    assert same(result.model, wanted)
    assert result.report.notes == ()


def test_an_iterator_that_does_not_fit_loses_no_batch() -> None:
    model = network()
    some = held(opened(iter(DATA), model), model, ["2"], limit=None, memory=3000)
    assert some.held is None
    assert [len(one) for one in some.again()] == [40, 40, 7]
    result = thresher.shrink_plan(model, "ispasp", "flops=50%", calibration=iter(DATA), memory=3000)
    assert "only once" in result.report.notes[0]


def test_a_limit_counts_batches() -> None:
    one = thresher.shrink(network(), "ispasp", keep={"0": 9}, calibration=DATA, limit=1)
    assert same(one, thresher.shrink(network(), "ispasp", keep={"0": 9}, calibration=DATA[:1]))
    assert not same(one, thresher.shrink(network(), "ispasp", keep={"0": 9}, calibration=DATA))


def test_a_layer_that_runs_twice_gets_a_pass_of_its_own() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.up, self.down = nn.Linear(6, 12), nn.Linear(12, 6)

        def forward(self, x: Tensor) -> Tensor:
            return self.down(self.up(self.down(self.up(x).relu())).relu())

    model = Twice()
    assert held(opened(DATA, model), model, ["down"], limit=None, memory=1 << 30).held is None
    groups, _ = coupled_groups(model, DATA[0])
    if groups:
        small = thresher.shrink(model, "ispasp", keep={"up": 5}, calibration=DATA)
        assert small(DATA[0]).shape == (40, 6)


def test_a_concatenation_is_decided_at_its_last_reader() -> None:
    class Fan(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.up, self.one, self.two, self.out = (
                nn.Linear(6, 12),
                nn.Linear(12, 8),
                nn.Linear(12, 8),
                nn.Linear(8, 2),
            )

        def forward(self, x: Tensor) -> Tensor:
            x = self.up(x).relu()
            return self.out((self.one(x) + self.two(x)).relu())

    for scope in ("inside", "across"):
        step = thresher.shrink(Fan(), "ispasp", "flops=50%", calibration=DATA, scope=scope)
        passes = thresher.shrink(Fan(), "ispasp", "flops=50%", calibration=DATA, scope=scope, memory=0)
        assert same(step, passes)


@pytest.mark.parametrize("score", ["l1", "sum"])
def test_other_scores_keep_budgets_and_are_in_the_record(score: str) -> None:
    result = thresher.shrink_plan(network(), thresher.ISpaSP(score=score), "flops=50%", calibration=DATA)
    assert score in result.report.method
    assert result.report.macs <= result.report.total_macs / 2
    assert result.report.output_error < 1


def test_scores_differ_where_they_should() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(2, 3, bias=False), nn.Linear(3, 2, bias=False))
    with torch.no_grad():
        # Unit 0 is small and always there, unit 1 large and rare, unit 2 is hardly read.
        model[0].weight.copy_(torch.tensor([[1.0, 0.0], [0.0, 1.0], [3.0, -3.0]]))
        model[1].weight.copy_(torch.tensor([[1.0, 1.0, 0.01], [1.0, -1.0, 0.01]]))
    x = torch.ones(40, 2)
    x[:, 1] = 0
    x[:4, 1] = 4.0
    kept = {
        score: thresher.shrink_plan(model, thresher.ISpaSP(score=score, debias=False), keep={"0": 1}, calibration=[x])
        for score in ("l2", "l1", "sum")
    }
    chosen = {score: result.plan.groups[0].keep for score, result in kept.items()}
    assert chosen == {"l2": (1,), "l1": (0,), "sum": (0,)}  # sizes 6.3 and 8, 40 and 16, 40 and 16


def test_a_score_without_samples_is_refused() -> None:
    group = coupled_groups(network(), DATA[0])[0][0]
    with pytest.raises(InputError, match="without hidden values"):
        thresher.ISpaSP(score="l1").recover(Problem.of(torch.eye(2), torch.eye(2)), [1], View(network(), group))
    for wrong in ({"score": "l3"}, {"samples": 0}, {"iterations": 2.0}):
        with pytest.raises(InputError):
            thresher.ISpaSP(**wrong)


def test_configurations_say_what_recreates_them() -> None:
    for config in (thresher.ISpaSP(), thresher.ISpaSP(score="sum", samples=9, iterations=3, debias=False)):
        assert eval(repr(config), {"ISpaSP": thresher.ISpaSP}) == config


def test_batches_of_every_shape_are_counted_and_cut() -> None:
    both = {"x": torch.zeros(5, 2), "scale": torch.tensor(2.0)}
    assert (count_of(both), count_of(()), count_of([torch.zeros(3)])) == (5, 0, 3)
    assert bytes_of((both, None)) == 44
    assert head_of((both, "text"), 2)[0]["x"].shape == (2, 2)


def test_two_processes_choose_from_the_data_of_both(tmp_path: Path) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    multiprocessing.spawn(worker, args=(port, str(tmp_path)), nprocs=2)
    first, second = (torch.load(tmp_path / f"{rank}.pt") for rank in (0, 1))
    assert [one.shape for one in first[-1]] == [other.shape for other in second[-1]]
    assert all(torch.equal(a, b) for a, b in zip(first.pop(), second.pop(), strict=True))
    whole = [batch(0), batch(1), batch(2)]
    alone = [shrunk(whole, method) for method in (thresher.ISpaSP(), thresher.ISpaSP(score="l1"))]
    alone.append(reconstructed(whole))
    for one, other, wanted in zip(first, second, alone, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True))
        assert all(torch.allclose(a, b, atol=1e-4) for a, b in zip(one, wanted, strict=True))
