"""`thresher.compile`: the fastest way found to run a model on this machine, and what it is."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from thresher.deploy.engine.capturing.capture import arguments_of, capture
from thresher.deploy.engine.capturing.pieces import Capture, constants_in_torch, pieces_of
from thresher.deploy.engine.compiled import Compiled
from thresher.deploy.engine.layers import layer_reports
from thresher.deploy.engine.library import ISAS, native, pick_isa
from thresher.deploy.engine.programs.planning import Plan, seconds_of, tuned, ways
from thresher.deploy.engine.programs.runner import Runner, remember
from thresher.deploy.engine.programs.tuning import Tuner
from thresher.deploy.engine.report import EngineReport, LayerReport
from thresher.deploy.engine.rivals import rivals
from thresher.deploy.engine.rounding import VALUES, rounded
from thresher.errors import InputError, NumericsError

TOLERANCE = 1e-5  # of the largest output
ENGINES = ("thresher", "torch", "onnxruntime", "openvino")


def compile(
    model: nn.Module,
    example: Any,
    *,
    threads: int | None = None,
    engines: Sequence[str] = ("thresher", "torch"),
    isa: str | None = None,
    limit: float = 3.0,
    values: str = "float32",
) -> Compiled:
    """The fastest of `engines` for `model` on inputs like `example`, outputs compared with torch's.

    `example`: a tensor, a tuple of arguments or a dict of keyword arguments, on the CPU. `threads`: of the engine; None
    takes torch.get_num_threads(). `engines`: among thresher, torch, onnxruntime, openvino; one that is not installed is
    left out and named in the report's note. `isa`: avx512, avx2 or portable; None takes the best. `limit`: seconds that
    the tuning may take. `values`: bfloat16 rounds every matrix and kernel to it, and stores those in it that are read
    for a few positions only, where memory decides (decoding token by token); sums stay float32, outputs are compared
    with the rounded model's. Without a compiled kernel library torch runs the model; the report says "dense fallback".

    >>> fast = compile(nn.Sequential(nn.Linear(8, 4), nn.ReLU()), torch.ones(2, 8), threads=1, limit=0.1)
    >>> fast(torch.ones(2, 8)).shape
    torch.Size([2, 4])

    Errors: InputError for an unknown engine, or a model that torch.export refuses where only thresher is asked for;
    NumericsError when only thresher is asked for and its result is not torch's to 1e-5 of the largest output.
    """
    begun = time.perf_counter()
    if not engines or set(engines) - set(ENGINES):
        raise InputError(f"engines={tuple(engines)!r}", f"some of {', '.join(ENGINES)}", "correct the names")
    threads = torch.get_num_threads() if threads is None else threads
    if values not in VALUES:
        raise InputError(f"values={values!r}", f"one of {', '.join(VALUES)}", "correct values")
    if not isinstance(threads, int) or threads < 1:
        raise InputError(f"threads={threads!r}", "a whole number of 1 or more", "correct threads")
    was_training = {module: module.training for module in model.modules()}
    model.eval()
    try:
        used = rounded(model, values)
        fast = _compile(used, example, threads, tuple(engines), isa, limit, begun)
        if used is model:
            return fast
        return fast.reported(values=values, rounding=_largest_difference(used, model, example))
    finally:
        for module, flag in was_training.items():
            module.training = flag


def _compile(
    model: nn.Module, example: Any, threads: int, engines: tuple[str, ...], isa: str | None, limit: float, begun: float
) -> Compiled:
    notes: list[str] = []
    seconds: dict[str, float] = {}
    captured = runner = plan = None
    layers: tuple[LayerReport, ...] = ()
    error = 0.0
    try:
        captured = capture(model, example)
    except InputError as refused:
        if engines == ("thresher",) or "CPU" in refused.expected:
            raise
        notes.append(f"dense fallback: {refused.given}")
    if captured is not None and "thresher" in engines:
        if native().handle is None:
            notes.append(f"dense fallback: {native().reason}")
        elif not pieces_of(captured):
            notes.append("dense fallback: nothing in this model that the engine runs")
        else:
            runner, plan, spent, steps = _fastest(captured, threads, isa, limit)
            error = _error(runner(captured.examples), captured, model)
            seconds["thresher"] = spent
            layers = layer_reports(captured, runner, plan, steps, limit)
            if not error <= TOLERANCE:
                if engines == ("thresher",):
                    raise NumericsError(
                        f"a result {error:.1e} of the largest output away from torch's",
                        f"{TOLERANCE}",
                        "report this model",
                    )
                notes.append(
                    f"dense fallback: the engine's result was {error:.1e} of the largest output away from torch's"
                )
                seconds.pop("thresher")
    others, missing = rivals(model, captured, example, threads, [name for name in engines if name != "thresher"])
    if not others and "thresher" not in seconds:
        others, _ = rivals(model, captured, example, threads, ["torch"])
    notes += missing
    kept, examples = runner, captured.examples if captured is not None else []
    for name, rival in others.items():
        seconds[name] = seconds_of(rival.call, threads, 0.15)
        if "thresher" in seconds and kept is not None:  # in turn, as the machine may change
            seconds["thresher"] = min(seconds["thresher"], seconds_of(lambda: kept(examples), threads, 0.05))
    winner = min(seconds, key=lambda name: seconds[name])
    at = runner.programs if runner is not None else []
    report = EngineReport(
        winner=winner,
        seconds=seconds,
        error=error,
        threads=threads,
        isa=ISAS[at[0].isa] if at else (ISAS[pick_isa(isa)] if native().handle is not None else "none"),
        mode=plan.mode if plan is not None else "dense fallback" if notes else "dense",
        packed_bytes=sum(program.packed_bytes() for program in at),
        arena_bytes=sum(4 * program.arena for program in at),
        compile_seconds=time.perf_counter() - begun,
        note="; ".join(notes),
        layers=layers,
    )
    if captured is not None:
        captured.examples = remember(captured.examples)
        for piece in pieces_of(captured):
            for step in piece.graph.steps:
                if step.kind == "conv":
                    step.weight = None  # packed
        captured.constants = constants_in_torch(captured)
    if winner == "thresher":
        return Compiled(captured, runner, plan, None, report)
    return Compiled(None, None, None, others[winner].model, report)


def _fastest(
    captured: Capture, threads: int, isa: str | None, limit: float
) -> tuple[Runner, Plan, float, list[dict[int, float]]]:
    candidates = ways(captured, captured.batch, threads)
    best: tuple[Runner, Plan, float, list[dict[int, float]]] | None = None
    for plan in candidates:
        runner, steps = tuned(captured, plan, threads, isa, Tuner(limit=limit / len(candidates)))
        spent = seconds_of(lambda kept=runner: kept(captured.examples), threads, 0.02)  # type: ignore[misc]
        if best is None or spent < best[2]:
            best = (runner, plan, spent, steps)
    assert best is not None
    return best


def _error(outputs: list[Any], captured: Capture, model: nn.Module) -> float:
    """Largest difference to torch's outputs, as a share of the largest of each; infinite where one is NaN alone."""
    args, kwargs = pytree.tree_unflatten(captured.examples, captured.in_spec)
    with torch.no_grad():
        return _apart(outputs, pytree.tree_flatten(model(*args, **kwargs))[0])


def _largest_difference(one: nn.Module, other: nn.Module, example: Any) -> float:
    """Between two models' outputs, as a share of the largest of the second."""
    args, kwargs = arguments_of(example)
    with torch.no_grad():
        outputs = [pytree.tree_flatten(model(*args, **kwargs))[0] for model in (one, other)]
    return _apart(*outputs)


def _apart(outputs: list[Any], wanted: list[Any]) -> float:
    worst = 0.0
    for given, right in zip(outputs, wanted, strict=True):
        if not isinstance(right, Tensor):
            continue
        if given.shape != right.shape or given.dtype != right.dtype:
            return float("inf")
        if not right.numel():
            continue
        if not right.is_floating_point():
            worst = max(worst, 0.0 if bool((given == right).all()) else float("inf"))
            continue
        difference = (given.double() - right.double()).abs()
        same = (given == right) | (given.isnan() & right.isnan())
        difference[same] = 0.0
        largest = right.double().abs().nan_to_num(0.0, 0.0).max().clamp(min=1e-30)
        worst = max(worst, float((difference / largest).nan_to_num(float("inf")).max()))
    return worst
