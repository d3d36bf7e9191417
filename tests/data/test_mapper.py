from __future__ import annotations

import numpy as np
import pytest
import torch
from coco_samples import annotation, square
from pycocotools import mask as coco_mask

from bcnet.config import get_cfg
from bcnet.data import DatasetMapper, ImageRecord, InstanceRecord, read_image
from bcnet.data.augmentation import Augmentation, ResizeShortestEdge
from bcnet.data.coco import load_coco
from bcnet.data.source_masks import missing_masks
from bcnet.data.transforms import Transform
from bcnet.occlusion import occluder_rles
from bcnet.ops.rle import segmentation_to_rle

LEAVE_SIZE = Augmentation(ResizeShortestEdge((0,), 9999))


def mapper(**changes):
    return DatasetMapper(**{"augmentation": LEAVE_SIZE, **changes})


@pytest.fixture
def load(coco_files):
    """The only record of a 40 x 60 image with these annotations."""

    def record(*annotations):
        return load_coco(*coco_files({1: (40, 60)}, annotations))[0][0]

    return record


def test_sample_for_inference(load):
    record = load(annotation(1, 1, [2, 2, 9, 9], segmentation=None))
    augmentation = Augmentation(ResizeShortestEdge((80,), 100))
    sample = mapper(augmentation=augmentation, training=False)(record)
    assert set(sample) == {"image", "image_id", "file_name", "height", "width"}
    assert (sample["image_id"], sample["height"], sample["width"]) == (1, 40, 60)
    assert (sample["image"].dtype, tuple(sample["image"].shape)) == (torch.uint8, (3, 67, 100))
    assert sample["image"].is_contiguous()
    bgr = Transform((40, 60), (67, 100)).apply_image(read_image(record.file_name, "BGR"))
    np.testing.assert_array_equal(sample["image"].numpy(), bgr.transpose(2, 0, 1))
    rgb = mapper(augmentation=augmentation, training=False, image_format="RGB")(record)["image"]
    assert torch.equal(rgb.flip(0), sample["image"])


def test_targets_of_an_overlapping_pair(load):
    record = load(annotation(1, 1, [5, 10, 20, 20]), annotation(2, 1, [15, 15, 20, 20], category_id=7))
    sample = mapper()(record)
    targets = sample["targets"]
    assert targets.boxes.dtype == torch.float32
    assert targets.boxes.tolist() == [[5, 10, 25, 30], [15, 15, 35, 35]]
    assert targets.classes.tolist() == [0, 1]
    assert targets.image_id == 1
    full = targets.masks.to_full(40, 60)
    occludee = torch.zeros(2, 40, 60, dtype=torch.uint8)
    occludee[0, 10:30, 5:25] = 1
    occludee[1, 15:35, 15:35] = 1
    assert torch.equal(full[:, 0], occludee)
    overlap = occludee[0] & occludee[1]
    assert torch.equal(full[0, 1], overlap)
    assert torch.equal(full[1, 1], overlap)


def test_targets_are_derived_first_and_transformed_afterwards(load):
    record = load(
        annotation(1, 1, [5, 10, 20.5, 20]),
        annotation(2, 1, [15, 15, 20, 20.25], segmentation=[square(15, 15, 20), square(40, 5, 6)]),
        annotation(3, 1, [30, 5, 29, 30], segmentation=[[30, 5, 59, 5, 45, 35]]),
    )
    transform = Transform((40, 60), (61, 83), "horizontal")
    targets = mapper().targets(record, transform)
    rles = [segmentation_to_rle(i.segmentation, 40, 60) for i in record.instances]
    occluders = occluder_rles([i.bbox for i in record.instances], rles, [False] * 3, (40, 60))
    assert sum(o is not None for o in occluders) >= 2
    rows, columns = transform.source_pixels()
    full = targets.masks.to_full(61, 83).numpy()
    for index, (rle, occluder) in enumerate(zip(rles, occluders, strict=True)):
        np.testing.assert_array_equal(full[index, 0], coco_mask.decode(rle)[rows][:, columns])
        expected = np.zeros((40, 60), np.uint8) if occluder is None else coco_mask.decode(occluder)
        np.testing.assert_array_equal(full[index, 1], expected[rows][:, columns])
    boxes = transform.apply_boxes([[5, 10, 25.5, 30], [15, 15, 35, 35.25], [30, 5, 59, 35]])
    np.testing.assert_array_equal(targets.boxes.numpy(), boxes.astype(np.float32))


