"""Two processes over gloo: the same weights and thresholds on both, and exactly the budget."""

import socket
from pathlib import Path

import pytest
import torch
from method_bench import STEPS, batch, network, sgd, zeros_of
from torch import distributed as dist
from torch import multiprocessing
from torch.nn import functional as F
from torch.nn.parallel import DistributedDataParallel

import thresher

# Wrapping first or pruning first: users do either.
RUNS = [("lats", "wrap first"), ("lats", "prune first"), ("gmp", "wrap first")]
RUNS += [("asl", "wrap first"), ("ltp", "prune first"), ("str", "wrap first")]


def worker(rank: int, port: int, folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=2)
    try:
        for name, order in RUNS:
            model = network()
            wrapped = DistributedDataParallel(model) if order == "wrap first" else None
            optimizer = sgd(model)
            pruner = thresher.prune(wrapped or model, optimizer, name, "sparsity=90%", steps=STEPS)
            wrapped = wrapped or DistributedDataParallel(model)
            for step in range(STEPS):
                inputs, labels = batch(2 * step + rank)  # each process sees its own half
                optimizer.zero_grad()
                F.cross_entropy(wrapped(inputs), labels).backward()
                optimizer.step()
            assert pruner.targets[0].name == "0.weight"
            thresholds = pruner.process.thresholds()
            pruner.finish()
            torch.save(
                {"weights": dict(model.named_parameters()), "thresholds": thresholds, "zeros": zeros_of(pruner)},
                f"{folder}/{name}-{order}-{rank}.pt",
            )
    finally:
        dist.destroy_process_group()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.mark.skipif(not dist.is_available() or not dist.is_gloo_available(), reason="torch without gloo")
@pytest.mark.timeout(120)
def test_two_processes_agree_and_end_exactly(tmp_path: Path) -> None:
    context = multiprocessing.spawn(worker, (free_port(), str(tmp_path)), nprocs=2, join=False)
    try:
        assert context.join(timeout=100, grace_period=5) or context.join(timeout=5)
    finally:
        for process in context.processes:
            if process.is_alive():
                process.kill()
    for name, order in RUNS:
        first, second = (torch.load(tmp_path / f"{name}-{order}-{rank}.pt", weights_only=True) for rank in (0, 1))
        zeros, entries = first["zeros"]
        assert zeros == second["zeros"][0] == int(0.9 * entries)
        assert first["thresholds"] == second["thresholds"]
        assert max(first["thresholds"]) > 0
        for key, value in first["weights"].items():
            assert torch.equal(value, second["weights"][key]), (name, order, key)
    # Which came first makes no difference.
    one, other = (
        torch.load(tmp_path / f"lats-{order}-0.pt", weights_only=True) for order in ("wrap first", "prune first")
    )
    assert one["thresholds"] == other["thresholds"]
    assert all(torch.equal(value, other["weights"][key]) for key, value in one["weights"].items())
