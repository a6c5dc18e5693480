"""Which weights one-shot pruning works on: the rules, Conv1D, the pattern, and what stands outside the blocks."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from thresher.errors import InputError
from thresher.oneshot.chains import Chain
from thresher.oneshot.layers import Layer, conv1d_type, is_conv1d, layer_of
from thresher.operators import UNSTRUCTURED, Groups
from thresher.targets import Rule, Skipped, include, select


def layers_of(
    model: nn.Module, rules: Sequence[Rule], groups: Groups, chains: Sequence[Chain], *, frozen: bool
) -> tuple[list[Layer], list[Skipped]]:
    """(layers to prune in module order, weights left dense and why).

    With chains, layers outside the blocks (the head of a language model, a pooler) stay dense, as in the papers, unless
    an include rule names them.

    Errors: InputError when nothing is left to prune, or a rule matches nothing.
    """
    kind = conv1d_type()
    extra = [include(kind)] if kind is not None and any(is_conv1d(module) for module in model.modules()) else []
    # Patterns are checked here: a Conv1D is stored with its inputs first.
    selection = select(model, [*extra, *rules], groups=UNSTRUCTURED, frozen=frozen)
    names = {id(module): name for name, module in model.named_modules()}
    layers, skipped = [], list(selection.skipped)
    for target in selection.targets:
        layer = layer_of(target, tuple(names[id(module)] for module, _ in target.sites))
        reason = _why_not(layer, groups)
        if not reason and chains and block_of(layer, chains) is None and not _asked_for(layer, rules):
            reason = "outside the blocks; include it by a rule to prune it"
        if reason:
            skipped.append(Skipped(layer.name, reason))
        else:
            layers.append(layer)
    if not layers:
        raise InputError(
            f"a {type(model).__name__} with no weight to prune"
            + "".join(f"; {skip.name}: {skip.reason}" for skip in skipped[:5]),
            "at least one linear layer or convolution that the pattern fits",
            "loosen the rules, include layers by a rule, or take another pattern",
        )
    return layers, skipped


def block_of(layer: Layer, chains: Sequence[Chain]) -> str | None:
    """The first block that holds a module of the layer, as its module name."""
    for name, chain in chains:
        for place in range(len(chain)):
            block = f"{name}.{place}"
            if any(module == block or module.startswith(f"{block}.") for module in layer.names):
                return block
    return None


def _why_not(layer: Layer, groups: Groups) -> str:
    shape = layer.target.shape
    if len(shape) < 2:
        return "one-dimensional"
    return "" if groups.fits(shape) else f"shape {shape} (outputs first) does not divide into {groups.spelling}"


def _asked_for(layer: Layer, rules: Sequence[Rule]) -> bool:
    return any(
        rule.action == "include" and rule.matches(name, tensor, module)
        for rule in rules
        for name, (module, tensor) in zip(layer.names, layer.target.sites, strict=True)
    )
