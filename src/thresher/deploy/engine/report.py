"""What runs where, and how fast against dense."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True, kw_only=True)
class LayerReport:
    """One step of the engine, or one operator that runs in torch.

    `runs`: sparse, 4x1 blocks (the dense kernel too), bitmask (few positions; it says bfloat16 where the values are
    stored in it), another engine step, or torch. `zeros`: share of the weight.
    `seconds`: by itself, for the pictures that the program takes at once. `dense_seconds`: torch's own dense layer of
    that shape; None where not measured. `reason`: why it runs in torch.
    """

    name: str
    runs: str
    shape: tuple[int, ...]
    zeros: float | None = None
    seconds: float | None = None
    dense_seconds: float | None = None
    reason: str = ""


@dataclass(frozen=True, kw_only=True)
class EngineReport:
    """`fast.report()`: the `winner` runs the model; `seconds` of each engine tried, the outputs' `error` to torch's.

    `seconds` and `error` are of the example; with one thread, seconds of processor time. `mode`: how pictures of a
    batch are put together. `packed_bytes`: weights; `arena_bytes`: activations of one call. `note`: what was left out.
    `values`: float32, or bfloat16 where that was asked for: `error` is then to the model with weights rounded to it,
    and `rounding` is how far that model's outputs are from the model's own, as a share of the largest.
    """

    winner: str
    seconds: dict[str, float]
    error: float
    threads: int
    isa: str
    mode: str
    packed_bytes: int
    arena_bytes: int
    compile_seconds: float
    note: str
    layers: tuple[LayerReport, ...]
    values: str = "float32"
    rounding: float = 0.0

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)

    def __str__(self) -> str:
        dense = min((s for name, s in self.seconds.items() if name != "thresher"), default=None)
        lines = [f"runs with {self.winner} ({self.isa}, {self.threads} threads, {self.mode})"]
        if self.note:
            lines.append(f"note: {self.note}")
        lines += [
            f"  {name}: {seconds * 1e3:.3f} ms" for name, seconds in sorted(self.seconds.items(), key=lambda p: p[1])
        ]
        if dense is not None and "thresher" in self.seconds:
            lines.append(f"  against the best dense engine tried: {dense / self.seconds['thresher']:.2f}x")
        lines.append(f"largest difference to torch: {self.error:.1e} of the largest output")
        if self.values != "float32":
            lines.append(
                f"weights rounded to {self.values}, which changes the output by {self.rounding:.1e} of the largest"
            )
        for layer in self.layers:
            zeros = "" if layer.zeros is None else f" {layer.zeros:.1%} zeros"
            speed = "" if layer.seconds is None else f" {layer.seconds * 1e6:.0f} us"
            if layer.seconds and layer.dense_seconds:
                speed += f" (dense {layer.dense_seconds * 1e6:.0f}, {layer.dense_seconds / layer.seconds:.1f}x)"
            lines.append(f"  {layer.name}: {layer.runs}{zeros}{speed}{' - ' + layer.reason if layer.reason else ''}")
        return "\n".join(lines)
