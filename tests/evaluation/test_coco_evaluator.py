"""The evaluator's life from update to metrics."""

import gc
import json
import math
import weakref

import numpy as np
import pytest
import torch
from pycocotools import mask as coco_mask

from bcnet.data import DatasetInfo, ImageRecord, InstanceRecord
from bcnet.evaluation import CocoEvaluator, GroundTruth, average_precision
from bcnet.structures import Detections


def annotated(tmp_path, **changes):
    """Two images of 4 x 4, one square object in the first."""
    content = {
        "images": [{"id": 5, "height": 4, "width": 4}, {"id": 9, "height": 4, "width": 4}],
        "categories": [{"id": 2, "name": "cat"}, {"id": 1, "name": "bat"}],
        "annotations": [
            {
                "id": 1,
                "image_id": 5,
                "category_id": 2,
                "bbox": [0, 0, 2, 2],
                "area": 4,
                "iscrowd": 0,
                "segmentation": [[0, 0, 2, 0, 2, 2, 0, 2]],
            }
        ],
        **changes,
    }
    path = tmp_path / "annotations.json"
    path.write_text(json.dumps({key: value for key, value in content.items() if value is not None}))
    return path


def detections(count, masks=True, image_size=(4, 4)):
    return Detections(
        image_size=image_size,
        boxes=torch.tensor([[0.0, 0.0, 2.0, 2.0]]).repeat(count, 1),
        scores=torch.linspace(0.9, 0.5, count) if count else torch.zeros(0),
        classes=torch.ones(count, dtype=torch.int64),
        maps={"occludee_mask": torch.ones(count, 28, 28)} if masks else {},
    )


def test_evaluator_from_update_to_files(tmp_path):
    evaluator = CocoEvaluator(annotated(tmp_path), tmp_path / "out")
    evaluator.update(9, detections(0))
    evaluator.update(5, detections(1))
    metrics = evaluator.compute()
    assert metrics["bbox"]["AP"] == metrics["segm"]["AP"] == pytest.approx(100)
    assert metrics["segm"]["AP-cat"] == pytest.approx(100)
    assert math.isnan(metrics["segm"]["AP-bat"]) and math.isnan(metrics["segm"]["APl"])
    written = json.loads((tmp_path / "out/coco_instances_results.json").read_text())
    assert len(written) == 1
    assert (written[0]["image_id"], written[0]["category_id"]) == (5, 2)  # class 1 is the higher id
    assert written[0]["bbox"] == [0, 0, 2, 2]
    assert coco_mask.decode({**written[0]["segmentation"]}).sum() == 4
    saved = json.loads((tmp_path / "out/metrics.json").read_text())
    assert saved["segm"]["AP"] == pytest.approx(100) and saved["segm"]["AP-bat"] is None
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["coco_instances_results.json", "metrics.json"]
    evaluator.reset()
    assert evaluator.results() == []


def test_dataset_info_says_the_classes(tmp_path):
    class Info:
        annotation_file = annotated(tmp_path)
        category_ids = (2, 1)
        class_names = ("feline", "flyer")

    evaluator = CocoEvaluator(Info())
    evaluator.update(5, detections(1))
    assert evaluator.results()[0]["category_id"] == 1


def test_no_detections_at_all(tmp_path, caplog):
    evaluator = CocoEvaluator(annotated(tmp_path), tmp_path / "out")
    for image_id in (5, 9):
        evaluator.update(image_id, detections(0))
    metrics = evaluator.compute()
    assert [metrics[task][name] for task in ("bbox", "segm") for name in ("AP", "AP50", "AP75", "APs")] == [0] * 8
    assert "not one detection" in caplog.text
    assert json.loads((tmp_path / "out/coco_instances_results.json").read_text()) == []


def test_of_an_image_only_its_results_are_kept(tmp_path):
    # Memory would otherwise grow with the maps: 28 x 28 numbers of four kinds for each detection.
    evaluator = CocoEvaluator(annotated(tmp_path))
    found = detections(3)
    kept = [weakref.ref(found), weakref.ref(found.occludee_mask), weakref.ref(found.boxes)]
    evaluator.update(5, found)
    del found
    gc.collect()
    assert [reference() for reference in kept] == [None, None, None]
    content = json.dumps(evaluator.state()["results"])  # plain values
    assert len(content) < 3 * 400


