"""A pruning run on a user's own loop: hooks on the optimizer, thresholds after each step, an exact finish."""

from thresher.session.forecast import forecast
from thresher.session.latency import Clock
from thresher.session.norm import reestimate_norm
from thresher.session.prune import prune
from thresher.session.pruner import Pruner
from thresher.session.trace import Trace

__all__ = ["Clock", "Pruner", "Trace", "forecast", "prune", "reestimate_norm"]
