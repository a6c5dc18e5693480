"""The tuned plan on disk: sparse weights and a JSON header in one safetensors file; reading it runs nothing."""

from __future__ import annotations

import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from torch.utils import _pytree as pytree

from thresher.deploy.engine.capturing.builder import Value
from thresher.deploy.engine.capturing.pieces import Capture, EnginePiece, pieces_of
from thresher.deploy.engine.library import ISAS, native
from thresher.deploy.engine.programs.planning import Plan, packed
from thresher.deploy.engine.programs.program import KERNELS, SPLITS, Blocking
from thresher.deploy.engine.programs.record import graph_of, graph_record
from thresher.deploy.engine.programs.runner import Example, Runner
from thresher.deploy.engine.report import EngineReport, LayerReport
from thresher.deploy.storage import load_state, save
from thresher.errors import InputError, StateError

KIND, VERSION = "thresher-engine", 1


def write(
    captured: Capture | None,
    runner: Runner | None,
    plan: Plan | None,
    rival: Any,
    report: EngineReport,
    path: str | Path,
) -> None:
    """Writes one compiled model.

    Errors: StateError when parts of it run in torch, or another engine won.
    """
    if captured is None or runner is None or plan is None or rival is not None:
        raise StateError(f"a model that runs with {report.winner}", "one that the sparse engine runs", "save the model")
    if captured.reasons or len(captured.pieces) != 1:
        raise StateError(
            f"parts that run in torch: {', '.join(captured.reasons) or 'none, but several pieces'}",
            "a model that runs in the engine as a whole",
            "save the model itself, and compile it after loading",
        )
    piece = pieces_of(captured)[0]
    program = runner.programs[0]
    graph, tensors = graph_record(piece.graph, {n: program.unpack(n) for n in program.blockings})
    record = {
        "kind": KIND,
        "version": VERSION,
        "graph": graph,
        "sources": piece.sources,
        "targets": piece.targets,
        "values": [[value.form, value.heads, list(value.pad)] for value in piece.values],
        "inputs": captured.inputs,
        "outputs": captured.outputs,
        "in_spec": _spec(captured.in_spec),
        "out_spec": _spec(captured.out_spec),
        "batch": captured.batch,
        "examples": [_example(item) for item in captured.examples],
        "images": plan.images,
        "lanes": plan.lanes,
        "spread": plan.spread,
        "flat": plan.flat,
        "threads": runner.threads,
        "isa": ISAS[program.isa],
        "blockings": {str(n): asdict(b) for n, b in program.blockings.items()},
        "chains": [list(chain) for chain in plan.chains[0]],
        "report": report.to_dict(),
    }
    save(tensors, path, record=record)


def load_compiled(path: str | Path, *, threads: int | None = None) -> Any:
    """The compiled model of a file that `Compiled.save` wrote, with its tuned choices; nothing is timed again.

    On a processor without the instructions of the file, the best that it has are used, with the same choices.

    Errors: InputError for any other or an altered file; StateError when the kernel library is missing.
    """
    from thresher.deploy.engine.compiled import Compiled

    begun = time.perf_counter()
    handle = native().handle
    if handle is None:
        raise StateError(f"an engine file ({native().reason})", "the kernel library", "install with a C++ compiler")
    tensors, record = load_state(path)
    if record.get("kind") != KIND or record.get("version") != VERSION:
        raise _refused(f"a file of kind {record.get('kind')!r}, version {record.get('version')!r}")
    graph = graph_of(record.get("graph", {}), tensors)
    try:
        values = [Value(0, form, heads, tuple(pad)) for form, heads, pad in record["values"]]
        piece = EnginePiece(graph, list(record["sources"]), list(record["targets"]), values)
        captured = Capture(
            [piece], record["inputs"], record["outputs"], {}, _unspec(record["in_spec"]), _unspec(record["out_spec"]),
            [Example(tuple(e["shape"]), torch.float32) if isinstance(e, dict) else e for e in record["examples"]],
            int(record["batch"]),
        )  # fmt: skip
        blockings = {int(n): _blocking(b) for n, b in record["blockings"].items()}
        chains = [(int(a), int(b), max(0, int(s))) for a, b, s in record["chains"]]
        images, lanes = int(record["images"]), int(record["lanes"])
        if not 0 < images <= 4096 or lanes not in (1, 16):
            raise ValueError("pictures at once")
        flat = [bool(item) for item in record.get("flat", [])]
        if flat not in ([], [False], [True]):
            raise ValueError("layouts")
        plan = Plan(images, lanes, bool(record["spread"]), [blockings], [chains], flat)
        weights = {
            n: step.weight for n, step in enumerate(graph.steps) if step.kind == "conv" and step.weight is not None
        }
        if set(weights) != set(blockings):
            raise ValueError("blockings")
        for n, blocking in blockings.items():  # four rows of one block read the same channels
            groups = graph.steps[n].attributes["groups"]
            if blocking.kernel == "block4" and groups > 1 and weights[n].shape[0] // groups % 4:
                raise ValueError("four rows of different groups")
        threads = int(record["threads"]) if threads is None else threads
        if not 0 < threads <= 1024:
            raise ValueError("threads")
        isa = record["isa"] if record["isa"] in ISAS and handle.thr_has_isa(ISAS.index(record["isa"])) else None
        layers = tuple(
            LayerReport(**{**layer, "shape": tuple(layer["shape"])}) for layer in record["report"].pop("layers")
        )
        report = EngineReport(**record["report"], layers=layers)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise _refused(f"a header that does not hold together ({type(error).__name__}: {str(error)[:80]})") from error
    runner = packed(captured, plan, threads, isa, [weights])
    for step in graph.steps:
        if step.kind == "conv":
            step.weight = None
    report = replace(report, threads=threads, compile_seconds=time.perf_counter() - begun)
    return Compiled(captured, runner, plan, None, report)


def _blocking(fields: dict[str, Any]) -> Blocking:
    found = Blocking(**fields)
    numbers = (found.tile, found.channels, found.rows, found.tiles)
    good = all(type(n) is int and 0 <= n < 2**20 for n in numbers) and found.tile > 0
    if not good or found.kernel not in KERNELS or found.split not in SPLITS:
        raise ValueError("blocking")
    return found


def _example(item: Any) -> Any:
    if isinstance(item, Example):
        if item.dtype != torch.float32:
            raise StateError(f"an input of {item.dtype}", "float32 inputs", "save the model itself")
        return {"shape": list(item.shape)}
    return item


def _spec(spec: Any) -> Any:
    try:
        return pytree.treespec_dumps(spec)
    except Exception:  # a class that pytree cannot name: a dict of its keys stands in for it
        keys = spec.context if isinstance(spec.context, list) else None
        if not keys or len(keys) != spec.num_leaves:
            raise StateError(
                f"outputs of type {spec.type}", "tensors, tuples, lists or dicts", "wrap the model"
            ) from None
        return {"keys": [str(key) for key in keys]}


def _unspec(text: Any) -> Any:
    if isinstance(text, dict):
        return pytree.tree_flatten({str(key): 0 for key in text["keys"]})[1]
    return pytree.treespec_loads(text)


def _refused(given: str) -> InputError:
    return InputError(given, f"a file of kind {KIND!r}, version {VERSION}", "compile and save again")