def test_detector_without_masks(tmp_path):
    evaluator = CocoEvaluator(annotated(tmp_path))
    evaluator.update(5, detections(1, masks=False))
    metrics = evaluator.compute()
    assert metrics["bbox"]["AP"] == pytest.approx(100)
    assert metrics["operating_point"]["iou_type"] == "bbox"
    assert not metrics.keys() & {"segm", "boundary", "occlusion", "recall"}


def test_images_that_were_not_evaluated_are_named(tmp_path, caplog):
    evaluator = CocoEvaluator(annotated(tmp_path))
    evaluator.update(5, detections(1))
    evaluator.compute()
    assert "1 of 2 images" in caplog.text


@pytest.mark.parametrize("annotations", [None, []])
def test_test_set_without_annotations_gives_the_results_file_only(tmp_path, annotations):
    evaluator = CocoEvaluator(annotated(tmp_path, annotations=annotations), tmp_path / "out")
    evaluator.update(5, detections(2))
    assert evaluator.compute() == {}
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["coco_instances_results.json"]
    assert len(json.loads((tmp_path / "out/coco_instances_results.json").read_text())) == 2


def test_update_refuses_what_would_spoil_the_figures(tmp_path):
    evaluator = CocoEvaluator(annotated(tmp_path))
    evaluator.update(5, detections(1))
    with pytest.raises(ValueError, match="image 5 was added twice"):
        evaluator.update(5, detections(1))
    with pytest.raises(ValueError, match="image 6 is not listed"):
        evaluator.update(6, detections(1))
    with pytest.raises(ValueError, match=r"\(8, 8\).*\(4, 4\).*rescaled"):
        evaluator.update(9, detections(1, image_size=(8, 8)))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"images": None}, "annotations.json is not a COCO file: it has no list of images"),
        (
            {"annotations": [{"id": 3, "image_id": 5, "category_id": 2}]},
            "annotation 3: it has neither a bbox nor a mask",
        ),
        (
            {"annotations": [{"id": 3, "image_id": 5, "category_id": 2, "segmentation": [[0, 0, 1, 1]]}]},
            "annotation 3: every polygon has fewer than 3 points",
        ),
        (
            {"annotations": [{"id": 3, "image_id": 5, "category_id": 8, "bbox": [0, 0, 2, 2]}]},
            "annotation 3: category_id 8 is not in the file's categories",
        ),
    ],
)
def test_bad_annotations_are_named(tmp_path, changes, message):
    with pytest.raises(ValueError, match=message):
        CocoEvaluator(annotated(tmp_path, **changes))


def test_boxes_alone_are_compared_where_some_objects_have_no_mask(tmp_path, caplog):
    annotations = [
        {"id": 3, "image_id": 5, "category_id": 2, "bbox": [0, 0, 2, 2], "segmentation": [[0, 0, 2, 0, 2, 2, 0, 2]]},
        {"id": 4, "image_id": 9, "category_id": 2, "bbox": [0, 0, 2, 2]},
    ]
    evaluator = CocoEvaluator(annotated(tmp_path, annotations=annotations))
    assert "1 of 2 objects have no segmentation (the first is annotation 4): boxes alone are compared" in caplog.text
    for image_id in (5, 9):
        evaluator.update(image_id, detections(1))
    metrics = evaluator.compute()
    assert metrics["bbox"]["AP"] == pytest.approx(100)
    assert "segm" not in metrics


