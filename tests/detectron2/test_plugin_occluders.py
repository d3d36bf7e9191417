"""Occluders from the ground truth of the batch, for people who keep their own mapper."""

import pytest

pytest.importorskip(
    "detectron2.modeling", reason="detectron2 is not installed (it is built from source, see docs/detectron2.md)"
)

import numpy as np
import torch
from detectron2.structures import BitMasks, Boxes, Instances, PolygonMasks, ROIMasks
from plugin_samples import SIZES, inputs, targets, to_instances

from bcnet.detectron2 import add_occluder_masks
from bcnet.detectron2.targets import roi_targets

RECTANGLES = [(8, 6, 52, 46), (22, 17, 66, 57), (36, 28, 80, 68)]  # those of `targets`


def polygon_instances(size=SIZES[0]):
    polygons = [[np.array([x0, y0, x1, y0, x1, y1, x0, y1], dtype=np.float64)] for x0, y0, x1, y1 in RECTANGLES]
    return Instances(
        size,
        gt_boxes=Boxes(torch.tensor(RECTANGLES, dtype=torch.float32)),
        gt_classes=torch.zeros(3, dtype=torch.int64),
        gt_masks=PolygonMasks(polygons),
    )


def neighbours(size=SIZES[0]):
    """Each rectangle's overlap with the others, by hand."""
    masks = torch.zeros(3, *size, dtype=torch.bool)
    for mask, (x0, y0, x1, y1) in zip(masks, RECTANGLES, strict=True):
        mask[y0:y1, x0:x1] = True
    # All three boxes overlap with an IoU above 0.05.
    return torch.stack([masks[i] & (masks.sum(dim=0) - masks[i].int() > 0) for i in range(3)])


def test_every_neighbours_mask_in_the_box():
    instances = to_instances(targets()[0], SIZES[0])
    assert add_occluder_masks(instances) is instances
    assert torch.equal(instances.gt_occluder_masks.tensor, neighbours())


def test_polygons_and_bitmasks_agree():
    assert torch.equal(add_occluder_masks(polygon_instances()).gt_occluder_masks.tensor, neighbours())


def test_an_object_whose_polygons_were_cropped_away_occludes_nothing():
    instances = polygon_instances()
    instances.gt_masks.polygons[1] = []
    derived = add_occluder_masks(instances).gt_occluder_masks.tensor
    without = neighbours()
    assert derived.sum() < without.sum() and derived[0].sum() == (52 - 36) * (46 - 28)


def test_without_objects():
    empty = Instances((9, 9), gt_boxes=Boxes(torch.zeros(0, 4)), gt_masks=BitMasks(torch.zeros(0, 9, 9)))
    assert add_occluder_masks(empty).gt_occluder_masks.tensor.shape == (0, 9, 9)


def test_masks_of_another_type_are_refused():
    instances = polygon_instances()
    instances.gt_masks = ROIMasks(torch.zeros(3, 28, 28))
    with pytest.raises(TypeError, match=r"BitMasks or PolygonMasks, got ROIMasks; let the data mapper set gt_occluder"):
        add_occluder_masks(instances)


@pytest.mark.parametrize("polygons", [False, True])
def test_rois_that_repeat_their_object_derive_the_same_targets(polygons):
    instances = polygon_instances() if polygons else to_instances(targets()[0], SIZES[0])
    add_occluder_masks(instances)
    torch.manual_seed(0)
    rois = instances[torch.tensor([2, 0, 0, 1, 2, 2, 1])]
    rois.proposal_boxes = Boxes(rois.gt_boxes.tensor + torch.randn(7, 4))
    provided = roi_targets([rois], side=28, device=torch.device("cpu"))
    rois.remove("gt_occluder_masks")
    derived = roi_targets([rois], side=28, device=torch.device("cpu"))
    for layer, (expected, _) in provided.items():
        assert expected.any() and torch.equal(derived[layer].values, expected)


def test_two_objects_of_one_box_and_class_stay_two():
    size = (40, 40)
    masks = torch.zeros(2, *size, dtype=torch.bool)
    masks[0, 5:30, 5:15] = True
    masks[1, 5:30, 15:30] = True
    box = torch.tensor([[5.0, 5, 30, 30]] * 2)
    rois = Instances(size, gt_boxes=Boxes(box), gt_classes=torch.zeros(2, dtype=torch.int64), gt_masks=BitMasks(masks))
    rois.proposal_boxes = Boxes(box)
    found = roi_targets([rois], side=28, device=torch.device("cpu"))
    occludee, occluder = found["occludee"].values, found["occluder"].values
    assert occluder[0].any() and not (occluder[0] & occludee[0]).all()
    # The occluder of one is the other.
    assert torch.equal(occluder[0], occludee[1])


def test_the_batch_with_masks_of_its_own_mapper_says_so_once(caplog):
    for sample in inputs(objects=2):
        rois = sample["instances"]
        rois.proposal_boxes = rois.gt_boxes
        rois.remove("gt_occluder_masks")
        roi_targets([rois], side=28, device=torch.device("cpu"))
    messages = [record for record in caplog.records if "BCNetDatasetMapper provides them" in record.message]
    assert len(messages) <= 1
