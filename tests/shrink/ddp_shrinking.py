"""What each of two processes does in `test_shrink_data.py`; a module of its own, so that spawn can import it."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, distributed, nn

import thresher


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 24), nn.ReLU(), nn.Linear(24, 16), nn.ReLU(), nn.Linear(16, 3))


def batch(number: int) -> Tensor:
    return torch.randn(40, 6, generator=torch.Generator().manual_seed(number))


def shrunk(data: list[Tensor], method: object, **options: object) -> list[Tensor]:
    small = thresher.shrink(network(), method, calibration=data, **(options or {"keep": {"0": 8, "2": 6}}))
    return [tensor for tensor in small.state_dict().values()]


def reconstructed(data: list[Tensor]) -> list[Tensor]:
    dense = network()
    everything = [batch(0), batch(1), batch(2)]  # one plan for all; what is fitted is each process's own data
    keep = {"0": 8, "2": 6}
    found = thresher.shrink_plan(dense, "l2", keep=keep, calibration=everything)
    thresher.reconstruct(found.model, dense, data, plan=found.plan)
    return list(found.model.state_dict().values())


def worker(rank: int, port: int, folder: str) -> None:
    """Two batches for rank 0, one for rank 1: moments add up whatever each has."""
    torch.set_num_threads(1)
    distributed.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=2)
    try:
        data = [batch(0), batch(1)] if rank == 0 else [batch(2)]
        results = [shrunk(data, method) for method in (thresher.ISpaSP(), thresher.ISpaSP(score="l1"))]
        results.append(reconstructed(data))
        # One process could hold its data, the other could not: then neither does.
        results.append(shrunk(data, "ispasp", budget="flops=50%", memory=1 << (30 if rank else 10)))
        torch.save(results, Path(folder) / f"{rank}.pt")
    finally:
        distributed.destroy_process_group()
