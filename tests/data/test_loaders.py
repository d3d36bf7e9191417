from __future__ import annotations

import gc
import logging
import os
import pickle
import time
from itertools import islice

import numpy as np
import pytest
import torch
from coco_samples import annotation

import bcnet.data.loaders as loaders
from bcnet.config import get_cfg
from bcnet.data import UnreadableImageError, build_test_loader, build_train_loader
from bcnet.structures import InstanceMasks, Targets

# Four landscape images, three portrait ones; image 7 is square and counts as portrait.
SIZES = {1: (20, 30), 2: (30, 20), 3: (20, 30), 4: (30, 20), 5: (20, 30), 6: (20, 30), 7: (25, 25)}


@pytest.fixture
def make_cfg(coco_files):
    def make(annotations=None, **changes):
        if annotations is None:
            annotations = [annotation(n, n, [n, n, 9, 9]) for n in SIZES]
            annotations += [annotation(10 + n, n, [n + 4, n + 4, 9, 9]) for n in SIZES]
        spec = "coco:{}:{}".format(*coco_files(SIZES, annotations))
        cfg = get_cfg()
        cfg.DATASETS.TRAIN = (spec,)
        cfg.DATASETS.TEST = (spec,)
        cfg.MODEL.MASK_ON = True
        cfg.MODEL.DEVICE = "cpu"
        cfg.MODEL.ROI_HEADS.NUM_CLASSES = 2
        cfg.INPUT.MIN_SIZE_TRAIN = (24, 28, 32)
        cfg.INPUT.MIN_SIZE_TEST = 24
        cfg.SOLVER.IMS_PER_BATCH = 2
        cfg.DATALOADER.NUM_WORKERS = 0
        cfg.SEED = 3
        cfg.merge_from_list([item for pair in changes.items() for item in (pair[0].replace("__", "."), pair[1])])
        return cfg

    return make


def assert_same(batches, others):
    """Bit for bit, dicts and tensors."""
    assert len(batches) == len(others)
    for batch, other in zip(batches, others, strict=True):
        assert [s["image_id"] for s in batch] == [s["image_id"] for s in other]
        for sample, same in zip(batch, other, strict=True):
            assert sample.keys() == same.keys()
            assert torch.equal(sample["image"], same["image"])
            for field in ("boxes", "classes"):
                assert torch.equal(getattr(sample["targets"], field), getattr(same["targets"], field))
            assert torch.equal(sample["targets"].masks.pixels, same["targets"].masks.pixels)
            assert np.array_equal(sample["targets"].masks.windows, same["targets"].masks.windows)


def take(cfg, count, start=0):
    return list(islice(build_train_loader(cfg, start), count))


def test_samples_have_the_public_keys(make_cfg):
    sample = take(make_cfg(), 1)[0][0]
    assert set(sample) == {"image", "targets", "image_id", "file_name", "height", "width"}
    assert len(sample["targets"]) == 2


def test_any_number_of_workers_gives_the_same_batches(make_cfg):
    alone = take(make_cfg(), 9)
    assert len({s["image"].shape for batch in alone for s in batch}) > 3  # sizes are drawn
    for workers in (1, 2):
        assert_same(take(make_cfg(DATALOADER__NUM_WORKERS=workers), 9), alone)


def test_resumed_gives_the_same_batches(make_cfg):
    whole = take(make_cfg(), 12)
    assert_same(take(make_cfg(), 5, start=7), whole[7:])
    assert_same(take(make_cfg(DATALOADER__NUM_WORKERS=2), 5, start=7), whole[7:])
    steps = make_cfg(SOLVER__ACCUMULATE_STEPS=2)
    assert_same(take(steps, 10, start=7), [[sample] for batch in whole[7:] for sample in batch])


def test_processes_share_the_joint_batch(make_cfg, monkeypatch):
    cfg = make_cfg(SOLVER__IMS_PER_BATCH=4)
    whole = take(cfg, 4)
    monkeypatch.setattr(loaders, "world_size", lambda: 2)
    parts = []
    for process in range(2):
        monkeypatch.setattr(loaders, "rank", lambda process=process: process)
        parts.append(take(cfg, 4))
    assert_same([first + second for first, second in zip(*parts, strict=True)], whole)


def test_batches_are_of_one_orientation(make_cfg):
    for batch in take(make_cfg(), 12):
        assert len({s["width"] > s["height"] for s in batch}) == 1
    mixed = take(make_cfg(DATALOADER__ASPECT_RATIO_GROUPING=False), 12)
    assert any(len({s["width"] > s["height"] for s in batch}) == 2 for batch in mixed)
    assert sorted(s["image_id"] for batch in mixed[:7] for s in batch) == sorted([*SIZES, *SIZES])


