"""Ever sparser networks of one run, kept as it goes, to pick from."""

from thresher.trail.picking import choose, front
from thresher.trail.point import Point
from thresher.trail.table import view
from thresher.trail.trail import Trail

__all__ = ["Point", "Trail", "choose", "front", "view"]
