"""The engines that can run a model on this machine: each named, with its version or the reason why it is not there."""

from __future__ import annotations

import importlib
import tempfile
from importlib import util
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map

from thresher.deploy.bench.orders import BFLOAT16, FLOAT32, Built, Engine, LayerTime, Order, Run
from thresher.deploy.examples import call, finished, tensors
from thresher.deploy.export.onnx import runner, write_onnx
from thresher.deploy.latency import calls_for, elapsed
from thresher.errors import InputError


def pick(names: str | None = None) -> list[Engine]:
    """The engines with these names, joined by commas; None: all.

    >>> [engine.name for engine in pick("torch, onnxruntime")]
    ['torch', 'onnxruntime']

    Errors: InputError for an unknown name.
    """
    asked = list(ENGINES) if names is None else [name.strip() for name in names.split(",") if name.strip()]
    unknown = [name for name in asked if name not in ENGINES]
    if unknown or not asked:
        raise InputError(f"engines {names!r}", f"some of {', '.join(ENGINES)}, joined by commas", "correct the names")
    return [ENGINES[name] for name in dict.fromkeys(asked)]


def _as(precision: str, order: Order) -> tuple[nn.Module, Any]:
    model = finished(order.model)
    if precision == FLOAT32:
        return model.float(), order.example

    def narrow(leaf: Any) -> Any:
        return leaf.bfloat16() if isinstance(leaf, Tensor) and leaf.is_floating_point() else leaf

    return model.bfloat16(), tree_map(narrow, order.example)


def _eager(order: Order) -> Built:
    """Both memory formats, the faster one kept: nobody shall beat a baseline that was laid out badly."""
    torch.set_num_threads(order.threads)
    model, example = _as(order.precision, order)

    def forward(net: nn.Module, given: Any) -> Run:
        def run() -> Any:
            with torch.inference_mode():
                return call(net, given)

        return run

    found: list[tuple[float, Run, str]] = []
    layouts = [torch.contiguous_format]
    if any(tensor.dim() == 4 for tensor in tensors(example)):
        layouts.append(torch.channels_last)
    for layout in layouts:
        net: Any = finished(model)
        net.to(memory_format=layout)
        given = tree_map(lambda leaf, layout=layout: _laid_out(leaf, layout), example)
        run = forward(net, given)
        calls = calls_for(run, 0.02)
        seconds = min(elapsed(run, calls) for _ in range(3)) / calls
        found.append((seconds, run, str(layout).removeprefix("torch.")))
    _, run, note = min(found, key=lambda item: item[0])
    return Built(run, note)


def _laid_out(leaf: Any, layout: torch.memory_format) -> Any:
    return leaf.contiguous(memory_format=layout) if isinstance(leaf, Tensor) and leaf.dim() == 4 else leaf


def _inductor(order: Order) -> Built:
    torch.set_num_threads(order.threads)
    dynamo: Any = importlib.import_module("torch._dynamo")
    settings: Any = importlib.import_module("torch._inductor.config")
    model, example = _as(order.precision, order)
    # Beyond the limit torch falls back to eager without a word.
    dynamo.config.recompile_limit = max(dynamo.config.recompile_limit, 256)
    dynamo.config.fail_on_recompile_limit_hit = True
    with settings.patch(freezing=True), torch.no_grad():
        compiled = torch.compile(model, dynamic=False)
        call(compiled, example)

    def run() -> Any:
        with torch.no_grad():
            return call(compiled, example)

    return Built(run, "frozen weights")


def _onnxruntime(order: Order) -> Built:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        write_onnx(finished(order.model).float(), path, order.example, dynamic_batch=False)
        run = runner(path, threads=order.threads)
    return Built(lambda: run(order.example))


def _openvino(order: Order) -> Built:
    library: Any = importlib.import_module("openvino")
    core = library.Core()
    settings = {
        # Left to itself it computes in bfloat16 wherever the processor can, and looks twice as fast.
        "INFERENCE_PRECISION_HINT": "f32" if order.precision == FLOAT32 else "bf16",
        "INFERENCE_NUM_THREADS": order.threads,
        "NUM_STREAMS": 1,
    }
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        write_onnx(finished(order.model).float(), path, order.example, dynamic_batch=False)
        compiled = core.compile_model(core.read_model(str(path)), "CPU", settings)
    request = compiled.create_infer_request()
    given = [tensor.numpy() for tensor in tensors(order.example)]

    def run() -> Any:
        return [torch.from_numpy(output.copy()) for output in request.infer(given).values()]

    return Built(run, str(settings["INFERENCE_PRECISION_HINT"]))


def _own(order: Order) -> Built:
    """`thresher.compile`, and each layer's own time, where our engine is what it chose; weights in `precision`."""
    torch.set_num_threads(order.threads)
    compile_model: Any = importlib.import_module("thresher.deploy.engine").compile
    model, example = _as(FLOAT32, order)
    fast = compile_model(model, example, threads=order.threads, values=order.precision)

    def run() -> Any:
        with torch.inference_mode():
            return call(fast, example)

    report = fast.report()
    sums = "" if order.precision == FLOAT32 else ", float32 sums"
    if report.winner != "thresher":
        return Built(run, f"chose {report.winner}{sums}")
    return Built(run, report.mode + sums, tuple(_timed(layer) for layer in report.layers if layer.seconds is not None))


def _timed(layer: Any) -> LayerTime:
    dense = layer.dense_seconds
    return LayerTime(
        name=layer.name,
        runs=layer.runs,
        zeros=layer.zeros,
        milliseconds=1000 * layer.seconds,
        milliseconds_dense=None if dense is None else 1000 * dense,
    )


def _own_lacks() -> str | None:
    try:
        if util.find_spec("thresher.deploy.engine") is None:
            return "this release has no engine of its own"
        engine = importlib.import_module("thresher.deploy.engine")
    except Exception as error:  # a library that does not load raises errors of many kinds
        return f"thresher's engine does not load ({type(error).__name__}: {error})"
    return None if callable(getattr(engine, "compile", None)) else "thresher's engine has no compile()"


def _compiler() -> str | None:
    from thresher.deploy.bench.machine import compiler

    return None if compiler() else "no C++ compiler"


_BOTH = (FLOAT32, BFLOAT16)
ENGINES = {
    engine.name: engine
    for engine in (
        Engine(name="torch", packages=("torch",), precisions=_BOTH, build=_eager),
        Engine(name="inductor", packages=("torch",), precisions=_BOTH, build=_inductor, lacks=_compiler),
        Engine(
            name="onnxruntime",
            packages=("onnxruntime", "onnxscript"),
            precisions=(FLOAT32,),  # its CPU kernels for bfloat16 are few
            build=_onnxruntime,
        ),
        Engine(name="openvino", packages=("openvino", "onnxscript"), precisions=_BOTH, build=_openvino),
        Engine(name="thresher", packages=("thresher",), precisions=_BOTH, build=_own, lacks=_own_lacks),
    )
}