def test_torch_generator_is_not_advanced(make_cfg):
    torch.manual_seed(0)
    state = torch.get_rng_state()
    take(make_cfg(DATALOADER__NUM_WORKERS=1), 2)
    assert torch.equal(torch.get_rng_state(), state)


def test_empty_and_crowd_only_images_are_filtered(make_cfg):
    annotations = [
        annotation(1, 1, [2, 2, 9, 9]),  # a single object trains
        annotation(2, 3, [2, 2, 9, 9], iscrowd=1),
    ]
    cfg = make_cfg(annotations, SOLVER__IMS_PER_BATCH=1)
    assert {s["image_id"] for batch in take(cfg, 5) for s in batch} == {1}
    targets = take(cfg, 1)[0][0]["targets"]
    assert len(targets) == 1
    assert not targets.masks.nonempty("occluder").any()
    cfg = make_cfg(annotations, SOLVER__IMS_PER_BATCH=1, DATALOADER__FILTER_EMPTY_ANNOTATIONS=False)
    batches = take(cfg, 7)
    assert {s["image_id"] for batch in batches for s in batch} == set(SIZES)
    assert {s["image_id"]: len(s["targets"]) for batch in batches for s in batch}[3] == 0
    with pytest.raises(ValueError, match="no image with an object to train on"):
        build_train_loader(make_cfg([]))


def test_two_training_sets(make_cfg, coco_files):
    cfg = make_cfg()
    other = "coco:{}:{}".format(*coco_files({8: (20, 30)}, [annotation(1, 8, [2, 2, 9, 9])], name="other.json"))
    cfg.DATASETS.TRAIN = (*cfg.DATASETS.TRAIN, other)
    cfg.DATALOADER.ASPECT_RATIO_GROUPING = False
    loader = build_train_loader(cfg)
    assert sorted(s["image_id"] for batch in islice(loader, 4) for s in batch) == [*SIZES, 8]
    assert loader.info.class_names == ("cat", "cup")
    strange = coco_files({8: (20, 30)}, [], name="strange.json", categories=[{"id": 1, "name": "dog"}])
    cfg.DATASETS.TRAIN = (other, "coco:{}:{}".format(*strange))
    with pytest.raises(ValueError, match=r"same classes as the first one.*: 'coco:.*' has cat, cup, 'coco:.*' has dog"):
        build_train_loader(cfg)


def test_configuration_that_cannot_train(make_cfg, caplog):
    with pytest.raises(ValueError, match=r"2 classes \(cat, cup\), but MODEL.ROI_HEADS.NUM_CLASSES is 1; set it to 2"):
        build_train_loader(make_cfg(MODEL__ROI_HEADS__NUM_CLASSES=1))
    build_train_loader(make_cfg(MODEL__ROI_HEADS__NUM_CLASSES=5))
    assert "3 outputs are never trained" in caplog.text
    with pytest.raises(ValueError, match=r"DATASETS.TRAIN is empty"):
        cfg = make_cfg()
        cfg.DATASETS.TRAIN = ()
        build_train_loader(cfg)
    with pytest.raises(ValueError, match=r"IMS_PER_BATCH \(3\) .* SOLVER.ACCUMULATE_STEPS \(2\)"):
        build_train_loader(make_cfg(SOLVER__IMS_PER_BATCH=3, SOLVER__ACCUMULATE_STEPS=2))
    with pytest.raises(ValueError, match="batch_size must be at least 1, got 0"):
        build_test_loader(make_cfg(), "coco_2017_val", batch_size=0)


def test_annotation_without_a_mask_is_found_before_training(make_cfg):
    annotations = [annotation(1, 1, [2, 2, 9, 9]), annotation(2, 2, [2, 2, 9, 9], segmentation=None)]
    with pytest.raises(ValueError, match=r"1 annotations cannot be trained on[^\n]*\n.*annotation 2 of image 2"):
        build_train_loader(make_cfg(annotations))
    assert take(make_cfg(annotations, MODEL__MASK_ON=False), 1)
    with pytest.raises(ValueError, match=r"2 annotations cannot be trained on .*'amodal'"):
        build_train_loader(make_cfg(annotations, INPUT__MASK_TARGET="amodal"))
    build_test_loader(make_cfg(annotations), make_cfg(annotations).DATASETS.TEST[0])


