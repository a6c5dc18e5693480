"""A graph laid out for a number of pictures at once, in the hands of the native library."""

from __future__ import annotations

import ctypes
import weakref
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from thresher.deploy.engine.capturing.graph import ACTIVATIONS, Graph, Step
from thresher.deploy.engine.library import native, pick_isa
from thresher.deploy.engine.programs.flat import can_lie_flat
from thresher.deploy.engine.programs.layout import RANGED, Group, Strides, group, place, root, taps
from thresher.errors import InputError, StateError

KINDS = (
    "input", "output", "conv", "point", "norm", "attention", "pool", "mean", "phases", "copy", "reshape", "scale",
)  # fmt: skip
KERNELS = ("sparse", "block4", "bitmask")
SPLITS = ("positions", "rows")


@dataclass(frozen=True)
class Blocking:
    """How one convolution runs: kernel, vectors a tile, channels a block (0: all), rows and tiles a group, split.

    Of the bitmask kernel only the tile counts: 2 spreads bfloat16 values as 16-bit words if the processor can.
    """

    kernel: str = "sparse"
    tile: int = 8
    channels: int = 0
    rows: int = 0
    tiles: int = 1
    split: str = "positions"


class Program:
    """`graph` over `images` pictures below one another and `lanes` side by side; `isa` as in `library.ISAS`.

    Reading and writing of ports are steps of their own, at the start and at the end. `flat`: as in flat.py.
    """

    def __init__(
        self,
        graph: Graph,
        *,
        images: int = 1,
        lanes: int = 1,
        isa: str | None = None,
        chains: bool = True,
        flat: bool = False,
    ):
        handle = native().handle
        if handle is None:
            raise StateError("an engine program", native().reason, "use the dense fallback")
        self.graph, self.images, self.lanes, self._lib = graph, images, lanes, handle
        if flat and (images, lanes, can_lie_flat(graph)) != (1, 1, True):
            raise InputError("a flat layout", "products at one position", "compile again")
        self.isa, self.flat = pick_isa(isa), flat
        pads = Strides(graph).pads
        layouts = [
            (1, 1, blob.c, 0, 0) if flat else (blob.c, blob.h, blob.w, *pads[blob.h, blob.w]) for blob in graph.blobs
        ]
        self._planes = [handle.thr_plane(images, lanes, *layout) for layout in layouts]
        sizes = [handle.thr_tensor_size(images, lanes, *layout) for layout in layouts]
        if max(plane * layout[0] for plane, layout in zip(self._planes, layouts, strict=True)) * 4 >= 2**31:
            raise StateError("a tensor of 2 GiB or more", "offsets of 32 bits", "use a smaller batch")
        vectors = {
            (b.h, b.w): -(-images * (b.h + pads[b.h, b.w][1]) * (b.w + pads[b.h, b.w][0]) * lanes // 16)
            for b in graph.blobs
        }
        self.vectors = vectors
        self.chains = group(graph, vectors, chains=chains)
        bases, self.arena = place(graph, self.chains, sizes)
        self._free = handle.thr_new(self.isa, images, lanes)
        self._finalizer = weakref.finalize(self, handle.thr_free, self._free)
        for number, layout in enumerate(layouts):
            top = root(graph, number)
            first, blob = 0, number
            while (up := graph.blobs[blob].part_of) is not None:
                first, blob = first + graph.blobs[blob].first, up
            handle.thr_add_tensor(self._free, *layout, bases[top] + first * self._planes[number])
            constant = graph.blobs[number].constant
            if constant is not None:
                values = constant.detach().float().contiguous()
                handle.thr_set_constant(self._free, number, values.data_ptr())
        handle.thr_set_arena(self._free, self.arena)
        for slot, port in enumerate(graph.inputs):
            self._op("input", [port.blob, slot])
        self.first = len(graph.inputs)  # number of the first step
        for step in graph.steps:
            self._add(step)
        for slot, port in enumerate(graph.outputs):
            self._op("output", [port.blob, slot])
        self._shapes = [tuple(port.shape) for port in graph.outputs]
        self._strides: dict[Any, tuple[Any, Any]] = {}  # of contiguous outputs, whatever the batch
        self.stripes = [0] * len(self.chains)
        self.blockings: dict[int, Blocking] = {}
        self.regroup()

    def _op(self, kind: str, ints: Sequence[int], floats: Any = ()) -> None:
        i = np.asarray(ints, np.int64)
        f = np.ascontiguousarray(floats, np.float32)
        self._lib.thr_add_op(self._free, KINDS.index(kind), i.ctypes.data, len(i), f.ctypes.data, f.size)

    def _add(self, step: Step) -> None:
        blobs, a = self.graph.blobs, step.attributes
        x, act = step.reads[0], ACTIVATIONS.index(step.activation)
        edge = [step.low, step.high]
        if step.kind == "conv":
            rows, channels, kh, kw = a["shape"]
            stored = blobs[x].phases or [(0, 0)]
            head = [x, step.write, -1 if step.residual is None else step.residual, act, rows, channels, a["groups"]]
            flat = []
            for py, px, dy, dx in taps(step):
                flat += [stored.index((py, px)), dy, dx]
            bias = np.zeros(rows, np.float32) if step.bias is None else step.bias.detach().float().numpy()
            self._op("conv", [*head, kh * kw, len(stored), *flat], np.concatenate([_numbers(edge), bias]))
        elif step.kind == "point":
            b = step.reads[1] if len(step.reads) > 1 else -1
            scale, shift = a.get("scale"), a.get("shift")
            affine = [] if scale is None else [np.asarray(scale, np.float32), np.asarray(shift, np.float32)]
            floats = np.concatenate([_numbers(edge), *affine])
            self._op("point", [x, b, step.write, int(a.get("multiply", False)), act, int(scale is not None)], floats)
        elif step.kind == "norm":
            weight = np.asarray(step.weight, np.float32).reshape(-1)
            bias = np.asarray(step.bias, np.float32).reshape(-1)
            self._op("norm", [x, step.write, 0], np.concatenate([_numbers([a["epsilon"]]), weight, bias]))
        elif step.kind == "attention":
            added = [] if a["bias"] is None else [np.asarray(a["bias"], np.float32).reshape(-1)]
            floats = np.concatenate([_numbers([a["scale"]]), *added])
            self._op("attention", [*step.reads, step.write, a["heads"], a["heads"]], floats)
        elif step.kind == "phases":
            stored = blobs[step.write].phases
            self._op("phases", [x, step.write, *a["stride"], len(stored), *(n for phase in stored for n in phase)])
        elif step.kind == "pool":
            self._op("pool", [x, step.write, *a["window"]])
        elif step.kind == "copy":
            self._op("copy", [x, step.write, *a["region"]])
        elif step.kind == "scale":
            self._op("scale", [x, step.reads[1], step.write])
        else:
            self._op(step.kind, [x, step.write])

    def pack(self, number: int, blocking: Blocking, weight: Tensor | None) -> None:
        """Lays out the weight of step `number`; None keeps the packed form and changes only how it is walked.

        Errors: InputError for a kernel that cannot run this step; StateError without memory.
        """
        values = None if weight is None else weight.detach().float().contiguous()
        code = self._lib.thr_pack(
            self._free,
            self.first + number,
            None if values is None else values.data_ptr(),
            KERNELS.index(blocking.kernel),
            blocking.tile,
            blocking.channels,
            blocking.rows,
            blocking.tiles,
            SPLITS.index(blocking.split),
        )
        if code == 1:
            raise InputError(f"kernel {blocking.kernel!r}", "one that can run this step", "compile again")
        if code:
            raise StateError("a packed weight", "memory for it", "free some")
        self.blockings[number] = blocking

    def takes_masks(self, number: int) -> bool:
        """Whether the bitmask kernel can run step `number`: a product at up to 16 positions."""
        return bool(self._lib.thr_takes_masks(self._free, self.first + number))

    def value_bytes(self, number: int) -> int:
        """Bytes of a packed value of step `number`: 2 for bfloat16."""
        return int(self._lib.thr_value_bytes(self._free, self.first + number))

    def unpack(self, number: int) -> Tensor:
        """The weight of step `number`, (rows, channels of a group, kh, kw)."""
        shape = self.graph.steps[number].attributes["shape"]
        weight = torch.empty(shape)
        self._lib.thr_unpack(self._free, self.first + number, weight.data_ptr())
        return weight

    def packed_bytes(self) -> int:
        """Bytes of all packed weights."""
        return sum(self._lib.thr_unpack(self._free, self.first + n, None) for n in self.blockings)

    def regroup(self, groups: Sequence[Group] | None = None, stripes: Sequence[int] | None = None) -> None:
        """Sets which steps run together, and how many vectors of positions at a time (0: all)."""
        if groups is not None:
            self.chains, self.stripes = list(groups), [0] * len(groups)
        if stripes is not None:
            self.stripes = list(stripes)
        flat = [n for slot in range(self.first) for n in (slot, slot + 1, 0)]
        for chain, stripe in zip(self.chains, self.stripes, strict=True):
            flat += [self.first + chain.first, self.first + chain.last, stripe]
        last = self.first + len(self.graph.steps)
        flat += [n for slot in range(len(self.graph.outputs)) for n in (last + slot, last + slot + 1, 0)]
        rows = np.asarray(flat, np.int64)
        self._lib.thr_set_groups(self._free, rows.ctypes.data, len(rows) // 3)

    def time(self, first: int, last: int, *, threads: int, rounds: int = 3, repeats: int = 1) -> float:
        """Seconds of the groups first..last-1 of `self.chains`, on whatever the arena holds."""
        return float(self._lib.thr_time(self._free, self.first + first, self.first + last, threads, rounds, repeats))

    def run(self, inputs: Sequence[Tensor], batch: int, *, threads: int, spread: bool = False) -> list[Tensor]:
        """Outputs for float32 tensors of the shapes of the ports; `spread`: each thread takes pictures of its own."""
        # A small network takes hardly longer than a few lines of Python: what can be remembered is.
        outputs = [torch.empty((batch, *shape)) for shape in self._shapes]
        steps = inputs[0].stride() if len(inputs) == 1 else tuple(tensor.stride() for tensor in inputs)
        strides = self._strides.get(steps)
        if strides is None:
            strides = self._strides[steps] = (
                _strides(self.graph.inputs, inputs, self.flat),
                _strides(self.graph.outputs, outputs, self.flat),
            )
        sources, targets = _pointers(inputs), _pointers(outputs)
        code = self._lib.thr_run(self._free, sources, strides[0], targets, strides[1], batch, threads, int(spread))
        if code:
            raise StateError("an engine call", "memory for the activations", "use a smaller batch")
        return outputs


def is_ranged(step: Step) -> bool:
    """Whether `step` can work on any range of positions."""
    return step.kind in RANGED


def _numbers(values: Any) -> Any:
    return np.asarray(values, np.float32)


def _pointers(tensors: Sequence[Tensor]) -> Any:
    return (ctypes.c_void_p * len(tensors))(*(tensor.data_ptr() for tensor in tensors))


def _strides(ports: Sequence[Any], tensors: Sequence[Tensor], flat: bool) -> Any:
    found = []
    for port, tensor in zip(ports, tensors, strict=True):
        image, channel, row, column = port.strides(tensor)
        found += [image, 0, 0, channel] if flat else [image, channel, row, column]
    return (ctypes.c_int64 * len(found))(*found)
