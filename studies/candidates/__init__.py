"""Candidates for a mask head with maps of occludee and occluder; importing registers them (MODEL.ROI_MASK_HEAD.NAME).
The best became `bcnet.bilayer.SideBranchMaskHead`.

Arms of `studies/heads_shapes.yaml` and `studies/heads_coco.yaml`.
"""

from studies.candidates.base import CandidateHead
from studies.candidates.deep_visible import DeepVisibleBranchGraphHead, DeepVisibleHead
from studies.candidates.gated import GatedHead
from studies.candidates.occludee_first import OccludeeFirstHead
from studies.candidates.one_stack import OneStackHead, OneStackNeighboursHead
from studies.candidates.side_branch import (
    DeepSideBranchHalfHead,
    DeepSideBranchHead,
    NinthHead,
    NinthPooledHalfHead,
    NinthPooledHead,
    NinthPooledResidualHalfHead,
    NinthPooledResidualHead,
    NinthSharedHead,
    PooledSideBranchHead,
    PooledVisibleHead,
    SideBranchDetachedHead,
    SideBranchHalfHead,
    SideBranchHead,
    SideBranchQuarterHead,
    TenthHead,
)
from studies.candidates.split_late import SplitLateHead
from studies.candidates.visible_stack import VisibleStackHead

__all__ = [
    "CandidateHead",
    "DeepSideBranchHalfHead",
    "DeepSideBranchHead",
    "DeepVisibleBranchGraphHead",
    "DeepVisibleHead",
    "GatedHead",
    "NinthHead",
    "NinthPooledHalfHead",
    "NinthPooledHead",
    "NinthPooledResidualHalfHead",
    "NinthPooledResidualHead",
    "NinthSharedHead",
    "OccludeeFirstHead",
    "OneStackHead",
    "OneStackNeighboursHead",
    "PooledSideBranchHead",
    "PooledVisibleHead",
    "SideBranchDetachedHead",
    "SideBranchHalfHead",
    "SideBranchHead",
    "SideBranchQuarterHead",
    "SplitLateHead",
    "TenthHead",
    "VisibleStackHead",
]