def test_plain_json_without_composition_has_neither_amodal_masks_nor_an_order(make_cfg, caplog):
    hint = "INPUT.COMPOSITION.ENABLED True makes"
    with pytest.raises(ValueError, match=rf"14 annotations cannot be trained on[^$]*amodal segmentation\n  {hint}"):
        build_train_loader(make_cfg(), layers=("occludee", "amodal"))
    build_train_loader(make_cfg(), layers=("occludee", "occluder"))
    assert "depth order" not in caplog.text
    build_train_loader(make_cfg(MODEL__BILAYER__OCCLUDER_TARGET="front"), layers=("occludee", "occluder"))
    assert "has no depth order: its occluders are not known" in caplog.text and hint in caplog.text
    ordered = [annotation(n, n, [n, n, 9, 9], depth=0) for n in SIZES]
    caplog.clear()
    build_train_loader(make_cfg(ordered, MODEL__BILAYER__OCCLUDER_TARGET="front"), layers=("occludee", "occluder"))
    assert "depth order" not in caplog.text


def test_negative_seed_is_replaced(make_cfg, caplog):
    with caplog.at_level(logging.INFO):
        loader = build_train_loader(make_cfg(SEED=-1))
    assert loader.seed >= 0
    assert f"use the random seed {loader.seed}" in caplog.text
    assert_same(list(islice(loader, 3)), take(make_cfg(SEED=loader.seed), 3))


def break_images(cfg, *image_ids):
    root = cfg.DATASETS.TRAIN[0].split(":")[-1]
    for image_id in image_ids:
        with open(os.path.join(root, f"{image_id}.png"), "wb") as file:
            file.write(b"not an image")


@pytest.mark.parametrize("workers", [0, 2])
def test_unreadable_image_raises(make_cfg, workers):
    cfg = make_cfg(DATALOADER__NUM_WORKERS=workers)
    break_images(cfg, 3)
    with pytest.raises(UnreadableImageError, match=r"cannot read the image '.*3.png'") as error:
        take(cfg, 7)
    # Torch waits 5 seconds per worker for an iterator that is part of a reference cycle.
    start = time.monotonic()
    del error
    gc.collect()
    assert time.monotonic() - start < 5 * max(workers, 1) - 1


def test_unreadable_image_is_replaced_counted_and_logged_once(make_cfg, caplog):
    cfg = make_cfg(INPUT__BAD_IMAGE="skip", DATALOADER__ASPECT_RATIO_GROUPING=True)
    sound = take(cfg, 14)
    break_images(cfg, 3, 5)
    batches = {}
    for workers in (0, 2):
        caplog.clear()
        loader = build_train_loader(make_cfg(INPUT__BAD_IMAGE="skip", DATALOADER__NUM_WORKERS=workers))
        batches[workers] = list(islice(loader, 14))
        logged = [r.getMessage() for r in caplog.records if r.levelno == logging.WARNING]
        assert sorted(m.split("/")[-1].split("'")[0] for m in logged) == ["3.png", "5.png"]
        # Replaced by the next readable image of the same orientation: 6 for both.
        replaced = 0
        for batch, before in zip(batches[workers], sound, strict=True):
            ids, ids_before = [s["image_id"] for s in batch], [s["image_id"] for s in before]
            assert ids == [6 if i in (3, 5) else i for i in ids_before]
            replaced += sum(i in (3, 5) for i in ids_before)
        counts = {m.split("/")[-1].split("'")[0]: n for m, n in loader.unreadable_images.items()}
        assert set(counts) == {"3.png", "5.png"}
        # Where 3 was drawn, 5 was tried next and counted too.
        assert counts["5.png"] == replaced
    assert_same(batches[2], batches[0])


def test_all_unreadable(make_cfg):
    cfg = make_cfg(INPUT__BAD_IMAGE="skip", DATALOADER__ASPECT_RATIO_GROUPING=False)
    break_images(cfg, *SIZES)
    with pytest.raises(UnreadableImageError, match="none of 7 images could be read; the first: cannot read"):
        take(cfg, 1)


def test_missing_image_files_are_found_before_the_first_one_is_read(make_cfg):
    cfg = make_cfg()
    root = cfg.DATASETS.TRAIN[0].split(":")[-1]
    os.remove(os.path.join(root, "3.png"))
    for build in (build_train_loader, lambda cfg: build_test_loader(cfg, cfg.DATASETS.TEST[0])):
        cfg.INPUT.BAD_IMAGE = "raise"
        with pytest.raises(FileNotFoundError, match=r"1 of 7 checked image files are missing.*/3.png'$"):
            build(cfg)
        cfg.INPUT.BAD_IMAGE = "skip"
        build(cfg)
    for image_id in set(SIZES) - {3}:
        os.remove(os.path.join(root, f"{image_id}.png"))
    with pytest.raises(FileNotFoundError, match=r"DATASETS\.TRAIN: 7 of 7 checked image files"):
        build_train_loader(cfg)


