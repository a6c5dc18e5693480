"""The dense engines that the sparse one has to beat: torch as it is, ONNX Runtime, OpenVINO."""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from thresher.deploy.engine.capturing.capture import arguments_of
from thresher.deploy.engine.capturing.pieces import Capture


@dataclass
class Rival:
    """`call()` runs it on the example; `model` takes what the model takes."""

    call: Callable[[], Any]
    model: Any


def rivals(
    model: nn.Module, captured: Capture | None, example: Any, threads: int, names: list[str]
) -> tuple[dict[str, Rival], list[str]]:
    """The rivals that are installed and take the model; a note for each of the others."""
    args, kwargs = arguments_of(example)
    found: dict[str, Rival] = {}
    notes: list[str] = []
    for name in names:
        try:
            if name == "torch":
                found[name] = _torch(model, args, kwargs, threads)
            else:
                found[name] = _onnx(model, args, kwargs, threads, name)
        except ImportError as error:
            notes.append(f"{name} left out: {str(error).splitlines()[0]}")
        except Exception as error:  # what exporters and engines raise has no common base
            notes.append(f"{name} left out: {type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}")
    return found, notes


def _torch(model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], threads: int) -> Rival:
    def call() -> Any:
        before = torch.get_num_threads()
        if before != threads:
            torch.set_num_threads(threads)
        try:
            with torch.inference_mode():
                return model(*args, **kwargs)
        finally:
            if before != threads:
                torch.set_num_threads(before)

    return Rival(call, _Eval(model))


class _Eval:
    """The model in eval mode, whatever its flags say between calls."""

    def __init__(self, model: nn.Module) -> None:
        self.model = model

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        flags = [(module, module.training) for module in self.model.modules()]
        self.model.eval()
        try:
            return self.model(*args, **kwargs)
        finally:
            for module, flag in flags:
                module.training = flag


def _onnx(model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], threads: int, name: str) -> Rival:
    engine = __import__(name)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.onnx.export(model, args, kwargs=kwargs or None, dynamo=True, verbose=False)
        buffer = io.BytesIO()
        program.save(buffer)  # type: ignore[union-attr, arg-type]
    with torch.no_grad():
        outputs, spec = pytree.tree_flatten(model(*args, **kwargs))
    del outputs
    run = (
        _onnxruntime(engine, buffer.getvalue(), threads)
        if name == "onnxruntime"
        else _openvino(engine, buffer.getvalue(), threads)
    )

    def whole(*some: Any, **more: Any) -> Any:
        flat = [item for item in pytree.tree_flatten((some, more))[0] if isinstance(item, Tensor)]
        return pytree.tree_unflatten(run(flat), spec)

    tensors = [item for item in pytree.tree_flatten((args, kwargs))[0] if isinstance(item, Tensor)]
    return Rival(lambda: run(tensors), whole)


def _onnxruntime(engine: Any, data: bytes, threads: int) -> Callable[[list[Tensor]], list[Tensor]]:
    options = engine.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.log_severity_level = 3
    session = engine.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    names = [item.name for item in session.get_inputs()]

    def run(tensors: list[Tensor]) -> list[Tensor]:
        feed = {name: tensor.detach().contiguous().numpy() for name, tensor in zip(names, tensors, strict=True)}
        return [torch.from_numpy(array) for array in session.run(None, feed)]

    return run


def _openvino(engine: Any, data: bytes, threads: int) -> Callable[[list[Tensor]], list[Tensor]]:
    core = engine.Core()
    # Without the hint, some processors compute in bfloat16: another result, and no comparison.
    settings = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": threads, "NUM_STREAMS": 1}
    request = core.compile_model(core.read_model(io.BytesIO(data)), "CPU", settings).create_infer_request()

    def run(tensors: list[Tensor]) -> list[Tensor]:
        results = request.infer([tensor.detach().contiguous().numpy() for tensor in tensors])
        return [torch.from_numpy(array.copy()) for array in results.values()]

    return run
