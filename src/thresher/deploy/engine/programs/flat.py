"""The layout for one position: the channels of a tensor lie side by side, not each in a plane of its own."""

from __future__ import annotations

from thresher.deploy.engine.capturing.graph import Graph, Step


def can_lie_flat(graph: Graph) -> bool:
    """Whether `graph` consists of products and elementwise steps at a single position, as in decoding one token."""
    plain = all((b.h, b.w) == (1, 1) and b.part_of is None and b.constant is None and not b.phases for b in graph.blobs)
    ports = all(port.form in {"flat", "tokens"} for port in [*graph.inputs, *graph.outputs])
    return plain and ports and all(_is_flat(step) for step in graph.steps)


def _is_flat(step: Step) -> bool:
    if step.kind == "point":
        return step.attributes.get("scale") is None
    if step.kind != "conv":
        return False
    a = step.attributes
    _, channels, kh, kw = a["shape"]
    return (kh, kw) == (1, 1) == tuple(a["stride"]) and a["groups"] == 1 and channels > 1