def test_polygons_and_both_kinds_of_rle_give_the_same_targets(load):
    boxes = [[5, 10, 20, 20], [15, 15, 20, 20]]
    polygons = [annotation(n, 1, box) for n, box in enumerate(boxes)]
    masks = [coco_mask.decode(segmentation_to_rle(p["segmentation"], 40, 60)) for p in polygons]
    compressed = [coco_mask.encode(np.asfortranarray(m)) for m in masks]
    texts = [{"size": r["size"], "counts": r["counts"].decode()} for r in compressed]
    runs = []
    for mask in masks:
        pixels = mask.flatten(order="F")
        assert pixels[0] == 0
        edges = np.flatnonzero(np.diff(pixels)) + 1
        runs.append({"size": [40, 60], "counts": np.diff(np.concatenate([[0], edges, [2400]])).tolist()})
    reference = mapper()(load(*polygons))["targets"]
    for segmentations in (texts, runs):
        record = load(*[{**p, "segmentation": s} for p, s in zip(polygons, segmentations, strict=True)])
        targets = mapper()(record)["targets"]
        assert torch.equal(targets.masks.pixels, reference.masks.pixels)
        assert np.array_equal(targets.masks.windows, reference.masks.windows)


def test_crowds_and_empty_instances_are_left_out(load):
    record = load(
        annotation(1, 1, [0, 0, 60, 40], iscrowd=1, segmentation={"size": [1, 1], "counts": []}),
        annotation(2, 1, [5, 5, 0, 10]),  # no width
        annotation(3, 1, [5, 5, 10, 10], category_id=7),
        annotation(4, 1, [5, 5, 9, 9], segmentation=[[5, 5, 5, 9, 5, 7]]),  # covers no pixel
    )
    targets = mapper()(record)["targets"]
    assert targets.classes.tolist() == [1]
    assert not targets.masks.nonempty("occluder").any()


def test_image_without_instances(load):
    targets = mapper()(load())["targets"]
    assert (targets.boxes.shape, targets.boxes.dtype) == ((0, 4), torch.float32)
    assert (targets.classes.shape, targets.classes.dtype, len(targets.masks)) == ((0,), torch.int64, 0)


def test_occluder_of_the_file_is_used_unchanged(load):
    own = [square(1, 1, 4), square(50, 30, 8)]
    record = load(
        annotation(1, 1, [5, 10, 20, 20], bg_object_segmentation=own),
        annotation(2, 1, [15, 15, 20, 20], bg_object_segmentation=[]),
        annotation(3, 1, [5, 11, 20, 20]),
    )
    full = mapper()(record)["targets"].masks.to_full(40, 60)
    expected = torch.zeros(40, 60, dtype=torch.uint8)
    expected[1:5, 1:5] = 1
    expected[30:38, 50:58] = 1
    assert torch.equal(full[0, 1], expected)
    assert not full[1, 1].any()
    # The third has no occluder in the file: derived from both neighbours.
    neighbours = full[0, 0] | full[1, 0]
    neighbours[:11] = neighbours[31:] = neighbours[:, :5] = neighbours[:, 25:] = 0
    assert torch.equal(full[2, 1], neighbours)
    # A converted file's occluder as RLE is the same.
    rle = segmentation_to_rle(own, 40, 60)
    record.instances[0].occluder = {"size": [40, 60], "counts": rle["counts"].decode()}
    assert torch.equal(mapper()(record)["targets"].masks.to_full(40, 60), full)


def test_with_depth_only_objects_in_front_occlude(load):
    pair = [annotation(1, 1, [5, 10, 20, 20], depth=2), annotation(2, 1, [15, 15, 20, 20], depth=1)]
    crowd = annotation(9, 1, [0, 0, 60, 40], iscrowd=1)
    record = load(crowd, *pair)
    assert record.in_front == [(1, 2)]
    full = mapper()(record)["targets"].masks.to_full(40, 60)
    assert torch.equal(full[0, 1], full[0, 0] & full[1, 0])
    assert full[0, 1].any()
    assert not full[1, 1].any()


