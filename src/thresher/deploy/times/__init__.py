"""What a layer costs by its zeros, measured once on a machine and kept on disk."""

from thresher.deploy.times.clock import ZEROS, EngineClock
from thresher.deploy.times.layer import LayerCase

__all__ = ["ZEROS", "EngineClock", "LayerCase"]
