"""Boxes of crowds are matched part by part, with the result of torchvision's matcher on all pairs."""

from __future__ import annotations

import pytest
import torch
from torchvision.models.detection._utils import Matcher
from torchvision.ops import box_iou

from bcnet.modeling import matching
from bcnet.modeling.matching import match_boxes


def random_boxes(count, seed, side=12.0):
    generator = torch.Generator().manual_seed(seed)
    corners = torch.rand(count, 2, generator=generator) * 100
    return torch.cat([corners, corners + 1 + torch.rand(count, 2, generator=generator) * side], dim=1)


def anchors():
    """Anchors of two sizes, row by row as on a feature map."""
    y, x = torch.meshgrid(torch.arange(0.0, 112, 4), torch.arange(0.0, 112, 4), indexing="ij")
    centres = torch.stack([x, y], dim=-1).reshape(-1, 1, 2)
    return torch.cat([centres - 5, centres + 5], dim=-1).repeat(1, 2, 1).reshape(-1, 4) * 1.0


@pytest.mark.parametrize("low_quality", [True, False])
@pytest.mark.parametrize("lonely", [False, True])
def test_parts_give_what_all_pairs_give(monkeypatch, low_quality, lonely):
    matcher = Matcher(0.6, 0.3, allow_low_quality_matches=low_quality)
    gt_boxes = random_boxes(60, seed=0)
    if lonely:  # touches no anchor: its best boxes are all, as torchvision has it
        gt_boxes[7] = torch.tensor([500.0, 500, 510, 510])
    boxes = anchors()
    expected = matcher(box_iou(gt_boxes, boxes))
    assert (expected >= 0).sum() > 10 and (expected < 0).any() != (lonely and low_quality)
    monkeypatch.setattr(matching, "MAX_PAIRS", 1000)
    monkeypatch.setattr(matching, "_BOXES_AT_ONCE", 100)
    assert torch.equal(match_boxes(matcher, gt_boxes, boxes), expected)


def test_far_pairs_are_not_computed(monkeypatch):
    monkeypatch.setattr(matching, "MAX_PAIRS", 1000)
    monkeypatch.setattr(matching, "_BOXES_AT_ONCE", 100)
    computed = []
    monkeypatch.setattr(matching, "box_iou", lambda a, b: computed.append(len(a) * len(b)) or box_iou(a, b))
    gt_boxes, boxes = random_boxes(60, seed=0, side=4.0), anchors()
    match_boxes(Matcher(0.6, 0.3, allow_low_quality_matches=True), gt_boxes, boxes)
    assert sum(computed) < len(gt_boxes) * len(boxes)  # both passes together


def test_small_numbers_are_matched_at_once(monkeypatch):
    monkeypatch.setattr(matching, "_touching", None)
    assert len(match_boxes(Matcher(0.6, 0.3), random_boxes(3, seed=0), random_boxes(5, seed=1))) == 5
