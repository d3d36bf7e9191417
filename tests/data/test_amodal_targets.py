"""Amodal data sets end to end: from the files of each format to the training targets of both layers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from amodal_samples import (
    BOXES,
    IMAGES,
    SQUARES,
    cocoa,
    d2sa,
    hidden,
    kins_2019,
    kins_2020,
    pixels,
    region,
    visible,
    visible_box,
    write,
)
from coco_samples import annotation, square
from pycocotools import mask as coco_mask

import bcnet.data.catalog as catalog
from bcnet.config import get_cfg, load_config
from bcnet.data import DatasetMapper, build_train_loader, dataset_files, load_dataset
from bcnet.data.source_masks import source_masks
from bcnet.evaluation.ground_truth import GroundTruth

ROOT = Path(__file__).parents[2]
CONFIGS = sorted(path for folder in ("kins", "cocoa") for path in (ROOT / "configs" / folder).glob("*.yaml"))
CATEGORIES = [{"id": 4, "name": "car"}, {"id": 9, "name": "tea"}]


def coco(index):
    """The square in COCO's format, with the additional amodal keys."""
    x, y, width, height = visible_box(index)
    return annotation(
        index + 1,
        1,
        visible_box(index),
        category_id=4,
        segmentation=[[x, y, x + width, y, x + width, y + height, x, y + height]],
        amodal_segmentation=[SQUARES[index]],
        amodal_bbox=BOXES[index],
        depth=index,
    )


def listed(make):
    return {"images": IMAGES, "categories": CATEGORIES, "annotations": [make(i) for i in range(3)]}


CONTENTS = {
    "coco": listed(coco),
    "kins": listed(kins_2020),
    "cocoa": cocoa([region(i) for i in range(3)]),
    "d2sa": listed(d2sa),
}


@pytest.fixture(params=CONTENTS)
def spec(request, tmp_path):
    paths = write(tmp_path, CONTENTS[request.param])
    return "{}:{}:{}".format(request.param, *paths)


def decoded(rle):
    return np.zeros((40, 60), bool) if rle is None else coco_mask.decode(rle).astype(bool)


def test_with_an_amodal_target_the_occluders_cover_the_hidden_part(spec):
    """The occluders' visible pixels in the amodal box cover the hidden part and no visible pixel."""
    (record,), _ = load_dataset(spec)
    masks = source_masks(record, "amodal")
    assert masks.boxes == BOXES
    for index in range(3):
        np.testing.assert_array_equal(decoded(masks.layers["occludee"][index]), pixels([SQUARES[index]]))
        np.testing.assert_array_equal(decoded(masks.layers["occluder"][index]), hidden(index))
    assert masks.layers["occluder"][0] is None


def test_with_a_visible_target_only_those_in_front_count(spec):
    (record,), _ = load_dataset(spec)
    # A neighbour that begins where the object ends has no pixel in its box, so let the last one overlap the first.
    record.instances[2].segmentation = [square(18, 20, 10)]
    record.instances[2].bbox = [18, 20, 10, 10]
    masks = source_masks(record)
    assert masks.boxes == [visible_box(0), visible_box(1), [18, 20, 10, 10]]
    for index in range(2):
        np.testing.assert_array_equal(decoded(masks.layers["occludee"][index]), visible(index))
        assert masks.layers["occluder"][index] is None  # the last one lies behind
    expected = pixels([square(18, 20, 10)])
    np.testing.assert_array_equal(
        decoded(masks.layers["occluder"][2]), expected
    )  # the first on the left, the second beside it
    record.in_front = None
    unordered = source_masks(record)
    np.testing.assert_array_equal(decoded(unordered.layers["occluder"][0]), expected & pixels([square(4, 10, 20)]))


def test_without_an_order_every_neighbour_counts(tmp_path):
    content = listed(kins_2019)
    (record,), _ = load_dataset("kins:{}:{}".format(*write(tmp_path, content)))
    occluders = source_masks(record, "amodal").layers["occluder"]
    np.testing.assert_array_equal(decoded(occluders[0]), np.zeros((40, 60), bool))  # no visible pixel in its box
    np.testing.assert_array_equal(decoded(occluders[1]), hidden(1))
    record.instances[1].segmentation = [square(10, 10, 20)]  # an annotation that overlaps
    both = source_masks(record, "amodal").layers["occluder"]
    np.testing.assert_array_equal(decoded(both[0]), pixels([square(10, 10, 20)]) & pixels([square(4, 10, 20)]))


