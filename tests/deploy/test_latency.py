"""Claims about the measuring itself, on a clock that the tests turn; no claim depends on how fast this machine is."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import nn

import thresher.deploy.latency as latency
from thresher.deploy.latency import measure_ratio, peak_memory, time_model
from thresher.errors import InputError


class Clock:
    """Time passes only when a call says so."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now, self.order = 0.0, ""
        monkeypatch.setattr(latency.time, "perf_counter", lambda: self.now)

    def taking(self, name: str, *seconds: float) -> Callable[[], None]:
        """A call that takes `seconds` in turn, the last for ever."""
        left = list(seconds)

        def call() -> None:
            self.now += left.pop(0) if len(left) > 1 else left[0]
            self.order += name

        return call


def test_the_ratio_is_the_time_of_a_over_the_time_of_b(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch)
    result = measure_ratio(clock.taking("a", 0.5), clock.taking("b", 0.25), rounds=3, min_time=0.1)
    assert result.ratio == result.low == result.high == 2
    assert (result.a.seconds, result.b.seconds, result.a.rounds, result.a.calls) == (0.5, 0.25, 3, 1)


def test_rounds_are_interleaved_and_turn_their_order(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch)
    measure_ratio(clock.taking("a", 1), clock.taking("b", 1), rounds=4, min_time=0.5)
    assert clock.order.removeprefix("aaabbb") == "abbaabba"


def test_slow_first_calls_do_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch)
    result = measure_ratio(clock.taking("a", 90, 9, 9, 1), clock.taking("b", 1), rounds=3, min_time=0.5)
    assert result.high == 1


def test_one_slow_round_moves_the_spread_but_not_the_median(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch)
    result = measure_ratio(clock.taking("a", 1, 1, 1, 1, 50, 1), clock.taking("b", 1), rounds=5, min_time=0.5)
    assert (result.ratio, result.low, result.high) == (1, 1, 50)


def test_fast_calls_are_repeated_until_a_round_lasts_long_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch)
    result = measure_ratio(clock.taking("a", 0.001), clock.taking("b", 0.1), rounds=1, min_time=0.05)
    assert result.a.calls * 0.001 >= 0.0499
    assert result.b.calls == 1
    assert result.ratio == pytest.approx(0.01)


def test_a_clock_that_stands_still_does_not_divide_by_zero(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch)
    assert math.isfinite(measure_ratio(clock.taking("a", 0), clock.taking("b", 0), rounds=1, min_time=0).ratio)


@pytest.mark.parametrize(("rounds", "min_time"), [(0, 1.0), (1, -1.0), (1, math.inf), (1, math.nan)])
def test_rounds_and_times_that_make_no_sense_are_refused(rounds: int, min_time: float) -> None:
    with pytest.raises(InputError):
        measure_ratio(lambda: None, lambda: None, rounds=rounds, min_time=min_time)
    with pytest.raises(InputError):
        time_model(nn.Identity(), 1, rounds=rounds, min_time=min_time)


class Watching(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Dropout()
        self.seen: list[tuple[object, ...]] = []

    def forward(self, x: torch.Tensor, y: int = 0) -> None:
        self.seen.append((y, self.training, self.inner.training, torch.is_grad_enabled()))


@pytest.mark.parametrize("example", [torch.ones(1), (torch.ones(1), 0), {"x": torch.ones(1), "y": 0}])
def test_a_model_is_timed_in_eval_mode_without_gradients_and_its_flags_come_back(example: object) -> None:
    model = Watching()
    model.inner.eval()
    timing = time_model(model, example, rounds=2, min_time=0)
    assert timing.rounds == 2
    assert set(model.seen) == {(0, False, False, False)}
    assert model.training
    assert not model.inner.training


def test_peak_memory_is_what_was_alive_at_once_not_what_was_allocated() -> None:
    def call() -> None:
        for _ in range(5):
            torch.empty(1000)
        a = torch.empty(2000)
        b = torch.empty(3000)
        del a
        b.add_(b)

    assert peak_memory(call) == 4 * 5000


def test_peak_memory_counts_from_what_was_there_before() -> None:
    x = torch.ones(10_000)
    assert peak_memory(lambda: x.view(100, 100)) == 0
    assert peak_memory(lambda: x + x) == 40_000


def test_peak_memory_sees_the_activations_kept_for_the_backward_pass() -> None:
    x = torch.ones(1000, requires_grad=True)

    def forward() -> torch.Tensor:
        y = x
        for _ in range(4):
            y = y.sin()
        return y

    with torch.no_grad():
        without = peak_memory(forward)
    assert (without, peak_memory(forward)) == (8000, 16000)


def test_peak_memory_of_an_unknown_device_is_refused() -> None:
    with pytest.raises(InputError):
        peak_memory(lambda: None, device="meta")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
def test_peak_memory_on_cuda_counts_tensors() -> None:
    assert peak_memory(lambda: torch.empty(1024, device="cuda"), device="cuda") == 4096


def test_another_clock_is_believed():
    """A clock that jumps by what each call claims to cost, whatever really passes."""
    now = [0.0]

    def costs(seconds):
        def call():
            now[0] += seconds

        return call

    result = measure_ratio(costs(3.0), costs(2.0), rounds=4, min_time=1.0, clock=lambda: now[0])
    assert (result.ratio, result.low, result.high) == (1.5, 1.5, 1.5)
