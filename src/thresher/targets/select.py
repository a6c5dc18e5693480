"""Find the prunable tensors of a model: each once, however often it is tied, and say why others were left."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from torch import nn
from torch.nn.modules.conv import _ConvNd

from thresher.errors import InputError
from thresher.operators import UNSTRUCTURED, Groups
from thresher.targets.rules import Rule, full_name

_Site = tuple[str, nn.Module, str, nn.Parameter]
_TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)


@dataclass(frozen=True, kw_only=True, eq=False)
class Target:
    """One prunable tensor.

    `name` is its state-dict name; `sites` are all (module, tensor name) pairs that share the Parameter;
    `depthwise` marks convolutions whose filters see a single input channel.
    """

    name: str
    sites: tuple[tuple[nn.Module, str], ...] = field(repr=False)
    shape: tuple[int, ...]
    depthwise: bool = False
    min_sparsity: float = 0.0
    max_sparsity: float = 1.0

    @property
    def module(self) -> nn.Module:
        """The first module that holds the tensor."""
        return self.sites[0][0]

    @property
    def numel(self) -> int:
        """Number of entries."""
        count = 1
        for extent in self.shape:
            count *= extent
        return count


@dataclass(frozen=True)
class Skipped:
    """A weight that was left dense, and why."""

    name: str
    reason: str


@dataclass(frozen=True)
class Selection:
    """The prunable tensors in module order, and the weights left out with the reason."""

    targets: tuple[Target, ...]
    skipped: tuple[Skipped, ...]


def is_prunable_type(module: nn.Module, tensor: str) -> bool:
    """Whether `tensor` of `module` is prunable unasked: `weight` of a convolution or linear layer."""
    return tensor == "weight" and isinstance(module, (_ConvNd, nn.Linear)) and not isinstance(module, _TRANSPOSED)


def is_depthwise(module: nn.Module) -> bool:
    """Whether each filter of the convolution sees one input channel of several."""
    return isinstance(module, _ConvNd) and module.groups > 1 and module.groups == module.in_channels


def _sites(model: nn.Module) -> Iterator[_Site]:
    for module_name, module in model.named_modules():
        for tensor, parameter in module._parameters.items():
            if parameter is not None:
                yield module_name, module, tensor, parameter


def select(
    model: nn.Module, rules: Sequence[Rule] = (), *, groups: Groups = UNSTRUCTURED, frozen: bool = False
) -> Selection:
    """The prunable set of `model` under `rules`.

    Default set: `weight` of Conv1d/2d/3d and Linear. Never biases, norm parameters, embeddings or frozen
    tensors unless a rule (or `frozen=True`) asks. A Parameter reachable through several modules is one target.

    Errors: InputError when a rule matches nothing, or nothing is left to prune.
    """
    places: dict[int, list[_Site]] = {}
    for site in _sites(model):
        places.setdefault(id(site[3]), []).append(site)
    matched = [False] * len(rules)
    targets: list[Target] = []
    skipped: list[Skipped] = []
    for sites in places.values():
        verdict = _judge(sites, rules, matched)
        module_name, module, tensor, parameter = sites[0]
        name = full_name(module_name, tensor)
        reason = _why_not(sites, verdict, groups, frozen)
        if reason:
            skipped.append(Skipped(name, reason))
        elif any(verdict.wanted):
            targets.append(
                Target(
                    name=name,
                    sites=tuple((site[1], site[2]) for site in sites),
                    shape=tuple(parameter.shape),
                    depthwise=is_depthwise(module),
                    min_sparsity=verdict.low,
                    max_sparsity=verdict.high,
                )
            )
    _refuse_idle_rules(model, rules, matched)
    if not targets:
        raise InputError(
            f"a {type(model).__name__} with no prunable tensor"
            + "".join(f"; {skip.name}: {skip.reason}" for skip in skipped[:5]),
            "at least one trainable convolution or linear weight",
            "loosen the rules, unfreeze a layer, or include other tensors by a rule",
        )
    return Selection(tuple(targets), tuple(skipped))


@dataclass
class _Verdict:
    """What the rules say of one Parameter: per site whether it is wanted, the bounds, the rule that excluded it."""

    wanted: list[bool]
    low: float = 0.0
    high: float = 1.0
    excluded_by: str = ""


def _judge(sites: Sequence[_Site], rules: Sequence[Rule], matched: list[bool]) -> _Verdict:
    # Rules outside, sites inside: a later rule wins over an earlier one on whichever site of a tie it speaks.
    verdict = _Verdict([is_prunable_type(module, tensor) for _, module, tensor, _ in sites])
    for position, rule in enumerate(rules):
        for place, (module_name, module, tensor, parameter) in enumerate(sites):
            if not rule.matches(module_name, tensor, module):
                continue
            take = verdict.wanted[place]
            if rule.action == "include":
                # A module name means its weights; a bias or a norm has to be named in full.
                take = take or parameter.ndim >= 2 or rule.match == full_name(module_name, tensor)
                matched[position] = matched[position] or take
            elif rule.action == "exclude":
                verdict.excluded_by = rule.label if take else verdict.excluded_by
                matched[position] = True
                take = False
            elif take:
                verdict.low, verdict.high = rule.min_sparsity, rule.max_sparsity
                matched[position] = True
            verdict.wanted[place] = take
    return verdict


def _why_not(sites: Sequence[_Site], verdict: _Verdict, groups: Groups, frozen: bool) -> str:
    """The reason to leave a weight dense; empty when there is none, or when nobody ever wanted it."""
    if not all(verdict.wanted) and verdict.excluded_by:
        return f"excluded by rule {verdict.excluded_by!r}"
    if not any(verdict.wanted):
        return ""
    parameter = sites[0][3]
    foreign = [site for site, take in zip(sites, verdict.wanted, strict=True) if not take]
    if foreign:
        return f"tied to {foreign[0][0] or 'the model'} ({type(foreign[0][1]).__name__}); include it to prune both"
    if not parameter.requires_grad and not frozen:
        return "frozen (requires_grad=False)"
    if parameter.numel() == 0:
        return "empty"
    if parameter.ndim < 2 and groups != UNSTRUCTURED:
        return f"one-dimensional, has no {groups.spelling} groups"
    if not groups.fits(tuple(parameter.shape)):
        return f"shape {tuple(parameter.shape)} does not divide into {groups.spelling}"
    return ""


def _refuse_idle_rules(model: nn.Module, rules: Sequence[Rule], matched: Sequence[bool]) -> None:
    for rule, used in zip(rules, matched, strict=True):
        if used:
            continue
        names = [name for name, module in model.named_modules() if name and module._parameters]
        close = difflib.get_close_matches(rule.label, names, n=3, cutoff=0.4)
        shown = ", ".join(names[:12]) + (f" ... ({len(names)} in all)" if len(names) > 12 else "")
        raise InputError(
            f"rule {rule.action} {rule.label!r}, which matches no tensor that it could act on",
            f"a pattern for one of: {shown}",
            f"did you mean {' or '.join(map(repr, close))}?" if close else "correct the pattern",
        )
