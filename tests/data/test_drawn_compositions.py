"""Randomly drawn compositions: placement, donors, and batches independent of workers and processes."""

from __future__ import annotations

from dataclasses import replace
from itertools import chain, islice

import numpy as np
import pytest
import torch
from coco_samples import annotation
from PIL import Image
from pycocotools import mask as coco_mask
from test_loaders import assert_same

import bcnet.data.loaders as loaders
from bcnet.config import get_cfg
from bcnet.data import (
    DatasetMapper,
    ImageRecord,
    InstanceRecord,
    UnreadableImageError,
    build_train_loader,
    load_dataset,
)
from bcnet.data.composition import Composition, build_composition
from bcnet.data.cutouts import contour_of, cut_out
from bcnet.data.donors import Donors, donor_indices
from bcnet.data.sampling import augmentation_rng
from bcnet.data.source_masks import source_masks
from bcnet.ops.rle import encode_window

LAYERS = ("occludee", "occluder", "amodal")

SIZES = dict.fromkeys(range(1, 7), (120, 160))


@pytest.fixture
def spec(coco_files):
    annotations = [annotation(n, n, [20 + n, 20, 60, 60]) for n in SIZES]
    annotations += [annotation(10 + n, n, [70, 50, 50, 55], category_id=7) for n in SIZES]
    return "coco:{}:{}".format(*coco_files(SIZES, annotations))


def make_cfg(spec, **changes):
    cfg = get_cfg()
    cfg.DATASETS.TRAIN = (spec,)
    cfg.MODEL.MASK_ON = True
    cfg.MODEL.DEVICE = "cpu"
    cfg.MODEL.ROI_HEADS.NUM_CLASSES = 2
    cfg.MODEL.BILAYER.OCCLUDER_TARGET = "front"
    cfg.INPUT.MIN_SIZE_TRAIN = (96, 120)
    cfg.INPUT.COMPOSITION.ENABLED = True
    cfg.INPUT.COMPOSITION.PROBABILITY = 0.8
    cfg.INPUT.SCALE_JITTER.SIZE = (128, 128)
    cfg.SOLVER.IMS_PER_BATCH = 2
    cfg.DATALOADER.NUM_WORKERS = 0
    cfg.SEED = 3
    cfg.merge_from_list([item for pair in changes.items() for item in (pair[0].replace("__", "."), pair[1])])
    return cfg


def take(cfg, count, start=0):
    return list(islice(build_train_loader(cfg, start, layers=LAYERS), count))


ALL_AUGMENTATIONS = {
    "INPUT__CROP__ENABLED": True,
    "INPUT__SCALE_JITTER__ENABLED": True,
    "INPUT__SCALE_JITTER__MIN_SCALE": 0.5,
    "INPUT__COLOR_JITTER__ENABLED": True,
}


@pytest.mark.parametrize("changes", [{}, ALL_AUGMENTATIONS])
def test_the_same_batches_for_any_workers_and_processes_and_resumed(spec, monkeypatch, changes):
    cfg = make_cfg(spec, SOLVER__IMS_PER_BATCH=4, **changes)
    whole = take(cfg, 4)
    counts = {len(sample["targets"]) for batch in whole for sample in batch}
    assert max(counts) > 2  # objects were pasted
    for workers in (1, 2):
        assert_same(take(make_cfg(spec, SOLVER__IMS_PER_BATCH=4, DATALOADER__NUM_WORKERS=workers, **changes), 4), whole)
    assert_same(take(cfg, 2, start=2), whole[2:])
    assert_same(take(make_cfg(spec, SOLVER__IMS_PER_BATCH=4, INPUT__COMPOSITION__CACHE_MB=0, **changes), 4), whole)
    monkeypatch.setattr(loaders, "world_size", lambda: 2)
    parts = []
    for process in range(2):
        monkeypatch.setattr(loaders, "rank", lambda process=process: process)
        parts.append(take(cfg, 4))
    assert_same([first + second for first, second in zip(*parts, strict=True)], whole)