def test_amodal_target(load):
    behind = annotation(
        1, 1, [5, 10, 10, 20], amodal_segmentation=[square(5, 10, 20)], amodal_bbox=[5, 10, 20, 20], depth=1
    )
    hidden = annotation(3, 1, [0, 0, 0, 0], segmentation=[], amodal_segmentation=[square(20, 20, 5)], depth=2)
    hidden["amodal_bbox"] = [20, 20, 5, 5]
    front = annotation(2, 1, [15, 10, 20, 20], depth=0, amodal_segmentation=[square(15, 10, 20)])
    record = load(behind, hidden, front)
    visible = mapper()(record)["targets"]
    assert visible.boxes.tolist() == [[5, 10, 15, 30], [15, 10, 35, 30]]
    targets = mapper(mask_target="amodal")(record)["targets"]
    assert targets.boxes.tolist() == [[5, 10, 25, 30], [20, 20, 25, 25], [15, 10, 35, 30]]
    full = targets.masks.to_full(40, 60)
    assert full[0, 0].sum() == 400
    assert full[0, 0, 10:30, 5:25].all()
    # The occluder is the visible part of what lies in front, inside the amodal box.
    assert full[0, 1].sum() == 200
    assert full[0, 1, 10:30, 15:25].all()
    assert torch.equal(full[1, 0], full[1, 1])
    assert not full[2, 1].any()


def test_amodal_target_without_amodal_segmentation(load):
    record = load(annotation(8, 1, [5, 10, 10, 20]))
    with pytest.raises(ValueError, match=r"annotations.json: annotation 8 of image 1 .* has no amodal segmentation"):
        mapper(mask_target="amodal")(record)
    with pytest.raises(ValueError, match="must be 'visible' or 'amodal', got 'both'"):
        mapper(mask_target="both")


def test_missing_segmentation(load):
    record = load(
        annotation(8, 1, [5, 10, 10, 20], segmentation=None, category_id=7),
        annotation(9, 1, [5, 10, 10, 20], iscrowd=1, segmentation=None),
    )
    with pytest.raises(ValueError, match=r"annotations.json: annotation 8 of image 1 .*1.png. has no segmentation"):
        mapper()(record)
    assert [m.split(": ")[1] for m in missing_masks(record)] == [
        f"annotation 8 of image 1 ({record.file_name}) has no segmentation"
    ]
    assert len(missing_masks(load(annotation(8, 1, [5, 10, 10, 20])))) == 0
    assert len(missing_masks(load(annotation(8, 1, [5, 10, 10, 20])), "amodal")) == 1
    # Detectors of boxes need none.
    targets = mapper(with_masks=False)(record)["targets"]
    assert (targets.boxes.tolist(), targets.classes.tolist()) == ([[5, 10, 15, 30]], [1])
    assert not targets.masks.pixels.any()


@pytest.mark.parametrize(
    "segmentation, message",
    [
        ({"size": [40, 60], "counts": [5, 5]}, "annotation 8 .*: segmentation: .*runs must sum to .* 2400"),
        ([[1, 1, 5, float("nan"), 9, 9]], "annotation 8 .*: segmentation: .*nan"),
    ],
)
def test_faulty_content_of_a_segmentation(load, segmentation, message):
    record = load(annotation(8, 1, [5, 10, 10, 20]))
    record.instances[0].segmentation = segmentation  # which no reader returns
    with pytest.raises(ValueError, match=message) as error:
        mapper()(record)
    assert "annotations.json" in str(error.value)


def test_image_of_another_size(coco_files):
    annotation_file, image_root = coco_files({1: (40, 60)})
    record = ImageRecord(f"{image_root}/1.png", 1, 60, 40, [], annotation_file=annotation_file)
    with pytest.raises(ValueError, match=r"1.png' is 60 x 40 pixels .*annotations.json says 40 x 60 for image 1"):
        mapper()(record)


def test_from_config():
    cfg = get_cfg()
    cfg.INPUT.FORMAT = "RGB"
    cfg.INPUT.MASK_TARGET = "amodal"
    boxes_only = DatasetMapper.from_config(cfg, training=True)
    assert (boxes_only.with_masks, boxes_only.training, boxes_only.mask_target) == (False, True, "amodal")
    cfg.MODEL.MASK_ON = True
    test = DatasetMapper.from_config(cfg, training=False)
    assert (test.with_masks, test.training, test.augmentation.flip) == (True, False, "none")


def test_records_made_by_hand(coco_files):
    _, image_root = coco_files({1: (40, 60)})
    instance = InstanceRecord([5, 5, 10, 10], 4, segmentation=[square(5, 5, 10)], annotation_id="x")
    targets = mapper()(ImageRecord(f"{image_root}/1.png", "one", 40, 60, [instance]))["targets"]
    assert (targets.classes.tolist(), targets.image_id) == ([4], "one")
