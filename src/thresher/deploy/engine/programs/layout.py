"""Row strides, pads and places in the arena for the blobs of a graph."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass

from thresher.deploy.engine.capturing.graph import Graph, Step

RANGED = {"conv", "point", "norm"}  # steps that can work on any range of positions
CHAIN_VECTORS = 24  # below, a chain leaves too little for each thread
Key = tuple[int, int]


def taps(step: Step) -> list[tuple[int, int, int, int]]:
    """(phase row, phase column, dy, dx) of each kernel element, in the order of the weight."""
    a = step.attributes
    (sh, sw), (top, left), (dh, dw) = a["stride"], a["pad"], a["dilation"]
    found = []
    for ky in range(a["shape"][2]):
        for kx in range(a["shape"][3]):
            y, x = ky * dh - top, kx * dw - left
            found.append((y % sh, x % sw, y // sh, x // sw))
    return found


class Strides:
    """Which (h, w) share a row stride, and how many zero columns and rows each needs.

    A convolution reads its input at a constant offset from its output, so both must have equal strides.
    """

    def __init__(self, graph: Graph) -> None:
        self._up: dict[Key, Key] = {}
        self._need: dict[Key, tuple[int, int]] = defaultdict(lambda: (0, 0))
        for blob in graph.blobs:
            self._find((blob.h, blob.w))
        for step in graph.steps:
            if step.kind == "conv":
                self._convolution(graph, step)
        rows: dict[Key, int] = defaultdict(int)
        columns: dict[Key, int] = defaultdict(int)
        for h, w in self._up:
            root, (y, x) = self._find((h, w)), self._need[h, w]
            rows[root], columns[root] = max(rows[root], h + y), max(columns[root], w + x)
        self.pads = {(h, w): (columns[self._find((h, w))] - w, rows[self._find((h, w))] - h) for h, w in list(self._up)}

    def _find(self, key: Key) -> Key:
        up = self._up.setdefault(key, key)
        while up != self._up[up]:
            up = self._up[up]
        return up

    def _convolution(self, graph: Graph, step: Step) -> None:
        x, y = graph.blobs[step.reads[0]], graph.blobs[step.write]
        self._up[self._find((x.h, x.w))] = self._find((y.h, y.w))
        found = taps(step)
        # No two taps may have one offset, or the packed weight could not be read back.
        self._room(x.h, x.w, [tap[2] for tap in found], [tap[3] for tap in found])
        for _, _, dy, dx in found:
            rows = max(-dy, y.h - 1 + dy - (x.h - 1), 0)
            columns = max(-dx, y.w - 1 + dx - (x.w - 1), 0)
            old = self._need[x.h, x.w]
            self._need[x.h, x.w] = (max(old[0], rows), max(old[1], columns))

    def _room(self, h: int, w: int, dy: list[int], dx: list[int]) -> None:
        old = self._need[h, w]
        span = max(dy) - min(dy) + 1 - h, max(dx) - min(dx) + 1 - w
        self._need[h, w] = (max(old[0], span[0]), max(old[1], span[1]))


def is_pointwise(step: Step) -> bool:
    """Whether each output position depends on that position of the inputs only."""
    return step.kind != "conv" or all(dy == 0 and dx == 0 for _, _, dy, dx in taps(step))


@dataclass
class Group:
    """Steps first..last-1, run one after the other on each stripe of positions."""

    first: int
    last: int


def group(graph: Graph, vectors: dict[Key, int], *, chains: bool = True) -> list[Group]:
    """Chains of steps of one layout in which each reads what the chain wrote at its own positions only."""
    groups: list[Group] = []
    written: set[int] = set()
    for number, step in enumerate(graph.steps):
        out = graph.blobs[step.write]
        joins = False
        if chains and groups and step.kind in RANGED and graph.steps[groups[-1].first].kind in RANGED:
            head = graph.blobs[graph.steps[groups[-1].first].write]
            same = (head.h, head.w) == (out.h, out.w) and vectors[out.h, out.w] >= CHAIN_VECTORS
            joins = same and (is_pointwise(step) or not written & {root(graph, blob) for blob in step.sources()})
        if chains and number and is_depthwise_pair(graph, number - 1):
            joins = groups[-1].last - groups[-1].first == 1
        if joins:
            groups[-1].last = number + 1
        else:
            groups.append(Group(number, number + 1))
            written = set()
        written.add(root(graph, step.write))
    return groups


def is_depthwise_pair(graph: Graph, number: int) -> bool:
    """Whether step `number` makes phases that only a depthwise convolution reads, right after it."""
    if number + 1 >= len(graph.steps):
        return False
    first, second = graph.steps[number], graph.steps[number + 1]
    if first.kind != "phases" or second.kind != "conv" or second.reads != [first.write]:
        return False
    readers = [step for step in graph.steps if first.write in step.sources()]
    rows, channels, _, _ = second.attributes["shape"]
    blob = graph.blobs[first.write]
    depthwise = channels == 1 and rows == second.attributes["groups"] and blob.c == rows * len(blob.phases)
    outside = any(port.blob == first.write for port in graph.outputs) or blob.part_of is not None
    return len(readers) == 1 and depthwise and not outside


def root(graph: Graph, blob: int) -> int:
    """The blob whose memory `blob` lies in."""
    while (up := graph.blobs[blob].part_of) is not None:
        blob = up
    return blob


def place(graph: Graph, groups: list[Group], sizes: list[int]) -> tuple[list[int], int]:
    """First float of each blob, and of the end: memory is shared by blobs that are not alive at the same time.

    A blob that a k x k kernel reads needs its pads to be zero: it shares with blobs of the same shape only, which write
    zeros into the pads, as arenas start as zeros. Nothing is freed within a chain: later stripes still read it.
    """
    born: dict[int, int] = {}
    dies: dict[int, int] = {}
    padded: set[int] = set()
    for port in graph.inputs:  # all are read before the first step
        born[root(graph, port.blob)] = dies[root(graph, port.blob)] = -1
    for at, chain in enumerate(groups):
        for step in graph.steps[chain.first : chain.last]:
            for blob in [*step.sources(), step.write]:
                born.setdefault(root(graph, blob), at)
                dies[root(graph, blob)] = at
            if not is_pointwise(step):
                padded.add(root(graph, step.reads[0]))
    for port in graph.outputs:
        dies[root(graph, port.blob)] = len(groups)
    bases = [0] * len(graph.blobs)
    end = 0
    free: list[tuple[int, int]] = []  # (base, size), any shape
    kept: dict[tuple[int, int, int], list[int]] = defaultdict(list)  # pads are zero
    for blob, value in enumerate(graph.blobs):
        if value.constant is not None:
            bases[blob], end = end, end + sizes[blob]
    order = sorted(born, key=lambda blob: born[blob])
    alive: list[int] = []
    for blob in order:
        value = graph.blobs[blob]
        if value.constant is not None:
            continue
        for other in [other for other in alive if dies[other] < born[blob]]:
            alive.remove(other)
            past = graph.blobs[other]
            if other in padded:
                kept[past.c, past.h, past.w].append(bases[other])
            else:
                free.append((bases[other], sizes[other]))
        shape = (value.c, value.h, value.w)
        fits = sorted((size, base) for base, size in free if size >= sizes[blob])
        if blob in padded and kept[shape]:
            bases[blob] = kept[shape].pop()
        elif blob not in padded and fits:
            size, base = fits[0]
            free.remove((base, size))
            bases[blob] = base
            if size > sizes[blob]:
                free.append((base + sizes[blob], size - sizes[blob]))
        else:
            bases[blob], end = end, end + sizes[blob]
        alive.append(blob)
    return bases, end
