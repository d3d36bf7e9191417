"""Amodal masks, hidden parts and hidden shares of detections, and RoIs of another scale than the boxes."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from pycocotools import mask as coco_mask

from bcnet.occlusion import occluder_confidence
from bcnet.ops.boxes import scaled_boxes
from bcnet.structures import Detections


def half_hidden(**changes) -> Detections:
    """Boxes of 8 x 8 pixels: of the first the left half is visible, of the second all; the third has empty masks."""
    visible, amodal = torch.zeros(3, 4, 4), torch.zeros(3, 4, 4)
    visible[0, :, :2] = amodal[0] = visible[1] = amodal[1] = 1
    fields = {
        "image_size": (20, 30),
        "boxes": torch.tensor([[2.0, 4.0, 10.0, 12.0], [12.0, 4.0, 20.0, 12.0], [0.0, 0.0, 8.0, 8.0]]),
        "scores": torch.tensor([0.9, 0.8, 0.7]),
        "classes": torch.zeros(3, dtype=torch.int64),
        "maps": {"occludee_mask": visible, "occludee_amodal": amodal},
    }
    return Detections(**{**fields, **changes})


def test_hidden_part_is_amodal_and_not_visible():
    found = half_hidden()
    assert torch.equal(found.amodal_mask, found.maps["occludee_amodal"])
    assert found.amodal_masks.sum(dim=(1, 2)).tolist() == [64, 64, 0]
    assert torch.equal(found.hidden_masks, found.amodal_masks & ~found.masks)
    assert found.hidden_masks[0, 4:12, 7:10].all() and not found.hidden_masks[0, :, :5].any()
    assert not found.hidden_masks[1:].any()
    assert found.occluded_fraction.dtype == torch.float32
    assert found.occluded_fraction.tolist() == [0.5, 0, 0]


def test_hidden_share_goes_by_the_mask_threshold():
    found = half_hidden()
    found.maps["occludee_mask"][0, 0] = 0.3  # of the four pixels of this row two were visible
    assert found.occluded_fraction[0] == 10 / 16
    assert half_hidden(maps=found.maps, mask_threshold=0.2).occluded_fraction[0] == 6 / 16


def test_subsets_keep_amodal_masks():
    found = half_hidden()[[1, 0]]
    assert found.occluded_fraction.tolist() == [0, 0.5]
    assert half_hidden()[:0].occluded_fraction.shape == half_hidden()[:0].hidden_masks.shape[:1] == (0,)


@pytest.mark.parametrize("present", ["occludee_mask", "occludee_amodal"])
def test_hidden_parts_need_both_masks(present):
    found = half_hidden()
    found = half_hidden(maps={present: found.maps[present]})
    assert not found.has_hidden_parts
    for name in ("hidden_masks", "occluded_fraction"):
        with pytest.raises(ValueError, match=f"have no occludee_.*present are: {present}"):
            getattr(found, name)
    assert "occluded_fraction" not in found.to_coco(1, [1])[0]


def test_what_lacks_says_where_it_comes_from():
    with pytest.raises(ValueError, match=r"no occluder_mask; present are: .*; predict with with_occluder=True"):
        _ = half_hidden().occluder_masks
    with pytest.raises(
        ValueError, match=r"no occludee_amodal; .*; models trained with MODEL\.BILAYER\.AMODAL True have"
    ):
        _ = half_hidden(maps={"occludee_mask": torch.zeros(3, 4, 4)}).amodal_masks


def test_coco_results_and_json_have_amodal_masks():
    found = half_hidden()
    written = found.to_coco(7, [3])
    assert [entry["occluded_fraction"] for entry in written] == [0.5, 0, 0]
    for entry, mask in zip(written, found.amodal_masks.numpy(), strict=True):
        assert np.array_equal(coco_mask.decode(entry["amodal_segmentation"]), mask)
    alone = found.to_coco(7, [3], names=("occludee_mask",))
    assert alone[0].keys() == {"image_id", "category_id", "bbox", "score", "segmentation"}
    entries = json.loads(found.to_json())["detections"]
    assert (entries[2]["polygons"], entries[2]["amodal_polygons"]) == ([], [])
    for entry, visible, whole in zip(entries[:2], found.masks, found.amodal_masks, strict=False):
        for key, mask in (("polygons", visible), ("amodal_polygons", whole)):
            (outline,) = coco_mask.frPyObjects([np.ravel(polygon) for polygon in entry[key]], *found.image_size)
            assert np.array_equal(coco_mask.decode(outline), mask)


def test_converters_have_amodal_and_hidden_masks():
    pytest.importorskip("supervision")
    found = half_hidden()
    converted = found.to_supervision()
    assert np.array_equal(converted["amodal_mask"], found.amodal_masks.numpy())
    assert np.array_equal(converted["hidden_mask"], found.hidden_masks.numpy())
    assert converted[converted["occluded_fraction"] > 0]["hidden_mask"].shape == (1, 20, 30)


def test_detectron2_has_amodal_masks():
    pytest.importorskip("detectron2.structures")
    found = half_hidden()
    assert torch.equal(found.to_detectron2().pred_amodal_masks, found.amodal_masks)


def test_scaled_boxes_keep_their_centre():
    boxes = torch.tensor([[2.0, 4.0, 10.0, 8.0]])
    assert torch.equal(scaled_boxes(boxes, 1.5), torch.tensor([[0.0, 3.0, 12.0, 9.0]]))
    assert scaled_boxes(boxes, 1) is boxes
    assert scaled_boxes(boxes[:0], 2).shape == (0, 4)


def test_maps_span_the_scaled_boxes():
    found = half_hidden(roi_scale=1.5)
    # The first box grows from 8 to 12 pixels: 0..12 in x, 2..14 in y.
    assert torch.equal(found.map_boxes[0], torch.tensor([0.0, 2.0, 12.0, 14.0]))
    assert torch.equal(found.boxes, half_hidden().boxes)
    assert found.amodal_masks[0].nonzero().amin(0).tolist() == [2, 0]
    assert found.amodal_masks[0].nonzero().amax(0).tolist() == [13, 11]
    encoded = coco_mask.decode(found.mask_rles("occludee_amodal"))
    assert np.array_equal(encoded, found.amodal_masks.permute(1, 2, 0).numpy())
    assert found != half_hidden() and found == half_hidden(roi_scale=1.5)
    # In an image of twice the size the RoI has twice the size.
    larger = found.rescaled((40, 60))
    assert larger.roi_scale == 1.5
    assert larger.amodal_masks[0].nonzero().amax(0).tolist() == [27, 23]
    with pytest.raises(ValueError, match="scale of the RoIs must be above 0, got -1"):
        half_hidden(roi_scale=-1)


def test_relations_read_the_maps_where_they_lie():
    """The same image content, in maps of the box and in maps of a RoI of twice its side."""
    boxes = torch.tensor([[10.0, 10.0, 50.0, 50.0], [30.0, 10.0, 70.0, 50.0]])

    def relations(scale):
        side = 40
        masks, occluders = torch.zeros(2, side, side), torch.zeros(2, side, side)
        for maps, index, x0, x1 in ((masks, 0, 10, 30), (masks, 1, 30, 70), (occluders, 0, 30, 50)):
            x, y, width = (boxes[index, 0] - 20 * (scale - 1), boxes[index, 1] - 20 * (scale - 1), 40 * scale)
            centres = (torch.arange(side) + 0.5) / side * width
            columns = (x + centres >= x0) & (x + centres < x1)
            rows = (y + centres >= 10) & (y + centres < 50)
            maps[index] = (rows[:, None] & columns).float()
        maps = {"occludee_mask": masks, "occluder_mask": occluders}
        found = Detections((80, 100), boxes, torch.ones(2), torch.zeros(2, dtype=torch.int64), maps, roi_scale=scale)
        return occluder_confidence(found)

    assert relations(1)[0, 1] == pytest.approx(1, abs=0.02) and relations(1)[1, 0] == 0
    # The RoI sees 20 pixels more of the second object, which the first's occluder layer does not claim.
    assert relations(2)[0, 1] == pytest.approx(0.5, abs=0.05) and relations(2)[1, 0] == 0