def test_annotations_of_other_images_and_categories_are_left_out(tmp_path, caplog):
    good = {"id": 1, "image_id": 5, "category_id": 2, "segmentation": [[0, 0, 2, 0, 2, 2, 0, 2], [1, 1]]}
    annotations = [good, {**good, "id": 2, "image_id": 6}, {**good, "id": 3, "category_id": 1}]
    truth = GroundTruth.from_file(annotated(tmp_path, annotations=annotations), [2], ["cat"])
    assert "1 annotations of images that are not listed, dropped (annotation 2)" in caplog.text
    assert "1 of 2 annotations are of other categories than the requested ones" in caplog.text
    evaluator = CocoEvaluator(truth)
    evaluator.update(5, detections(0))
    assert [annotation["annotation_id"] for annotation in truth.annotations] == [1]
    assert evaluator.compute()["segm"].keys() == {"AP", "AP50", "AP75", "APs", "APm", "APl", "AP-cat"}


def test_from_records(tmp_path):
    mask = [[0, 0, 2, 0, 2, 2, 0, 2]]
    whole = [[0, 0, 4, 0, 4, 2, 0, 2]]
    records = [
        ImageRecord(
            "a.jpg",
            "a",
            4,
            4,
            [
                InstanceRecord([0, 0, 2, 2], 1, segmentation=mask, amodal=whole),
                InstanceRecord([0, 0, 4, 4], 1, segmentation=None, amodal=whole),  # hidden altogether
            ],
        )
    ]
    info = DatasetInfo("mine", ("bat", "cat"), (1, 2), "mine.json", "images")
    truth = GroundTruth.from_records(records, info)
    evaluator = CocoEvaluator(truth)
    evaluator.update("a", detections(1))
    assert evaluator.compute()["segm"]["AP-cat"] == pytest.approx(100)
    assert [a["area"] for a in truth.amodal().annotations] == [8, 8]
    assert truth.amodal().annotations[0]["bbox"] == [0, 0, 4, 2]
    assert average_precision(truth.amodal(), evaluator.results(), "segm")["AP50"] == pytest.approx(100 * 51 / 101)


def test_merge_keeps_each_image_once(tmp_path):
    path = annotated(tmp_path)
    first, second = CocoEvaluator(path), CocoEvaluator(path)
    first.update(5, detections(1))
    second.update(5, detections(1))  # a sampler repeated it
    second.update(9, detections(2))
    first.merge([second.state()])
    assert [result["image_id"] for result in first.results()] == [5, 9, 9]
    before = first.results()
    first.merge([first.state(), second.state(), second.state()])
    assert first.results() == before
    other = CocoEvaluator(path)
    other.update(5, detections(3))
    first.merge([other.state()])
    assert first.results() == before  # what was there first stays


def test_a_repeated_image_is_not_counted_twice(tmp_path):
    path = annotated(tmp_path)
    alone, first, second = CocoEvaluator(path), CocoEvaluator(path), CocoEvaluator(path)
    for evaluator in (alone, first, second):
        evaluator.update(5, detections(2))
    for evaluator in (alone, second):
        evaluator.update(9, detections(1))
    first.merge([second.state()])
    assert first.results() == alone.results()
    metrics = first.compute()
    np.testing.assert_equal(metrics, alone.compute())
    total = metrics["operating_point"]["total"]
    assert (metrics["results"], total["true_positives"], total["false_positives"]) == (3, 1, 2)


def _evaluate_share(rank, path, rendezvous, output):
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", init_method=f"file://{rendezvous}", rank=rank, world_size=2)
    evaluator = CocoEvaluator(path, output)
    evaluator.update(5, detections(1))  # both processes, as a sampler that repeats images has it
    if rank == 1:
        evaluator.update(9, detections(2))
    metrics = evaluator.compute()
    assert bool(metrics) == (rank == 0)
    torch.distributed.destroy_process_group()


def test_two_processes_write_what_one_would(tmp_path):
    path = annotated(tmp_path)
    torch.multiprocessing.spawn(_evaluate_share, (path, tmp_path / "rendezvous", tmp_path / "out"), nprocs=2)
    alone = CocoEvaluator(path, tmp_path / "alone")
    alone.update(5, detections(1))
    alone.update(9, detections(2))
    alone.compute()
    for name in ("metrics.json", "coco_instances_results.json"):
        assert json.loads((tmp_path / "out" / name).read_text()) == json.loads((tmp_path / "alone" / name).read_text())
