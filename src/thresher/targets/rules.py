"""Rules: include, exclude, keep dense, or bound the sparsity of what a pattern, type or predicate matches."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Literal

from torch import nn

from thresher.config import check_share
from thresher.errors import InputError

Match = str | type[nn.Module] | Callable[[str, nn.Module], bool]


@dataclass(frozen=True, kw_only=True)
class Rule:
    """One line of a rule list; later rules win over earlier ones.

    Args:
        action: `include` adds tensors to the prunable set, `exclude` takes them out of it (and out of the
            sparsity's denominator), `bound` limits their sparsity to [min_sparsity, max_sparsity].
        match: a name pattern (`layer1.*`, tried on module names and on tensor names), a module type,
            or a predicate `(module_name, module) -> bool`.
        min_sparsity, max_sparsity: shares of zeros in [0, 1] that a matching tensor may end with.

    Errors: InputError on shares outside [0, 1] or min above max.
    """

    action: Literal["include", "exclude", "bound"]
    match: Match
    min_sparsity: float = 0.0
    max_sparsity: float = 1.0

    def __post_init__(self) -> None:
        check_share("min_sparsity", self.min_sparsity)
        check_share("max_sparsity", self.max_sparsity)
        if self.min_sparsity > self.max_sparsity:
            raise InputError(
                f"min_sparsity={self.min_sparsity} above max_sparsity={self.max_sparsity}",
                "min_sparsity <= max_sparsity",
                "swap or correct the bounds",
            )

    def matches(self, module_name: str, tensor: str, module: nn.Module) -> bool:
        """Whether the rule speaks of tensor `tensor` of module `module_name`."""
        if isinstance(self.match, str):
            return fnmatchcase(module_name, self.match) or fnmatchcase(full_name(module_name, tensor), self.match)
        if isinstance(self.match, type):
            return isinstance(module, self.match)
        return bool(self.match(module_name, module))

    @property
    def label(self) -> str:
        """The match as a user would write it."""
        if isinstance(self.match, str):
            return self.match
        return getattr(self.match, "__name__", repr(self.match))


def full_name(module_name: str, tensor: str) -> str:
    """The state-dict name of tensor `tensor` of module `module_name` (empty for the model itself)."""
    return f"{module_name}.{tensor}" if module_name else tensor


def include(match: Match) -> Rule:
    """Add the tensors that `match` names to the prunable set (embeddings, say)."""
    return Rule(action="include", match=match)


def exclude(match: Match) -> Rule:
    """Take the tensors out of the prunable set; sparsity no longer counts them."""
    return Rule(action="exclude", match=match)


def dense(match: Match) -> Rule:
    """Keep the tensors dense, while sparsity still counts them among its entries."""
    return Rule(action="bound", match=match, max_sparsity=0.0)


def bound(match: Match, *, min: float = 0.0, max: float = 1.0) -> Rule:
    """Hold the sparsity of each matching tensor within [min, max]."""
    return Rule(action="bound", match=match, min_sparsity=min, max_sparsity=max)


def parse_rule(text: str) -> Rule:
    """A rule as the command line spells it.

    >>> parse_rule("exclude:conv1").action
    'exclude'
    >>> parse_rule("layer3.*:min=50%,max=95%").max_sparsity
    0.95

    Errors: InputError on any other spelling.
    """
    head, _, tail = text.partition(":")
    simple = {"include": include, "exclude": exclude, "dense": dense}
    if head in simple and tail:
        return simple[head](tail)
    bounds: dict[str, float] = {}
    for part in filter(None, tail.split(",")):
        key, _, value = part.partition("=")
        try:
            bounds[key.strip()] = float(value[:-1]) / 100 if value.endswith("%") else float(value)
        except ValueError:
            bounds = {}
            break
    if not head or not bounds or not set(bounds) <= {"min", "max"}:
        raise InputError(
            f"rule {text!r}",
            "include:PATTERN, exclude:PATTERN, dense:PATTERN or PATTERN:min=50%,max=95%",
            "correct the rule",
        )
    return bound(head, min=bounds.get("min", 0.0), max=bounds.get("max", 1.0))