def test_a_detector_without_masks_gets_the_same_images_and_boxes(spec, coco_files):
    with_masks = take(make_cfg(spec), 4)
    boxes_only = take(make_cfg(spec, MODEL__MASK_ON=False), 4)
    for first, second in zip(chain(*with_masks), chain(*boxes_only), strict=True):
        assert torch.equal(first["image"], second["image"])
        assert torch.equal(first["targets"].boxes, second["targets"].boxes)
        assert torch.equal(first["targets"].classes, second["targets"].classes)
    without = annotation(1, 1, [20, 20, 60, 60])
    del without["segmentation"]
    with pytest.raises(ValueError, match=r"1 annotations cannot be trained on[\s\S]*without it boxes suffice"):
        take(make_cfg("coco:{}:{}".format(*coco_files(SIZES, [without])), MODEL__MASK_ON=False), 1)


def composition(spec, **changes):
    records, _ = load_dataset(spec)
    donors = Donors(records, donor_indices(records), cache_bytes=2**20)
    return records, Composition(donors, **{"probability": 1.0, "max_objects": 1, **changes})


def image_of(record):
    return Image.open(record.file_name).convert("RGB")


@pytest.mark.parametrize("behind", [0.0, 1.0])
@pytest.mark.parametrize("share", [0.15, 0.35, 0.6])
def test_the_hidden_share_is_near_the_drawn_one(spec, share, behind):
    records, compose = composition(spec, hidden_share=(share, share), behind=behind, min_visible=0.0)
    errors = []
    for position in range(24):
        record = records[position % len(records)]
        _, new = compose(image_of(record), record, augmentation_rng(0, position))
        if new.pasted:
            assert new.pasted == (not behind,)
            hidden = [
                1 - int(coco_mask.area(i.segmentation)) / int(coco_mask.area(i.uncovered))
                for i in new.instances
                if i.uncovered is not None
            ]
            errors.append(min(abs(h - share) for h in hidden))
    assert len(errors) >= 20
    assert max(errors) <= 0.1 and np.median(errors) < 0.03


@pytest.mark.parametrize("behind", [0.0, 1.0])
def test_pasted_pixels_are_the_donors_and_the_rest_is_unchanged(spec, behind):
    records, compose = composition(spec, feather=0.0, shadow=0.0, behind=behind)
    image = image_of(records[0])
    before = np.asarray(image).copy()
    new_image, new = compose(image, records[0], np.random.default_rng(0))
    assert len(new.pasted) == 1
    changed = (np.asarray(new_image) != before).any(axis=2)
    pasted = coco_mask.decode(new.instances[-1].segmentation).astype(bool)
    assert not (changed & ~pasted).any()
    assert changed[pasted].mean() > 0.95  # random pixels
    np.testing.assert_array_equal(np.asarray(image), before)  # the caller's image is left alone
    assert records[0].pasted == () and all(i.uncovered is None for i in records[0].instances)


def test_images_without_usable_objects_are_unchanged(spec):
    records, compose = composition(spec)
    image = image_of(records[0])
    first = records[0].instances
    crowd = [replace(first[0], iscrowd=True)]
    small = [replace(instance, segmentation=[[2, 2, 9, 2, 9, 9]]) for instance in first]
    for instances in ([], crowd, small):
        record = replace(records[0], instances=instances)
        for seed in range(5):
            assert compose(image, record, np.random.default_rng(seed)) == (image, record)
    # No donor, or only the image itself.
    for candidates in ([], [0]):
        lonely = Composition(Donors(records, np.array(candidates, dtype=int), cache_bytes=0), probability=1.0)
        assert lonely(image, records[0], np.random.default_rng(0)) == (image, records[0])


