"""From a model and an example to pieces: engine graphs, and torch operators between them."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.utils import _pytree as pytree

from thresher.deploy.engine.capturing.builder import Builder, UnsupportedError, Value
from thresher.deploy.engine.capturing.graph import Port
from thresher.deploy.engine.capturing.lowering import RULES
from thresher.deploy.engine.capturing.pieces import Capture, EnginePiece, TorchPiece, base
from thresher.errors import InputError

_STORED = {"bhtd": "tokens", "bthd": "tokens"}  # how a value leaves the engine


def arguments_of(example: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Positional and keyword arguments of an example: a tensor, a tuple or list, or a dict.

    >>> arguments_of(1)
    ((1,), {})
    """
    if isinstance(example, Mapping):
        return (), dict(example)
    return (tuple(example), {}) if isinstance(example, (tuple, list)) else ((example,), {})


def capture(model: nn.Module, example: Any) -> Capture:
    """Traces `model` (in eval mode) with torch.export and sorts its operators into pieces.

    Errors: InputError when torch.export refuses the model, or the example has no batch of float numbers.
    """
    args, kwargs = arguments_of(example)
    flat, in_spec = pytree.tree_flatten((args, kwargs))
    tensors = [item for item in flat if isinstance(item, Tensor)]
    if not tensors or any(item.device.type != "cpu" for item in tensors):
        raise InputError("an example without tensors, or not on the CPU", "CPU tensors", "pass example.cpu()")
    try:
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")
            program = torch.export.export(model, args, kwargs, strict=False)
            if _needs_functional(program.graph):
                program = program.run_decompositions({})
    except Exception as error:  # torch.export raises what it likes
        text = str(error).strip().splitlines()
        raise InputError(
            f"a model that torch.export does not take: {text[0] if text else type(error).__name__}",
            "a model without branches that depend on values",
            "run it in torch, or change what the message names",
        ) from error
    return _Walk(program, flat, in_spec, tensors[0].shape[0]).result


def _needs_functional(graph: fx.Graph) -> bool:
    """Whether something reads a tensor after it was changed in place, or through a view of it."""
    for node in graph.nodes:
        if node.op == "call_function" and base(node).endswith("_") and not base(node).endswith("__"):
            changed = node.args[0] if node.args else None
            if not isinstance(changed, fx.Node) or len(changed.users) > 1 or changed.op == "placeholder":
                return True
            if any(word in base(changed) for word in ("view", "select", "slice", "transpose", "permute", "expand")):
                return True
    return False


