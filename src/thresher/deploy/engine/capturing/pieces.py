"""What a captured network consists of: engine graphs, and torch operators between them."""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import fx

from thresher.deploy.engine.capturing.builder import Value
from thresher.deploy.engine.capturing.graph import Graph


@dataclass
class EnginePiece:
    """An engine graph: reads the torch tensors of `sources`, writes those of `targets`."""

    graph: Graph
    sources: list[str]
    targets: list[str]
    values: list[Value]  # of each target


@dataclass
class TorchPiece:
    """One operator that runs in torch, and why."""

    node: fx.Node
    reason: str


@dataclass
class Capture:
    """The whole network; names are those of the torch.export graph."""

    pieces: list[EnginePiece | TorchPiece]
    inputs: list[str]
    outputs: list[Any]  # a name, or a constant
    constants: dict[str, Any]
    in_spec: Any
    out_spec: Any
    examples: list[Any]
    batch: int

    @property
    def reasons(self) -> dict[str, str]:
        """What runs in torch, and why."""
        return {p.node.name: f"{base(p.node)}: {p.reason}" for p in self.pieces if isinstance(p, TorchPiece)}

    @property
    def any_batch(self) -> bool:
        """Whether other batch sizes than the example's can run."""
        return not self.reasons


def base(node: fx.Node) -> str:
    """`aten.conv2d` for aten.conv2d.default, `aten.add` for aten.add.Tensor."""
    parts = str(node.target).split(".")
    return ".".join(parts[:2]) if len(parts) > 2 else str(node.target).removesuffix(".default")


def pieces_of(captured: Capture) -> list[EnginePiece]:
    """The engine's pieces."""
    return [piece for piece in captured.pieces if isinstance(piece, EnginePiece)]


def constants_in_torch(captured: Capture) -> dict[str, Any]:
    """The constants that operators in torch read; the engine's own are packed."""
    read = {source.name for p in captured.pieces if isinstance(p, TorchPiece) for source in p.node.all_input_nodes}
    return {name: value for name, value in captured.constants.items() if name in read}


def run_node(node: fx.Node, known: Mapping[str, Any]) -> Any:
    """The result of one torch operator on values by name."""
    target: Callable[..., Any] = operator.getitem if node.target is operator.getitem else node.target  # type: ignore[assignment]
    args = fx.node.map_arg(node.args, lambda source: known[source.name])
    kwargs = fx.node.map_arg(node.kwargs, lambda source: known[source.name])
    return target(*args, **kwargs)
