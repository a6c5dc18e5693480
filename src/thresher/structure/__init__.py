"""Which layers hang together, plans of what to keep, and cutting by them."""

from thresher.structure.checking import first_tensor, proven
from thresher.structure.cuts import Attribute, Cut, GroupPlan
from thresher.structure.finding import coupled_groups
from thresher.structure.folder import load_folder, save_folder
from thresher.structure.groups import Counter, CoupledGroup, LeftWhole, Member
from thresher.structure.masking import removed_indices, silenced
from thresher.structure.plan import ShrinkPlan
from thresher.structure.running import running_order
from thresher.structure.separate import SeparateAttention, rejoin, separable, separate_attention

__all__ = [
    "Attribute",
    "Counter",
    "CoupledGroup",
    "Cut",
    "GroupPlan",
    "LeftWhole",
    "Member",
    "SeparateAttention",
    "ShrinkPlan",
    "coupled_groups",
    "first_tensor",
    "load_folder",
    "proven",
    "rejoin",
    "removed_indices",
    "running_order",
    "save_folder",
    "separable",
    "separate_attention",
    "silenced",
]