class _Walk:
    def __init__(self, program: Any, flat: list[Any], in_spec: Any, batch: int) -> None:
        self.batch = batch
        self.pieces: list[EnginePiece | TorchPiece] = []
        self.targets: list[str] = []
        self.values: list[Value] = []
        self.constants: dict[fx.Node, Any] = {}
        self.builder = Builder(batch)
        self.homes: dict[fx.Node, tuple[int, Value]] = {}  # node -> piece that made it, value there
        self.outside: set[fx.Node] = set()  # exists as a torch tensor
        inputs = self._placeholders(program)
        for node in program.graph.nodes:
            if node.op == "call_function":
                self._call(node)
            elif node.op == "output":
                outputs = [self._output(item) for item in node.args[0]]
        self._close()
        self.result = Capture(
            pieces=self.pieces,
            inputs=inputs,
            outputs=outputs,
            constants={node.name: value for node, value in self.constants.items()},
            in_spec=in_spec,
            out_spec=program.call_spec.out_spec,
            examples=flat,
            batch=batch,
        )

    def _placeholders(self, program: Any) -> list[str]:
        signature, user = program.graph_signature, []
        if signature.buffers_to_mutate or signature.user_inputs_to_mutate:
            raise InputError("a model that changes its buffers or inputs", "a model in eval mode", "call model.eval()")
        state = {**program.state_dict, **program.constants}
        names = {
            **signature.inputs_to_parameters,
            **signature.inputs_to_buffers,
            **getattr(signature, "inputs_to_lifted_tensor_constants", {}),
        }
        for node in program.graph.nodes:
            if node.op == "placeholder":
                if node.name in names:
                    held = state[names[node.name]]
                    self.constants[node] = held.detach() if isinstance(held, Tensor) else held
                elif isinstance(node.meta.get("val"), Tensor):
                    self.outside.add(node)
                    user.append(node.name)
                else:
                    self.constants[node] = node.meta.get("val")
                    user.append(node.name)
        self.builder.env.update(self.constants)
        return user

    def _call(self, node: fx.Node) -> None:
        if not node.users:
            return
        needs = node.all_input_nodes
        if all(source in self.constants for source in needs):
            with torch.no_grad():
                args, kwargs = _filled(node.args, self.constants), _filled(node.kwargs, self.constants)
                self._know(node, node.target(*args, **kwargs))  # type: ignore[operator]
            return
        try:
            value = self._lower(node)
        except UnsupportedError as reason:
            self._torch(node, str(reason))
            return
        for source in self.builder.imports:
            self._leave(source)
        self.builder.env[node] = value
        self.homes[node] = (len(self.pieces), value)

    def _know(self, node: fx.Node, value: Any) -> None:
        self.constants[node] = self.builder.env[node] = value

    def _lower(self, node: fx.Node) -> Value:
        rule = RULES.get(base(node))
        if rule is None:
            raise UnsupportedError("not among the engine's operators")
        if not isinstance(node.meta.get("val"), Tensor):
            raise UnsupportedError("more than one result")
        schema = node.target._schema.arguments  # type: ignore[union-attr]
        given = {a.name: a.default_value if a.has_default_value() else None for a in schema}
        given |= {a.name: value for a, value in zip(schema, node.args, strict=False)}
        given |= dict(node.kwargs)
        return rule(self.builder, node, given)

    def _torch(self, node: fx.Node, reason: str) -> None:
        for source in node.all_input_nodes:
            self._leave(source)
        self._close()
        for source in node.all_input_nodes:
            self._leave(source)
        self.pieces.append(TorchPiece(node, reason))
        self.outside.add(node)

    def _leave(self, node: fx.Node) -> None:
        """Makes sure that the value of `node` exists as a torch tensor."""
        if node in self.outside or node in self.constants or node not in self.homes:
            return
        at, value = self.homes[node]
        piece = self.pieces[at] if at < len(self.pieces) else None
        assert not isinstance(piece, TorchPiece)
        graph = piece.graph if piece else self.builder.graph
        shape = tuple(node.meta["val"].shape[1:])
        form = _STORED.get(value.form, value.form)
        blob = graph.blobs[value.blob]
        if form != value.form:
            shape = (blob.w, blob.c)
        elif any(value.pad):
            shape = (blob.c, blob.h, blob.w) if form == "image" else (blob.c, blob.w)
        graph.outputs.append(Port(value.blob, form, shape))
        targets, values = (piece.targets, piece.values) if piece else (self.targets, self.values)
        targets.append(node.name)
        values.append(value)
        self.outside.add(node)

    def _output(self, item: Any) -> Any:
        if isinstance(item, fx.Node) and item not in self.constants:
            self._leave(item)
            return item.name
        return self.constants[item] if isinstance(item, fx.Node) else item

    def _close(self) -> None:
        """Ends the engine piece; what it made stays in the engine until something asks for it."""
        here = [node for node, (at, _) in self.homes.items() if at == len(self.pieces)]
        if self.builder.graph.steps:
            sources = [node.name for node in self.builder.imports]
            self.pieces.append(EnginePiece(self.builder.graph, sources, self.targets, self.values))
        else:  # names only, of tensors that torch holds
            for node in here:
                del self.homes[node]
            self.pieces += [TorchPiece(node, "nothing to compute before it") for node in here]
            self.outside |= set(here)
        self.targets, self.values = [], []
        self.builder = Builder(self.batch)
        self.builder.env.update(self.constants)


def _filled(arguments: Any, known: Mapping[fx.Node, Any]) -> Any:
    return fx.node.map_arg(arguments, lambda node: known[node])
