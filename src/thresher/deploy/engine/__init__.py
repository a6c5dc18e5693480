"""The sparse engine: a pruned model in one call of a native library, never slower than dense."""

from thresher.deploy.engine.compiled import Compiled
from thresher.deploy.engine.compiling import compile
from thresher.deploy.engine.programs.file import load_compiled
from thresher.deploy.engine.report import EngineReport, LayerReport

__all__ = ["Compiled", "EngineReport", "LayerReport", "compile", "load_compiled"]