def test_what_can_be_cut_out():
    def record(box, **changes):
        x, y, w, h = box
        polygon = [x, y, x + w, y, x + w, y + h, x, y + h]
        return ImageRecord("x.png", 1, 100, 100, [InstanceRecord(box, 0, **{"segmentation": [polygon], **changes})])

    whole = [20, 20, 50, 50]
    records = [
        record(whole),
        record([20, 20, 10, 10]),  # small
        record([0, 20, 50, 50]),  # cut by the border
        record([20, 49.5, 50, 50]),
        record(whole, iscrowd=True),
        record(whole, segmentation=[[20, 20, 40, 20, 40, 70], [50, 20, 70, 20, 70, 70]]),  # in pieces
        record(whole, hidden_fraction=0.3),
        record(whole, hidden_fraction=0.0),
        record(whole, segmentation=None),
    ]
    assert donor_indices(records).tolist() == [0, 7]


def test_a_mask_in_pieces_is_not_cut_out(spec):
    records, _ = load_dataset(spec)
    mask = np.zeros((120, 160), bool)
    mask[10:60, 10:60] = mask[10:60, 80:130] = True
    records[0].instances = [InstanceRecord([10, 10, 120, 50], 0, segmentation=encode_window(mask, 0, 0, (120, 160)))]
    donors = Donors(records, np.array([0]), cache_bytes=2**20)
    assert donors.draw(np.random.default_rng(0)) == []


@pytest.mark.parametrize(("gap", "expected"), [(0, 1), (2, 1), (3, 0)])
def test_the_contour_that_touched_another_object(gap, expected):
    image = np.zeros((40, 50, 3), np.uint8)
    mask, occupied = encode_box((5, 10, 20, 20), (40, 50)), np.zeros((40, 50), np.uint8)
    occupied[10:30, 5:25] = occupied[5:35, 25 + gap : 40] = 1
    cutout = cut_out(image, mask, 0, occupied)
    right = np.zeros((20, 20), np.uint8)
    right[:, -1] = 1
    if gap == 0:  # up to three pixels from the other object
        right[[0, -1], -3:] = 1
    np.testing.assert_array_equal(cutout.contact, right * expected)
    np.testing.assert_array_equal(cut_out(image, mask, 0).contact, np.zeros((20, 20)))


@pytest.mark.parametrize("touching", [True, False])
def test_an_object_in_front_ends_by_its_own_contour(spec, touching):
    records, _ = load_dataset(spec)
    box = (40, 50, 60, 50)
    target = [replace(records[0].instances[0], bbox=list(box), segmentation=encode_box(box))]
    above = replace(target[0], iscrowd=True, segmentation=encode_box((40, 20, 60, 30 if touching else 20)))
    donors = Donors([replace(r, instances=[*target, above]) for r in records], np.arange(6), cache_bytes=2**20)
    compose = Composition(donors, probability=1.0, max_objects=1, behind=0.0, feather=0.0, hidden_share=(0.2, 0.4))
    record = replace(records[0], instances=target)
    over = coco_mask.decode(target[0].segmentation)
    upper, whole = [], []
    for seed in range(40):
        _, new = compose(image_of(record), record, np.random.default_rng(seed))
        if new.pasted:
            contour = contour_of(coco_mask.decode(new.instances[-1].segmentation)) & over
            first_row = round(new.instances[-1].bbox[1])
            upper.append(np.count_nonzero(contour[first_row]))
            whole.append(np.count_nonzero(contour))
    assert len(whole) >= 30
    share = np.array(upper) / np.array(whole)
    assert share.max() <= 0.1 if touching else (share > 0.3).any()


def encode_box(box, size=(120, 160)):
    x, y, width, height = box
    return encode_window(np.ones((height, width), bool), x, y, size)


def test_the_cache_of_cutouts_is_bounded(spec):
    records, _ = load_dataset(spec)
    one_image = (60 * 60 + 50 * 55) * 5  # mask, contact and three channels
    donors = Donors(records, donor_indices(records), cache_bytes=3 * one_image)
    sizes = []
    for seed in range(30):
        first = donors.draw(np.random.default_rng(seed))
        assert len(first) == 2
        assert donors.draw(np.random.default_rng(seed)) is first  # drawn last, still there
        sizes.append(donors.cached_bytes)
    assert max(sizes) == 3 * one_image
    nothing_kept = Donors(records, donor_indices(records), cache_bytes=0)
    nothing_kept.draw(np.random.default_rng(0))
    assert nothing_kept.cached_bytes == 0