@pytest.mark.parametrize("target", ["visible", "amodal"])
def test_training_samples(spec, target):
    cfg = get_cfg()
    cfg.MODEL.MASK_ON = True
    cfg.INPUT.MASK_TARGET = target
    cfg.INPUT.MIN_SIZE_TRAIN = (0,)
    cfg.INPUT.RANDOM_FLIP = "none"
    cfg.DATASETS.TRAIN = (spec,)
    cfg.MODEL.ROI_HEADS.NUM_CLASSES = 2
    cfg.SOLVER.IMS_PER_BATCH = 1
    cfg.DATALOADER.NUM_WORKERS = 0
    (sample,) = next(build_train_loader(cfg))
    targets = sample["targets"]
    boxes = BOXES if target == "amodal" else [visible_box(i) for i in range(3)]
    assert targets.boxes.tolist() == [[x, y, x + w, y + h] for x, y, w, h in boxes]
    full = targets.masks.to_full(40, 60)
    for index in range(3):
        occludee = pixels([SQUARES[index]]) if target == "amodal" else visible(index)
        assert torch.equal(full[index, 0], torch.from_numpy(occludee.astype(np.uint8)))
        occluder = hidden(index) if target == "amodal" else np.zeros((40, 60), bool)
        assert torch.equal(full[index, 1], torch.from_numpy(occluder.astype(np.uint8)))


def test_hidden_object_is_a_target_only_with_an_amodal_target(tmp_path):
    content = cocoa([region(0), region(0, order=2, visible_mask={"size": [40, 60], "counts": [2400]})])
    (record,), _ = load_dataset("cocoa:{}:{}".format(*write(tmp_path, content)))
    cfg = get_cfg()
    cfg.MODEL.MASK_ON = True
    cfg.INPUT.MIN_SIZE_TRAIN = (0,)
    assert len(DatasetMapper.from_config(cfg, training=True)(record, np.random.default_rng(0))["targets"]) == 1
    cfg.INPUT.MASK_TARGET = "amodal"
    targets = DatasetMapper.from_config(cfg, training=True)(record, np.random.default_rng(0))["targets"]
    assert len(targets) == 2
    full = targets.masks.to_full(40, 60)
    assert torch.equal(full[1, 0], full[1, 1])


@pytest.mark.parametrize(
    "name, annotation_file, image_root, format",
    [
        ("kins_2020_train", "r/kins/update_train_2020.json", "r/kins/training/image_2", "kins"),
        ("kins_2019_val", "r/kins/instances_val.json", "r/kins/testing/image_2", "kins"),
        ("cocoa_val", "r/cocoa/annotations/COCO_amodal_val2014.json", "r/coco/val2014", "cocoa"),
        (
            "cocoa_cls_train",
            "r/cocoa/annotations/COCO_amodal_train2014_with_classes.json",
            "r/coco/train2014",
            "cocoa",
        ),
        (
            "d2sa_train_augmented",
            "r/d2sa/d2s_amodal_annotations_v1/D2S_amodal_augmented.json",
            "r/d2sa/d2s_amodal_images_v1/images",
            "d2sa",
        ),
        (
            "ochuman_val",
            "r/ochuman/annotations/ochuman_coco_format_val_range_0.00_1.00.json",
            "r/ochuman/images",
            "coco",
        ),
        ("coco_2017_separated", "r/coco/annotations/separated_coco.pkl", "r/coco/val2017", "occluded_coco"),
        ("kins:a/b.json:c", "a/b.json", "c", "kins"),
        ("cocoa:a/folder:c/d", "a/folder", "c/d", "cocoa"),
        ("occluded_coco:a/b.pkl:c", "a/b.pkl", "c", "occluded_coco"),
    ],
)
def test_files_of_names_and_specs(monkeypatch, name, annotation_file, image_root, format):
    monkeypatch.setenv("BCNET_DATASETS", "r")
    files = dataset_files(name)
    assert (files.annotation_file, files.image_root, files.format) == (annotation_file, image_root, format)


def test_every_name_has_a_reader():
    assert {files.format for files in catalog._catalog.values()} <= set(catalog.READER_REGISTRY.names())


def test_missing_files_say_what_to_set(monkeypatch, tmp_path):
    monkeypatch.setenv("BCNET_DATASETS", str(tmp_path))
    with pytest.raises(FileNotFoundError, match="set it to the folder that holds cocoa/ and coco/"):
        load_dataset("cocoa_train")
    with pytest.raises(FileNotFoundError, match=r"set it to the folder that holds kins/$"):
        load_dataset("kins_2020_train")
    (tmp_path / "folder").mkdir()
    with pytest.raises(FileNotFoundError, match=r"annotation file .*folder. not found"):
        load_dataset(f"kins:{tmp_path}/folder:{tmp_path}")


def test_records_are_ground_truth_for_evaluation(spec):
    truth = GroundTruth.from_records(*load_dataset(spec))
    assert [a["bbox"] for a in truth.annotations] == [visible_box(i) for i in range(3)]
    assert [a["bbox"] for a in truth.amodal().annotations] == BOXES
    assert [a["area"] for a in truth.amodal().annotations] == [400.0] * 3


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_configs_name_data_sets_with_amodal_masks(path):
    cfg = load_config(str(path))
    assert cfg.INPUT.MASK_TARGET == "amodal"
    formats = {dataset_files(name).format for name in (*cfg.DATASETS.TRAIN, *cfg.DATASETS.TEST)}
    assert formats == {path.parent.name}
    assert cfg.SOLVER.STEPS[-1] < cfg.SOLVER.MAX_ITER
    assert cfg.MODEL.ROI_HEADS.NUM_CLASSES == {"kins": 8, "cocoa": 80 if "cls" in path.name else 1}[path.parent.name]