def test_windows_separators_are_the_reason_of_missing_image_files(make_cfg, coco_files):
    cfg = make_cfg()
    images = [{"id": 1, "file_name": "part\\1.png", "height": 20, "width": 30}]
    path, root = coco_files({1: SIZES[1]}, [annotation(1, 1, [1, 1, 9, 9])], images=images)
    os.mkdir(os.path.join(root, "part"))
    os.rename(os.path.join(root, "1.png"), os.path.join(root, "part", "1.png"))
    with pytest.raises(FileNotFoundError, match=r"/part/1.png' exists: file_name has Windows separators"):
        build_test_loader(cfg, f"lvis:{path}:{root}")  # the format coco finds it


def test_size_mismatch_is_never_skipped(make_cfg):
    cfg = make_cfg(INPUT__BAD_IMAGE="skip")
    root = cfg.DATASETS.TRAIN[0].split(":")[-1]
    os.replace(os.path.join(root, "2.png"), os.path.join(root, "1.png"))
    with pytest.raises(ValueError, match=r"1.png' is 20 x 30 pixels .* says 30 x 20"):
        take(cfg, 7)


def test_test_loader_yields_all_images_in_order(make_cfg, monkeypatch):
    cfg = make_cfg()
    loader = build_test_loader(cfg, cfg.DATASETS.TEST[0])
    assert len(loader) == 7
    for _ in range(2):
        batches = list(loader)
        assert [[s["image_id"] for s in batch] for batch in batches] == [[n] for n in SIZES]
    assert "targets" not in batches[0][0]
    assert batches[0][0]["image"].shape == (3, 24, 36)
    assert loader.info.class_names == ("cat", "cup")
    cfg.DATALOADER.NUM_WORKERS = 2
    in_threes = build_test_loader(cfg, cfg.DATASETS.TEST[0], batch_size=3)
    assert [[s["image_id"] for s in batch] for batch in in_threes] == [[1, 2, 3], [4, 5, 6], [7]]
    monkeypatch.setattr(loaders, "world_size", lambda: 3)
    monkeypatch.setattr(loaders, "rank", lambda: 1)
    assert [batch[0]["image_id"] for batch in build_test_loader(cfg, cfg.DATASETS.TEST[0])] == [4, 5]


def test_test_loader_with_unreadable_images(make_cfg, caplog):
    cfg = make_cfg()
    break_images(cfg, 2, 7)
    with pytest.raises(UnreadableImageError, match=r"2.png"):
        list(build_test_loader(cfg, cfg.DATASETS.TEST[0]))
    cfg.INPUT.BAD_IMAGE = "skip"
    loader = build_test_loader(cfg, cfg.DATASETS.TEST[0], batch_size=2)
    assert [[s["image_id"] for s in batch] for batch in loader] == [[1], [3, 4], [5, 6]]
    assert sum(loader.unreadable_images.values()) == 2
    assert caplog.text.count("skipped by INPUT.BAD_IMAGE") == 2


def test_image_info_json_tests_and_does_not_train(make_cfg, coco_files):
    cfg = make_cfg()
    spec = "coco:{}:{}".format(*coco_files(SIZES, None, name="image_info.json"))
    assert len(list(build_test_loader(cfg, spec))) == 7
    cfg.DATASETS.TRAIN = spec  # a string instead of a tuple is accepted
    with pytest.raises(ValueError, match="no image with an object to train on"):
        build_train_loader(cfg)


def test_workers_use_one_thread(make_cfg):
    cfg = make_cfg(DATALOADER__NUM_WORKERS=1)
    loader = build_train_loader(cfg)
    loader._loader.dataset.mapper = _report_threads
    assert next(loader)[0]["image"] == (1, 1)


def _report_threads(record, rng):
    import cv2

    return {"image": (torch.get_num_threads(), cv2.getNumThreads())}


def test_workers_have_a_process_group_of_their_own(make_cfg):
    """A signal to the main process' group does not kill workers in the middle of a batch."""
    loader = build_train_loader(make_cfg(DATALOADER__NUM_WORKERS=1))
    loader._loader.dataset.mapper = _report_group
    worker, group = next(loader)[0]["image"]
    assert worker == group != os.getpgrp()


def _report_group(record, rng):
    return {"image": (os.getpid(), os.getpgrp())}


def test_samples_are_unchanged_by_transfer_between_processes(make_cfg):
    targets = take(make_cfg(), 1)[0][0]["targets"]
    again = pickle.loads(pickle.dumps(targets))
    assert isinstance(again, Targets) and isinstance(again.masks, InstanceMasks)
    assert torch.equal(again.masks.pixels, targets.masks.pixels)