def test_an_unreadable_donor(spec, caplog):
    records, _ = load_dataset(spec)
    broken = [replace(record, file_name="nowhere.png") for record in records]
    with pytest.raises(UnreadableImageError, match=r"nowhere\.png"):
        Donors(broken, np.arange(3), cache_bytes=0).draw(np.random.default_rng(0))
    assert Donors(broken, np.arange(3), cache_bytes=0, skip_unreadable=True).draw(np.random.default_rng(0)) == []
    assert "skipped an unreadable donor image (INPUT.BAD_IMAGE 'skip')" in caplog.text


def test_another_data_set_as_source(spec, coco_files):
    other = coco_files(
        {8: (90, 90)},
        [annotation(1, 8, [20, 20, 50, 50], category_id=1), annotation(2, 8, [20, 20, 50, 50], category_id=2)],
        name="other.json",
        categories=[{"id": 1, "name": "dog"}, {"id": 2, "name": "Cup"}],
    )
    records, info = load_dataset(spec)
    cfg = make_cfg(spec, INPUT__COMPOSITION__SOURCE="coco:{}:{}".format(*other))
    donors = build_composition(cfg, records, info.class_names).donors
    (cutout,) = donors.draw(np.random.default_rng(0))  # there is no dog among the training classes
    assert cutout.category == info.class_names.index("cup")
    with pytest.raises(
        ValueError, match=r"no class of INPUT\.COMPOSITION\.SOURCE .* DATASETS\.TRAIN: \[dog, Cup\] and"
    ):
        build_composition(cfg, records, ("bird", "horse"))
    for record in records:
        record.instances = [replace(i, segmentation=[[1, 1, 9, 1, 9, 9]], bbox=[1, 1, 8, 8]) for i in record.instances]
    with pytest.raises(ValueError, match=r"none of the 12 objects of DATASETS\.TRAIN can be cut out"):
        build_composition(make_cfg(spec), records, info.class_names)
    assert build_composition(make_cfg(spec, INPUT__COMPOSITION__ENABLED=False), records, info.class_names) is None


def test_layers_follow_the_composition_through_crop_and_jitter(spec):
    """The mapper's masks are those of the composed record, indexed by the transform; boxes are tight around them."""
    records, info = load_dataset(spec)
    cfg = make_cfg(spec, **ALL_AUGMENTATIONS)
    mapper = DatasetMapper.from_config(
        cfg, training=True, layers=LAYERS, composition=build_composition(cfg, records, info.class_names)
    )
    compared = 0
    for position in range(8):
        sample = mapper(records[0], augmentation_rng(1, position))
        rng = augmentation_rng(1, position)
        _, new = mapper.composition(image_of(records[0]), records[0], rng)
        transform = mapper.augmentation.draw(new.height, new.width, rng)
        rows, columns = transform.source_pixels()
        source = source_masks(new, "visible", LAYERS, "front")
        targets = sample["targets"]
        assert tuple(sample["image"].shape[1:]) == (128, 128)
        full = targets.masks.to_full(128, 128).numpy()
        expected = []
        for index in range(len(source.positions)):
            stack = [
                np.zeros((120, 160), np.uint8) if rles[index] is None else coco_mask.decode(rles[index])
                for rles in source.layers.values()
            ]
            padded = np.pad(stack, ((0, 0), (0, 1), (0, 1)))  # row 120 and column 160 lie outside
            expected.append(padded[:, rows][:, :, columns])
        expected = [e for e in expected if e[0].any()]
        assert len(expected) == len(full)
        for found, wanted, box in zip(full, expected, targets.boxes.tolist(), strict=True):
            np.testing.assert_array_equal(found, wanted)
            ys, xs = np.nonzero(wanted[0])
            assert box == [xs.min(), ys.min(), xs.max() + 1, ys.max() + 1]
            compared += 1
    assert compared >= 12
