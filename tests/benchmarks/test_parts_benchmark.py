"""Benchmarks of targets, pasting and evaluation: both implementations agree, and errors if they do not."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch

from bcnet.bilayer import MapTarget
from bcnet.data.donors import Donors
from bcnet.evaluation import GroundTruth
from benchmarks import BenchmarkSettings, evaluation, paste, targets
from benchmarks.evaluation import benchmark_evaluation, figures, pycocotools_figures, random_results
from benchmarks.mapper import benchmark_mapper
from benchmarks.paste import benchmark_paste, random_detections
from benchmarks.scene import crowded_image
from benchmarks.targets import benchmark_targets

QUICK = BenchmarkSettings(quick=True, repeats=1)


def check(row, name, required):
    assert row.name == name
    assert row.required == required
    assert len(row.ours) == len(row.theirs) == 1
    assert min(row.ours + row.theirs) > 0


def test_crowded_image():
    image = crowded_image(7, (60, 90), num_classes=3, seed=1)
    assert image.image.shape == (3, 60, 90) and image.image.dtype == torch.uint8
    assert image.boxes.shape == (7, 4) and (image.boxes[:, 2:] - image.boxes[:, :2]).min() >= 8
    assert image.masks.shape == (2, 7, 60, 90)
    assert image.masks[0].flatten(1).any(dim=1).all() and image.masks[1].any()
    assert image.classes.max() < 3 and len(image.rles) == 7
    full = image.targets().masks.to_full(60, 90)
    assert torch.equal(full.transpose(0, 1), image.masks)
    assert torch.equal(image.peer_targets()["labels"], image.classes + 1)
    assert "masks" not in image.peer_targets(with_masks=False)
    again = crowded_image(7, (60, 90), num_classes=3, seed=1)
    assert torch.equal(image.image, again.image) and torch.equal(image.boxes, again.boxes)


def test_targets_rows_and_disagreement(monkeypatch):
    whole, boundaries, published = benchmark_targets(QUICK)
    check(whole, "targets", 20.0)
    check(boundaries, "targets-boundaries", None)
    check(published, "targets-published", None)
    assert whole.ours == published.ours
    original = targets.targets_at_once
    monkeypatch.setattr(
        targets, "targets_at_once", lambda crops: {**original(crops), "occluder_boundary": crops["occluder"]}
    )
    with pytest.raises(RuntimeError, match="of the batch and of single RoIs disagree"):
        benchmark_targets(QUICK)
    crops = targets.crops_of_full_images

    def shifted(regions):
        return {name: MapTarget(target.values.roll(1, dims=1)) for name, target in crops(regions).items()}

    monkeypatch.setattr(targets, "crops_of_full_images", shifted)
    with pytest.raises(RuntimeError, match=r"full images disagree in .*% of their pixels"):
        benchmark_targets(QUICK)


def test_paste_row_and_disagreement(monkeypatch):
    (row,) = benchmark_paste(QUICK)
    check(row, "paste", 5.0)
    full = paste.rles_of_full_masks
    monkeypatch.setattr(paste, "rles_of_full_masks", lambda detections: full(detections)[::-1])
    with pytest.raises(RuntimeError, match="disagree"):
        benchmark_paste(QUICK)


def test_random_detections_have_boxes_inside_and_masks():
    detections = random_detections(20, (200, 300), seed=2)
    assert detections.boxes.min() >= 0
    assert (detections.boxes.max(dim=0).values <= torch.tensor([300, 200, 300, 200])).all()
    covered = (detections.occludee_mask > 0.5).float().mean(dim=(1, 2))
    assert covered.min() > 0.2 and covered.max() < 0.9


def test_evaluation_rows_and_disagreement(monkeypatch):
    boxes, masks, loading = benchmark_evaluation(QUICK)
    check(boxes, "evaluation-bbox", 5.0)
    check(masks, "evaluation-segm", 2.5)
    check(loading, "evaluation-load", None)
    monkeypatch.setattr(evaluation, "figures", lambda *args: [value + 1e-5 for value in figures(*args)])
    with pytest.raises(RuntimeError, match="pycocotools returns"):
        benchmark_evaluation(QUICK)


def test_random_results_are_neither_perfect_nor_hopeless():
    content, results = random_results(6, seed=1)
    assert len(results) == 6 * evaluation.DETECTIONS_PER_IMAGE
    truth = GroundTruth.from_dict(content)
    for iou_type, key in (("bbox", "bbox"), ("segm", "segmentation")):
        kept = [{name: r[name] for name in ("image_id", "category_id", "score", key)} for r in results]
        ours = figures(truth, kept, iou_type)
        assert np.allclose(ours, pycocotools_figures(content, kept, iou_type), rtol=0, atol=1e-6, equal_nan=True)
        assert 1 < ours[0] < 90


def test_mapper_rows(monkeypatch):
    threads, cache_bytes = cv2.getNumThreads(), []
    cut = Donors._cut
    monkeypatch.setattr(Donors, "_cut", lambda self, record: cache_bytes.append(self.cache_bytes) or cut(self, record))
    without_peer, half, composed = benchmark_mapper(QUICK)
    assert cv2.getNumThreads() == threads
    assert set(cache_bytes) == {0}  # as in a large data set, every donor is read
    check(half, "mapper-composition-half", 1.3)
    check(composed, "mapper-composition", None)
    assert half.theirs == composed.theirs and half.as_cost
    assert without_peer.name == "mapper"
    if without_peer.skipped:
        assert without_peer.skipped == "detectron2 is not installed" and not without_peer.ours
    else:
        assert without_peer.ours == half.theirs and min(without_peer.theirs) > 0
