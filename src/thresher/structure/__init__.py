"""Which layers hang together, plans of what to keep, and cutting by them."""

from thresher.structure.checking import first_tensor, proven
from thresher.structure.graph import coupled_groups, running_order
from thresher.structure.groups import CoupledGroup, LeftWhole, Member
from thresher.structure.masking import removed_indices, silenced
from thresher.structure.plan import Cut, GroupPlan, ShrinkPlan

__all__ = [
    "CoupledGroup",
    "Cut",
    "GroupPlan",
    "LeftWhole",
    "Member",
    "ShrinkPlan",
    "coupled_groups",
    "first_tensor",
    "proven",
    "removed_indices",
    "running_order",
    "silenced",
]
