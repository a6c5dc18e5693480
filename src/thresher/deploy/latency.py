"""How long and how much memory, measured so that a ratio between two things can be trusted.

Two things are compared inside one process, round by round and in turning order, so that a busy machine slows both
alike. Single times are worth little on a shared machine; the ratio and its spread are what to report.
"""

from __future__ import annotations

import gc
import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from statistics import median
from typing import Any

import torch
from torch import nn

from thresher.errors import InputError

Call = Callable[[], object]
Clock = Callable[[], float]


@dataclass(frozen=True, kw_only=True)
class Timing:
    """Seconds per call: median, smallest and largest over the rounds; each round made `calls` calls."""

    seconds: float
    low: float
    high: float
    rounds: int
    calls: int


@dataclass(frozen=True, kw_only=True)
class Ratio:
    """time(a) / time(b): above 1, b is the faster. Median, smallest and largest of the rounds' own ratios."""

    ratio: float
    low: float
    high: float
    a: Timing
    b: Timing


def measure_ratio(a: Call, b: Call, *, rounds: int = 7, min_time: float = 0.05, clock: Clock | None = None) -> Ratio:
    """Median over rounds of time(a) / time(b), e.g. 2.0 when b takes half the time of a.

    Each is called often enough for a round to last `min_time` seconds. Round 1 times a then b, round 2 b then a, and
    so on. Both run several times before anything counts. Garbage collection waits; work queued on CUDA is waited for.
    `clock`: `time.process_time` counts the seconds that the processor worked for this process, which others on a
    busy machine disturb less; with several threads it counts each, and those that only wait.

    >>> result = measure_ratio(lambda: sum(range(100)), lambda: sum(range(100)), rounds=3, min_time=0.001)
    >>> result.low <= result.ratio <= result.high
    True

    Errors: InputError for rounds < 1 or a min_time that is negative or not finite.
    """
    _check(rounds, min_time)
    calls = calls_for(a, min_time, clock), calls_for(b, min_time, clock)
    seconds: tuple[list[float], list[float]] = ([], [])
    with no_collection():
        for turn in range(rounds):
            for which in (0, 1) if turn % 2 == 0 else (1, 0):
                seconds[which].append(elapsed((a, b)[which], calls[which], clock) / calls[which])
    ratios = [first / second for first, second in zip(*seconds, strict=True)]
    return Ratio(
        ratio=median(ratios),
        low=min(ratios),
        high=max(ratios),
        a=_timing(seconds[0], calls[0]),
        b=_timing(seconds[1], calls[1]),
    )


def time_model(model: Callable[..., Any], example: Any, *, rounds: int = 7, min_time: float = 0.05) -> Timing:
    """Seconds for one forward pass in eval mode without gradients; the training flags are put back.

    `example` is one tensor (or any single argument), a tuple of arguments or a dict of keyword arguments.

    Errors: as `measure_ratio`.
    """
    _check(rounds, min_time)

    def call() -> object:
        if isinstance(example, tuple):
            return model(*example)
        return model(**example) if isinstance(example, Mapping) else model(example)

    with _evaluating(model), torch.inference_mode():
        calls = calls_for(call, min_time)
        with no_collection():
            return _timing([elapsed(call, calls) / calls for _ in range(rounds)], calls)


def peak_memory(call: Call, *, device: str | torch.device = "cpu") -> int:
    """Most bytes alive at once during `call`, above what was alive before it.

    CPU: torch's profiler records each allocation of torch's allocator to the byte, scratch buffers of kernels and
    compiled code included. Not seen: what oneDNN, MKL, numpy or Python allocate by themselves, and what the operating
    system rounds up. Memory freed that was alive before counts as negative. The profiler writes two lines to stderr.
    CUDA: torch.cuda.max_memory_allocated, in blocks of 512 bytes. Call once before: the first call may allocate what
    later ones reuse.

    >>> peak_memory(lambda: torch.ones(1000) + torch.ones(1000))      # three times 1000 of 4 bytes
    12000

    Errors: InputError for a device other than CPU and CUDA.
    """
    device = torch.device(device)
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        call()
        torch.cuda.synchronize(device)
        return torch.cuda.max_memory_allocated(device) - before
    if device.type != "cpu":
        raise InputError(f"device {str(device)!r}", "cpu or cuda", "measure on one of these")
    with torch.autograd.profiler.profile(profile_memory=True) as profile:
        result = call()
    del result
    return _peak(profile)


def _peak(profile: Any) -> int:
    events = [event for event in profile.kineto_results.events() if event.name() == "[memory]"]
    alive = peak = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        if str(event.device_type()).endswith("CPU"):
            alive += event.nbytes()
            peak = max(peak, alive)
    return peak


def elapsed(call: Call, calls: int, clock: Clock | None = None) -> float:
    """Seconds that `calls` calls take together, work queued on CUDA included."""
    _synchronize()
    clock = clock or time.perf_counter
    start = clock()
    for _ in range(calls):
        call()
    _synchronize()
    return max(clock() - start, 1e-9)  # a clock too coarse must not divide by zero


def calls_for(call: Call, min_time: float, clock: Clock | None = None) -> int:
    """How many calls last `min_time` seconds; the first ones, which compile and allocate, are not counted."""
    elapsed(call, 2)  # first calls compile, allocate and fill caches
    calls = 1
    while (taken := elapsed(call, calls, clock)) < min_time:
        calls = max(calls + 1, min(calls * 10, math.ceil(1.1 * calls * min_time / taken)))
    return calls


def _timing(seconds: list[float], calls: int) -> Timing:
    return Timing(seconds=median(seconds), low=min(seconds), high=max(seconds), rounds=len(seconds), calls=calls)


def _synchronize() -> None:
    if torch.cuda.is_initialized():
        torch.cuda.synchronize()


def _check(rounds: int, min_time: float) -> None:
    if rounds < 1 or not 0 <= min_time < math.inf:
        raise InputError(
            f"rounds={rounds}, min_time={min_time}", "rounds of 1 or more, finite seconds of 0 or more", "correct them"
        )


@contextmanager
def no_collection() -> Iterator[None]:
    """No garbage collection inside the block."""
    was = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        if was:
            gc.enable()


@contextmanager
def _evaluating(model: Callable[..., Any]) -> Iterator[None]:
    flags = [(module, module.training) for module in model.modules()] if isinstance(model, nn.Module) else []
    try:
        for module, _ in flags[:1]:
            module.eval()
        yield
    finally:
        for module, training in flags:
            module.training = training
