"""Builds the engine's graph while a torch.export graph is walked: values, their meaning, and what may be fused."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor, fx

from thresher.deploy.engine.capturing.graph import Graph, Port, Step

ONE = (1, 1)


class UnsupportedError(Exception):
    """The engine has no step for this; it runs in torch. The text says what is missing."""


@dataclass(frozen=True)
class Value:
    """A tensor inside the engine.

    `form`: what the dimensions of the torch tensor mean; beyond those of `Port`: bthd (B, T, heads, depth) and
    bhtd (B, heads, T, depth), both stored as (heads x depth, 1, T). `pad`: zeros around an image (left, right, top,
    bottom) that are not stored.
    """

    blob: int
    form: str
    heads: int = 1
    pad: tuple[int, int, int, int] = (0, 0, 0, 0)


class Builder:
    """One piece of the network: the graph so far, and which torch.fx node stands for which value."""

    def __init__(self, batch: int) -> None:
        self.batch = batch
        self.graph = Graph()
        self.env: dict[fx.Node, Any] = {}  # Value, or what a constant node is worth
        self.imports: list[fx.Node] = []
        self._imported: dict[tuple[fx.Node, str], Value] = {}

    def blob(self, value: Value) -> Any:
        """The blob of `value`."""
        return self.graph.blobs[value.blob]

    def constant(self, argument: Any) -> Any:
        """A number, list or tensor that is known now.

        Errors: UnsupportedError when it depends on the input.
        """
        if isinstance(argument, (list, tuple)):
            return [self.constant(item) for item in argument]
        if not isinstance(argument, fx.Node):
            return argument
        known = self.env.get(argument, self)
        if known is self or isinstance(known, Value):
            raise UnsupportedError("an argument that depends on the input")
        return known

    def is_constant(self, argument: Any) -> bool:
        """Whether `constant` would return."""
        return not isinstance(argument, fx.Node) or not isinstance(self.env.get(argument, Value(0, "")), Value)

    def value(self, node: Any, *forms: str, pad: bool = False) -> Value:
        """The value of `node` in one of `forms` (any when none is named); read from torch when it is not here yet.

        Errors: UnsupportedError.
        """
        if not isinstance(node, fx.Node) or self.is_constant(node):
            raise UnsupportedError("a constant where the engine takes a tensor")
        found = self.env.get(node)
        if not isinstance(found, Value):
            found = self._import(node, forms)
        if forms and found.form not in forms:
            raise UnsupportedError(f"a tensor used as {' or '.join(forms)} that is {found.form}")
        if any(found.pad) and not pad:
            raise UnsupportedError("zero padding before anything but a convolution")
        return found

    def _import(self, node: fx.Node, forms: tuple[str, ...]) -> Value:
        import torch

        tensor = node.meta.get("val")
        if not isinstance(tensor, Tensor) or tensor.dtype != torch.float32 or tensor.ndim < 2:
            raise UnsupportedError("a tensor that is not float32 with a batch dimension")
        if any(not isinstance(n, int) for n in tensor.shape) or tensor.shape[0] != self.batch:
            raise UnsupportedError("a tensor whose first dimension is not the batch")
        natural = {2: "flat", 3: "tokens", 4: "image"}.get(tensor.ndim)
        choices = forms or ((natural,) if natural else ())
        dims = {"flat": 2, "tokens": 3, "sequence": 3, "image": 4, "nhwc": 4}
        form = natural if natural in choices else next((f for f in choices if dims.get(f) == tensor.ndim), None)
        if form is None:
            raise UnsupportedError(f"a tensor of {tensor.ndim} dimensions")
        key = (node, form)
        if key not in self._imported:
            blob = self.graph.blob(*chw(form, tuple(tensor.shape[1:])))
            self.graph.inputs.append(Port(blob, form, tuple(tensor.shape[1:])))
            self.imports.append(node)
            self._imported[key] = Value(blob, form)
        return self._imported[key]

    def add(self, kind: str, reads: list[int], c: int, h: int = 1, w: int = 1, **more: Any) -> int:
        """Appends a step that writes a new blob; the blob's number."""
        out = self.graph.blob(c, h, w)
        self.graph.steps.append(Step(kind, reads, out, **more))
        return out

    def fusable(self, node: Any, value: Value, when: Callable[[Step], bool]) -> Step | None:
        """The step that wrote `value`, if nothing else reads it and `when` holds."""
        if not isinstance(node, fx.Node) or len(node.users) != 1 or self.blob(value).part_of is not None:
            return None
        step = self.graph.writer(value.blob)
        read = any(value.blob in other.sources() for other in self.graph.steps)
        return step if step is not None and not read and when(step) else None


def chw(form: str, shape: tuple[int, ...]) -> tuple[int, int, int]:
    """(channels, rows, columns) of a torch shape without its batch.

    >>> chw("tokens", (128, 768))
    (768, 1, 128)
    """
    if form == "image":
        return shape[0], shape[1], shape[2]
    if form == "nhwc":
        return shape[2], shape[0], shape[1]
    if form == "sequence":
        return shape[0], 1, shape[1]
    if form == "tokens":
        return shape[1], 1, shape[0]
    return shape[0], 1, 1
