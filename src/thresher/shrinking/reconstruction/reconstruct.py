"""`thresher.reconstruct`: every layer of a smaller network fitted to what the dense network gives at that place."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from itertools import islice
from typing import Any, cast

import torch
from torch import fx, nn
from torch.nn.modules.batchnorm import _BatchNorm

from thresher.budget.counts import eval_mode
from thresher.budget.linear import matrix_of
from thresher.errors import InputError
from thresher.recovery.moments import inputs_of, placed
from thresher.recovery.ranks import all_agree
from thresher.recovery.reading import can_unfold, channels_of, readable, taps_of
from thresher.shrinking.layers import MOST_ROWS, tied
from thresher.shrinking.reconstruction.fitting import RIDGE, Fit
from thresher.shrinking.reconstruction.layer import Layer, LayerFit
from thresher.shrinking.reconstruction.pairing import norm_after, sum_after, traced
from thresher.structure import ShrinkPlan


def reconstruct(
    small: nn.Module,
    dense: nn.Module,
    batches: Iterable[Any],
    *,
    plan: ShrinkPlan | None = None,
    limit: int | None = None,
    ridge: float = RIDGE,
    most_rows: int = MOST_ROWS,
) -> tuple[LayerFit, ...]:
    """Fit the layers of `small`, in the order in which they run, to what those of `dense` give, in place.

    A layer is given what the layers already fitted make, and should give what its twin in the dense network gives: so
    it makes up for errors before it, while the refit of `thresher.shrink` keeps to its own layer. Where its output is
    added to something (a residual stream), it also makes up for what that other side is short of. Biases are fitted
    along; a batch norm behind a layer is set anew, with the statistics of what the layer gives now, so that it does in
    training mode what it does in eval mode. No labels, no gradients: one linear system a layer.

    Args:
        small: what `thresher.shrink` made of `dense`. dense: left as it is.
        batches: unlabeled inputs (tensors, (inputs, labels), mappings); all of them are held in memory at once, with
            what is alive in both networks between two layers. A few hundred samples do.
        plan: what was cut; without it, layers that lost outputs are not fitted.
        limit: at most that many batches. ridge: of the fit, towards the weights that are there, as a share of the mean
            input energy. most_rows: layers that read more channel-taps are left out.

    Returns: what was fitted. Left out are grouped and transposed convolutions, tied weights, layers that run twice.
    Errors: InputError for networks that are not twins or cannot be traced, or no batches; NumericsError for NaN or
    infinity. After an error the weights are what they were.
    Source: He, Zhang, Sun 2017, arXiv 1707.06168, reconstruct to the dense outputs and correct for a residual stream;
    the ridge, the intercept, and the fit of every layer instead of the readers alone are additions.

    >>> _ = torch.manual_seed(0)
    >>> dense = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 2))
    >>> x = torch.randn(64, 4)
    >>> import thresher
    >>> found = thresher.shrink_plan(dense, "ispasp", "params=60%", calibration=[x])
    >>> before = (found.model(x) - dense(x)).square().sum()
    >>> fits = reconstruct(found.model, dense, [x], plan=found.plan)
    >>> bool((found.model(x) - dense(x)).square().sum() < before), [fit.name for fit in fits]
    (True, ['2', '4'])
    """
    if not isinstance(ridge, float) or not 0 < ridge < float("inf"):
        raise InputError(f"ridge={ridge!r}", "a number above 0, such as 1e-3", "correct ridge")
    if limit is not None and (type(limit) is not int or limit < 1):
        raise InputError(f"limit={limit!r}", "a number of batches, at least 1, or None", "correct limit")
    place = next((tensor.device for tensor in small.parameters()), torch.device("cpu"))
    given = [placed(inputs_of(batch), place) for batch in islice(batches, limit)]
    if not given:
        raise InputError("no batches", "at least one batch of inputs", "pass a loader that is not empty or used up")
    with torch.no_grad(), eval_mode(small), eval_mode(dense):
        pair = _Pair(small, dense, given)
        with _put_back(small):
            return tuple(pair.walk(_kept(plan), ridge, most_rows))


class _Pair:
    """Both networks on all batches, node by node."""

    def __init__(self, small: nn.Module, dense: nn.Module, given: list[Any]) -> None:
        graphs = [traced(small, "the smaller network"), traced(dense, "the dense network")]
        steps = [[(node.op, str(node.target)) for node in graph.nodes] for graph in graphs]
        if steps[0] != steps[1]:
            raise InputError(
                f"a {type(small).__name__} and a {type(dense).__name__} with different steps",
                "a network and what thresher.shrink made of it",
                "pass the pair",
            )
        self.small, self.dense = small, dense
        self.nodes = list(zip(graphs[0].nodes, graphs[1].nodes, strict=True))
        self.modules = dict(small.named_modules())
        self.calls = Counter(str(node.target) for node, _ in self.nodes if node.op == "call_module")
        self.twin = {node: other for node, other in self.nodes}
        self.runs = [(_run(small, graphs[0], inputs), _run(dense, graphs[1], inputs)) for inputs in given]

    def walk(self, kept: Mapping[str, tuple[int, ...]], ridge: float, most_rows: int) -> Iterator[LayerFit]:
        last = {used: node for node, _ in self.nodes for used in node.all_input_nodes}
        ends: dict[fx.Node, list[fx.Node]] = {}
        for used, node in last.items():
            ends.setdefault(node, []).append(used)
        for node, twin in self.nodes:
            for number, (_, dense) in enumerate(self.runs, start=1):
                try:
                    dense.env[twin] = dense.run_node(twin)
                except Exception as error:
                    raise InputError(
                        f"batch {number}, on which the dense network fails at {twin.name}: {error}",
                        "tensors, (inputs, labels) or keyword arguments that the model accepts",
                        "correct the calibration loader",
                    ) from error
            if node.op == "call_module" and self._fits(node, kept, most_rows):
                yield from self._fitted(node, kept, ridge)
            for small, dense in self.runs:
                small.env[node] = small.run_node(node)
                for done in ends.get(node, []):
                    del small.env[done], dense.env[self.twin[done]]

    def _fits(self, node: fx.Node, kept: Mapping[str, tuple[int, ...]], most_rows: int) -> bool:
        name = str(node.target)
        module = self.modules[name]
        if not readable(module) or not can_unfold(module) or getattr(module, "groups", 1) != 1 or self.calls[name] > 1:
            return False
        wide = matrix_of(self.dense.get_submodule(name)).shape[0]
        known = matrix_of(module).shape[0] == len(kept.get(name, range(wide)))
        plain = len(node.args) == 1 and isinstance(node.args[0], fx.Node) and not node.kwargs
        return known and plain and not tied(self.small, name) and taps_of(module) * channels_of(module) <= most_rows

    def _fitted(self, node: fx.Node, kept: Mapping[str, tuple[int, ...]], ridge: float) -> Iterator[LayerFit]:
        after = norm_after(node, self.modules)
        after = after if after is not None and self.calls[str(after.target)] == 1 else None
        layer = self._layer(str(node.target), None if after is None else str(after.target), kept)
        other, source = sum_after(node, after), node.all_input_nodes[0]
        fit, same = Fit(layer.module), layer.is_twin()
        for small, dense in self.runs:
            x, y = small.env[source], layer.left_of(dense.env[self.twin[node]])
            same = same and torch.equal(x, dense.env[self.twin[source]])
            if other is not None:
                there, here = layer.left_of(dense.env[self.twin[other]]), small.env[other]
                if there.shape == here.shape == y.shape:
                    same = same and torch.equal(there, here)
                    y = y + layer.made_up(there - here)
            fit.add(x, y)
        if not all_agree(same, matrix_of(layer.module).device):
            yield layer.set(fit, ridge)

    def _layer(self, name: str, norm: str | None, kept: Mapping[str, tuple[int, ...]]) -> Layer:
        here, there = (
            None if norm is None else cast(_BatchNorm, model.get_submodule(norm)) for model in (self.small, self.dense)
        )
        rows = torch.tensor(kept[name]) if name in kept else None
        twin = self.dense.get_submodule(name)
        return Layer(name=name, module=self.modules[name], norm=here, twin=twin, model=there, rows=rows)


def _run(model: nn.Module, graph: fx.Graph, inputs: Any) -> fx.Interpreter:
    interpreter = fx.Interpreter(model, garbage_collect_values=False, graph=graph)
    names = [node for node in graph.nodes if node.op == "placeholder"]
    if isinstance(inputs, Mapping):
        unknown = set(inputs) - {str(node.target) for node in names}
        if unknown:
            raise InputError(
                f"inputs {sorted(unknown)}", f"{[str(node.target) for node in names]}", "correct the batches"
            )
        given = [inputs.get(str(node.target), node.args[0] if node.args else None) for node in names]
    else:
        given = list(inputs) if isinstance(inputs, (tuple, list)) else [inputs]
    interpreter.args_iter = iter(given)
    return interpreter


def _kept(plan: ShrinkPlan | None) -> dict[str, tuple[int, ...]]:
    """Module to the outputs that are left of it."""
    found: dict[str, tuple[int, ...]] = {}
    for cut in (cut for group in (plan.groups if plan else ()) for cut in group.cuts):
        if cut.axis == "out" and len(cut.keep) < cut.size:
            now = found.get(cut.module)
            found[cut.module] = cut.keep if now is None else tuple(sorted(set(now) & set(cut.keep)))
    return found


@contextmanager
def _put_back(model: nn.Module) -> Iterator[None]:
    """After an error the model is what it was."""
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    try:
        yield
    except BaseException:
        model.load_state_dict(before)
        raise
