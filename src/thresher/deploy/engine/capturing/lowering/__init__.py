"""One rule for each torch operator that the engine knows, by the operator's name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from torch import fx

from thresher.deploy.engine.capturing.builder import Builder, Value
from thresher.deploy.engine.capturing.lowering.attention import RULES as ATTENTION
from thresher.deploy.engine.capturing.lowering.convolution import RULES as CONVOLUTION
from thresher.deploy.engine.capturing.lowering.elementwise import RULES as ELEMENTWISE
from thresher.deploy.engine.capturing.lowering.pooling import RULES as POOLING
from thresher.deploy.engine.capturing.lowering.shapes import RULES as SHAPES

Rule = Callable[[Builder, fx.Node, Mapping[str, Any]], Value]
RULES: dict[str, Rule] = {**CONVOLUTION, **ELEMENTWISE, **POOLING, **SHAPES, **ATTENTION}

__all__ = ["RULES", "Rule"]
