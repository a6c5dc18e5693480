"""`pruner.penalty()` in the loss and the optimizer's hook bring the thresholds to the same place."""

import math

import pytest
import torch
from method_bench import Bench, batch, network, sgd
from torch.nn import functional as F

import thresher
from thresher.methods import Asl, Gmp, Ltp, Str

METHODS = {
    "asl": (Asl(), "sparsity=90%"),
    "asl hinge": (Asl(loss="hinge"), "sparsity=90%"),
    "asl layer": (Asl(loss="layer"), "sparsity=90%"),
    "asl, one scale": (Asl(scope="global"), "sparsity=90%"),
    "asl density": (Asl(loss="density"), None),
    "asl, two limits": (Asl(), "params=30%,flops=20%"),
    "ltp": (Ltp(), "sparsity=90%"),
    "ltp, one temperature": (Ltp(count_temperature=0.0, temperature=0.2), "sparsity=90%"),
    "ltp, one scale": (Ltp(scope="global"), "sparsity=90%"),
    "ltp, no budget": (Ltp(l0=0.5, travel=3.0), None),
    "str": (Str(), "sparsity=90%"),
    "str, no budget": (Str(s_init=-4.0, decay=0.1), None),
}
STEPS = 30


def thresholds(name: str, mode: str, parts: int = 1) -> list[list[float]]:
    method, budget = METHODS[name]
    bench = Bench(method, budget, steps=STEPS, dtype=torch.float64)
    found = []
    for step in range(STEPS):
        bench.optimizer.zero_grad()
        for part in range(parts):
            loss = bench.loss(parts * step + part)
            if mode == "explicit":
                loss = loss + bench.pruner.penalty()
            (loss / parts).backward()
        bench.optimizer.step()
        found.append(bench.pruner.process.thresholds())
    bench.finish()
    return found


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("parts", [1, 2], ids=["one batch", "two micro-batches"])
def test_explicit_and_hook_agree_at_every_step(name: str, parts: int) -> None:
    hook, explicit = thresholds(name, "hook", parts), thresholds(name, "explicit", parts)
    torch.testing.assert_close(torch.tensor(explicit), torch.tensor(hook), rtol=1e-6, atol=1e-9)
    assert max(hook[-1]) > 0


@pytest.mark.parametrize("name", ["asl", "ltp", "str"])
def test_the_explicit_gradient_counts_alone_and_not_on_top(name: str) -> None:
    runs = []
    for factor in (0.0, 1.0):
        bench = Bench(METHODS[name][0], steps=STEPS, dtype=torch.float64)
        for step in range(8):
            bench.optimizer.zero_grad()
            (bench.loss(step) + factor * bench.pruner.penalty()).backward()
            bench.optimizer.step()
        runs.append(sum(bench.pruner.process.thresholds()))
    assert runs[0] < 0.5 * runs[1]  # multiplied by 0, the penalty is out of force


@pytest.mark.parametrize("name", ["asl", "ltp", "str"])
@pytest.mark.parametrize("kind", ["plain", "fused", "unscaled by hand"])
def test_a_gradient_scaler_changes_no_threshold(name: str, kind: str) -> None:
    def run(mode: str, scaled: bool) -> list[float]:
        more = {"fused": True} if kind == "fused" else {}
        bench = Bench(
            METHODS[name][0],
            steps=STEPS,
            optimizer_of=lambda model: torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9, **more),
            dtype=torch.float64,
        )
        scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10, growth_interval=5, enabled=scaled)
        for step in range(STEPS):
            bench.optimizer.zero_grad()
            loss = bench.loss(step)
            if mode == "explicit":
                loss = loss + bench.pruner.penalty(scale=scaler.get_scale())
            if scaled and step == 10:  # a step that is skipped leaves nothing behind
                scaler.scale(loss * math.inf).backward()
                scaler.step(bench.optimizer)
                scaler.update()
                bench.optimizer.zero_grad(set_to_none=False)
                loss = bench.loss(step)
                if mode == "explicit":
                    loss = loss + bench.pruner.penalty(scale=scaler.get_scale())
            scaler.scale(loss).backward()
            if kind == "unscaled by hand" and scaled:
                scaler.unscale_(bench.optimizer)
            scaler.step(bench.optimizer)
            scaler.update()
        return bench.pruner.process.thresholds()

    plain = torch.tensor(run("hook", scaled=False))
    for mode in ("hook", "explicit"):
        torch.testing.assert_close(torch.tensor(run(mode, scaled=True)), plain, rtol=1e-5, atol=1e-8)


@pytest.mark.parametrize("name", ["asl", "ltp", "str"])
def test_an_abandoned_step_leaves_nothing_behind(name: str) -> None:
    runs = []
    for abandoned in (False, True):
        bench = Bench(METHODS[name][0], steps=STEPS, dtype=torch.float64)
        for step in range(12):
            if abandoned and step == 6:
                (bench.loss(99) + bench.pruner.penalty()).backward()
            bench.optimizer.zero_grad()
            (bench.loss(step) + bench.pruner.penalty()).backward()
            bench.optimizer.step()
        runs.append(bench.pruner.process.thresholds())
    assert runs[0] == runs[1]


def test_looking_at_the_penalty_without_using_it_changes_nothing() -> None:
    runs = []
    for look in (False, True):
        bench = Bench("asl")
        for step in range(12):
            if look:
                bench.pruner.penalty().item()
            bench.train(step, step + 1)
        runs.append(bench.pruner.process.thresholds())
    assert runs[0] == runs[1]


@pytest.mark.parametrize("method", [Gmp(), "lats", "magnitude"])
def test_methods_without_a_penalty_and_runs_past_it_answer_zero(method: object) -> None:
    bench = Bench(method)
    assert bench.pruner.penalty().item() == 0
    assert bench.pruner.diagnostics() == {}
    frozen = Bench("asl").train()
    assert frozen.pruner.penalty().item() == 0


def test_the_penalty_works_in_a_loop_that_also_clips_and_accumulates() -> None:
    model = network()
    optimizer = sgd(model)
    pruner = thresher.prune(model, optimizer, "asl", "sparsity=90%", steps=12)
    for step in range(12):
        optimizer.zero_grad()
        for part in range(2):
            inputs, labels = batch(2 * step + part)
            ((F.cross_entropy(model(inputs), labels) + pruner.penalty()) / 2).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 0.5)
        optimizer.step()
    assert pruner.finish().sparsity == pytest.approx(0.9, abs=1e-3)
