"""Recall of hidden objects, hidden parts, order of depth, overlapping images: scenes with known answers."""

import json
import math
import pickle

import pytest
from pycocotools import mask as coco_mask

from bcnet.data import DatasetInfo, ImageRecord, InstanceRecord
from bcnet.evaluation import (
    GroundTruth,
    evaluate_files,
    evaluate_results,
    flat_metrics,
    format_report,
    hidden_part_iou,
    occlusion_order_accuracy,
    overlap_average_precision,
    split_annotations,
    split_recall,
)
from bcnet.evaluation.matching import match_instances
from bcnet.evaluation.results import uniform_results

SIDE = 60


def polygon(x, y, w, h):
    return [x, y, x + w, y, x + w, y + h, x, y + h]


def rle_text(*boxes):
    rle = coco_mask.merge(coco_mask.frPyObjects([polygon(*box) for box in boxes], SIDE, SIDE))
    return {"size": rle["size"], "counts": rle["counts"].decode()}


def annotation(number, *visible, category_id=1, image_id=1, amodal=None, **more):
    """The visible mask is a union of boxes, the amodal one a box."""
    if amodal is not None:
        more["amodal_segmentation"] = [polygon(*amodal)]
    rle = rle_text(*visible)
    return {
        "id": number,
        "image_id": image_id,
        "category_id": category_id,
        "bbox": coco_mask.toBbox({**rle, "counts": rle["counts"].encode()}).tolist(),
        "iscrowd": 0,
        "segmentation": rle,
        **more,
    }


def result(number, *boxes, occluded_by=(), depth=0, score=0.9, category_id=1, image_id=1, related=True):
    relations = {"number": number, "occluded_by": [list(pair) for pair in occluded_by], "depth": depth}
    rle = rle_text(*boxes)
    return {
        "image_id": image_id,
        "category_id": category_id,
        "bbox": coco_mask.toBbox({**rle, "counts": rle["counts"].encode()}).tolist(),
        "segmentation": rle,
        "score": score,
        **(relations if related else {}),
    }


def truth_of(*annotations, images=(1, 2)):
    return {
        "images": [{"id": i, "file_name": f"{i:012d}.jpg", "height": SIDE, "width": SIDE} for i in images],
        "categories": [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}],
        "annotations": list(annotations),
    }


# A post hides the middle of a bench; a wall lies behind the bench, a kite is free.
BENCH_LEFT, BENCH_RIGHT, BENCH = (0, 30, 20, 20), (30, 30, 20, 20), (0, 30, 50, 20)
POST, KITE = (20, 10, 10, 45), (50, 0, 8, 8)
WALL_VISIBLE, WALL = (32, 10, 12, 20), (32, 10, 12, 30)


def park(**per_name):
    """The four objects, 1 bench, 2 post, 3 kite, 4 wall, with amodal masks and depths."""
    return truth_of(
        annotation(1, BENCH_LEFT, BENCH_RIGHT, amodal=BENCH, depth=1, **per_name),
        annotation(2, POST, amodal=POST, depth=0, **per_name),
        annotation(3, KITE, category_id=2, amodal=KITE, depth=3, **per_name),
        annotation(4, WALL_VISIBLE, category_id=2, amodal=WALL, depth=2, **per_name),
    )


def test_the_split_by_amodal_masks():
    truth = GroundTruth.from_dict(park())
    assert split_annotations(truth) == ("amodal", {"occluded": {4}, "separated": {1}})


def test_the_split_estimated_from_visible_masks():
    # The rule cannot tell who is in front: post and wall count too, as they have neighbours in their boxes.
    content = park()
    for entry in content["annotations"]:
        del entry["amodal_segmentation"], entry["depth"]
    measure, parts = split_annotations(GroundTruth.from_dict(content))
    assert measure == "occluder_share"
    assert parts["separated"] == {1}
    assert 3 not in parts["occluded"]


def test_two_pieces_that_nothing_joins_are_not_separated():
    content = truth_of(annotation(1, (0, 0, 10, 10), (40, 0, 10, 10), hidden_fraction=0.4))
    _, parts = split_annotations(GroundTruth.from_dict(content))
    assert parts == {"occluded": {1}, "separated": set()}


def test_recall_of_the_split():
    truth = GroundTruth.from_dict(park())
    results = [
        result(0, BENCH_LEFT, BENCH_RIGHT, score=0.4),
        result(1, POST, score=0.2),  # below the published threshold
        result(2, (32, 10, 12, 14), category_id=2),  # IoU 0.7
    ]
    report = split_recall(truth, results)
    assert report["split_by"] == "amodal"
    assert report["all"] == {"instances": 4, "found": 1, "recall": 25.0}
    assert report["separated"] == {"instances": 1, "found": 1, "recall": 100.0}
    assert report["occluded"] == {"instances": 1, "found": 0, "recall": 0.0}
    assert split_recall(truth, results, iou_threshold=0.7)["occluded"]["found"] == 1
    # As published, one detection may find several instances.
    twins = GroundTruth.from_dict(truth_of(annotation(1, POST), annotation(2, POST)))
    assert split_recall(twins, [result(0, POST)])["all"]["found"] == 2


def test_recall_of_the_published_lists(tmp_path):
    content = truth_of(annotation(1, POST), images=(7, 8))
    content["annotations"][0]["image_id"] = 7
    content["categories"] = [{"id": 1, "name": "person"}, {"id": 18, "name": "dog"}]
    (tmp_path / "annotations.json").write_text(json.dumps(content))
    (tmp_path / "results.json").write_text(json.dumps([result(0, POST, image_id=7), result(0, KITE, image_id=8)]))

    def entry(image_id, class_name, box):
        rle = rle_text(box)
        return [f"{image_id:012d}.jpg", class_name, 1, list(box), {**rle, "counts": rle["counts"].encode()}]

    lists = {
        "occluded": [entry(7, "person", POST), entry(8, "dog", KITE), entry(9, "dog", KITE)],
        "separated": [entry(8, "person", KITE)],
    }
    paths = {name: tmp_path / f"{name}.pkl" for name in lists}
    for name, path in paths.items():
        path.write_bytes(pickle.dumps(lists[name]))
    recall = evaluate_files(tmp_path / "annotations.json", tmp_path / "results.json", split_lists=paths)["recall"]
    assert recall["split_by"] == "lists"
    assert recall["occluded"] == {"instances": 2, "found": 1, "recall": 50.0}  # image 9 is not one of the images
    assert recall["separated"] == {"instances": 1, "found": 1, "recall": 100.0}


def test_hidden_part_iou():
    truth = GroundTruth.from_dict(park())
    # The bench's hidden part is 200 pixels. 150 of them are found, and 60 pixels below the bench besides.
    found = {1: result(0, BENCH_LEFT, BENCH_RIGHT, (20, 30, 10, 15), (0, 50, 6, 10))}
    report = hidden_part_iou(truth, found)
    assert report["instances"] == 2  # bench and wall
    assert report["found"] == 1
    assert report["iou_found"] == pytest.approx(100 * 150 / 260)
    assert report["iou"] == pytest.approx(50 * 150 / 260)
    assert hidden_part_iou(truth.amodal(), found) == report
    assert math.isnan(hidden_part_iou(truth, {})["iou_found"])


def with_amodal(found, *boxes):
    return {**found, "amodal_segmentation": rle_text(*boxes)}


def test_hidden_part_iou_of_the_predicted_hidden_part():
    """The predicted hidden part is the predicted amodal mask outside the predicted visible one."""
    truth = GroundTruth.from_dict(park())
    # Of the bench's hidden 200 pixels (20..30 in x), 5 columns (100 pixels) are taken for visible, and the other 100
    # for hidden.
    found = {1: with_amodal(result(0, BENCH_LEFT, BENCH_RIGHT, (20, 30, 5, 20)), BENCH)}
    assert hidden_part_iou(truth, found)["iou_found"] == pytest.approx(100 * 100 / 200)
    # A predicted hidden part on pixels that are annotated as visible counts in the union.
    found = {1: with_amodal(result(0, (0, 30, 15, 20), BENCH_RIGHT), BENCH)}
    assert hidden_part_iou(truth, found)["iou_found"] == pytest.approx(100 * 200 / 300)
    assert hidden_part_iou(truth.amodal(), found) == hidden_part_iou(truth, found)


def test_visible_and_amodal_ap_from_one_results_file(tmp_path):
    content = park()
    results = [
        with_amodal(result(0, BENCH_LEFT, BENCH_RIGHT), BENCH),
        with_amodal(result(1, POST), POST),
        with_amodal(result(2, KITE, category_id=2), KITE),
        with_amodal(result(3, WALL_VISIBLE, category_id=2), WALL),
    ]
    (tmp_path / "truth.json").write_text(json.dumps(content))
    (tmp_path / "results.json").write_text(json.dumps(results))
    metrics = evaluate_files(str(tmp_path / "truth.json"), str(tmp_path / "results.json"))
    assert metrics["segm"]["AP"] == metrics["amodal"]["AP"] == pytest.approx(100)
    assert metrics["hidden_part"]["iou"] == pytest.approx(100)
    # Without the amodal masks, the visible ones are compared with the whole objects.
    for entry in results:
        del entry["amodal_segmentation"]
    (tmp_path / "results.json").write_text(json.dumps(results))
    assert evaluate_files(str(tmp_path / "truth.json"), str(tmp_path / "results.json"))["amodal"]["AP"] < 90


def test_amodal_masks_of_results_are_checked():
    truth = GroundTruth.from_dict(park())
    whole, alone = with_amodal(result(0, POST), POST), result(1, KITE, category_id=2)
    with pytest.raises(ValueError, match="result 1: it has no amodal_segmentation, but 1 of 2 results have one"):
        uniform_results([whole, alone], truth)
    (_, empty) = uniform_results([whole, {**alone, "amodal_segmentation": []}], truth)
    assert coco_mask.area(empty["amodal_segmentation"]) == 0
    (polygons,) = uniform_results([{**alone, "amodal_segmentation": [polygon(*KITE)]}], truth)
    assert polygons["amodal_segmentation"] == rle_text(KITE)
    with pytest.raises(ValueError, match=r"result 0: .*size"):
        uniform_results([{**alone, "amodal_segmentation": {"size": [3, 3], "counts": [9]}}], truth)


def test_matches_are_the_highest_scoring_of_the_class():
    truth = GroundTruth.from_dict(park())
    results = [
        result(0, POST, score=0.6),
        result(1, POST, score=0.8),
        result(2, KITE, score=0.4, category_id=2),
        result(3, WALL_VISIBLE, score=0.9, category_id=1),
    ]
    matches = match_instances(truth, results)
    assert {number: found["number"] for number, found in matches.items()} == {2: 1}
    assert match_instances(truth, results, score_threshold=0.3).keys() == {2, 3}


def order_report(content, *results):
    truth = GroundTruth.from_dict(content)
    return occlusion_order_accuracy(truth, results, match_instances(truth, results))


def test_order_accuracy():
    bench = result(0, BENCH_LEFT, BENCH_RIGHT, occluded_by=[(1, 0.9), (2, 0.6)], depth=2)
    post = result(1, POST, occluded_by=[(0, 0.7)], depth=0)
    wall = result(2, WALL_VISIBLE, category_id=2, depth=1)
    report = order_report(park(), bench, post, wall)
    # Pairs that hide: post over bench (right: 0.9 against 0.7), bench over wall (reversed).
    assert {k: report[k] for k in ("pairs", "found", "right", "reversed", "undecided")} == {
        "pairs": 2,
        "found": 2,
        "right": 1,
        "reversed": 1,
        "undecided": 0,
    }
    assert report["accuracy"] == report["accuracy_decided"] == 50
    assert report["depth_accuracy"] == 50
    # Bench below post, right, and bench below wall, wrong; post below bench is less sure than the opposite.
    assert (report["edge_recall"], report["edges"], report["edge_precision"]) == (50, 2, 50)
    # Below the threshold of the graph there is a direction, but no edge.
    weak = order_report(park(), {**bench, "occluded_by": [[1, 0.25]]}, {**post, "occluded_by": [[0, 0.2]]}, wall)
    assert (weak["right"], weak["edge_recall"], weak["edges"]) == (1, 0, 0)
    undecided = order_report(park(), {**bench, "occluded_by": [[1, 0.7]]}, post, {**wall, "score": 0.1})
    assert (undecided["pairs"], undecided["found"], undecided["undecided"]) == (2, 1, 1)
    assert math.isnan(undecided["accuracy_decided"])


def test_order_without_amodal_masks_asks_the_boxes():
    content = park()
    for entry in content["annotations"]:
        del entry["amodal_segmentation"]
    report = order_report(content, result(0, POST))
    assert report["measure"] == "boxes that overlap"
    assert report["pairs"] == 1  # the visible wall ends where the bench begins


def test_an_image_with_a_depth_missing_has_no_order():
    content = park()
    content["annotations"][2]["depth"] = None
    assert order_report(content, result(0, POST))["pairs"] == 0
    assert GroundTruth.from_dict(content).order_of(2) is None


def test_the_order_of_records():
    def instance(box, visible):
        return InstanceRecord(list(box), 0, segmentation=rle_text(*visible), amodal=[polygon(*box)])

    records = [
        ImageRecord("b.jpg", 9, SIDE, SIDE, [instance(KITE, [KITE])]),
        ImageRecord(
            "a.jpg", 5, SIDE, SIDE, [instance(BENCH, [BENCH_LEFT, BENCH_RIGHT]), instance(POST, [POST])], [(0, 1)]
        ),
    ]
    truth = GroundTruth.from_records(records, DatasetInfo("mine", ("thing",), (1,), "mine.json", "images"))
    assert truth.has_order
    assert truth.order_of(truth.image_numbers[9]) is None
    results = [
        result(0, BENCH_LEFT, BENCH_RIGHT, image_id=5, occluded_by=[(1, 0.8)], depth=1),
        result(1, POST, image_id=5),
        result(0, KITE, image_id=9),
    ]
    for target in (truth, truth.amodal()):
        matches = match_instances(target, results)
        assert occlusion_order_accuracy(target, results, matches)["right"] == 1


def test_ap_on_the_images_with_overlapping_objects():
    content = truth_of(
        annotation(1, (0, 0, 20, 20)),
        annotation(2, (8, 0, 20, 20)),  # IoU 12 / 28
        annotation(3, (0, 0, 20, 20), image_id=2),
        annotation(4, (8, 0, 20, 20), image_id=2, category_id=2),  # of another class
    )
    results = [result(0, (0, 0, 20, 20)), result(1, (8, 0, 20, 20)), result(0, (30, 30, 9, 9), image_id=2)]
    truth = GroundTruth.from_dict(content)
    report = overlap_average_precision(truth, results)
    assert (report["images"], report["overlap"]) == (1, "same-class-iou")
    assert report["AP"] == pytest.approx(100)
    assert overlap_average_precision(truth, results, "iou")["images"] == 2
    nothing = overlap_average_precision(truth, results, threshold=0.9)
    assert nothing["images"] == 0
    assert math.isnan(nothing["AP"])


def test_all_metrics_of_an_amodal_model(tmp_path):
    content = park()
    whole = [
        result(0, BENCH, occluded_by=[(1, 0.9)], depth=1),
        result(1, POST),
        result(2, KITE, category_id=2),
        result(3, WALL, category_id=2, occluded_by=[(0, 0.8)], depth=2),
    ]
    (tmp_path / "annotations.json").write_text(json.dumps(content))
    (tmp_path / "results.json").write_text(json.dumps(whole))
    files = tmp_path / "annotations.json", tmp_path / "results.json"
    metrics = evaluate_files(*files, mask_target="amodal")
    assert metrics["mask_target"] == "amodal"
    for task in ("bbox", "segm", "boundary", "amodal"):
        assert metrics[task]["AP"] == pytest.approx(100), task
    assert metrics["hidden_part"]["iou"] == pytest.approx(100)
    assert metrics["order"]["accuracy"] == metrics["order"]["depth_accuracy"] == 100
    # Hidden shares are of the visible masks whatever is asked for: bench 0.2, wall 1/3.
    assert {n: level["instances"] for n, level in metrics["occlusion"]["levels"].items()} == {
        "none": 2,
        "light": 1,
        "medium": 1,
        "heavy": 0,
    }
    assert metrics["recall"]["separated"]["recall"] == 100
    visible = evaluate_files(*files)
    assert visible["segm"]["AP"] < 100
    assert visible["amodal"]["AP"] == pytest.approx(100)
    for text in (format_report(metrics), format_report(visible)):
        assert "separated" in text and "depth_accuracy" in text and "iou_found" in text


def test_a_wholly_hidden_object_is_asked_for_by_its_amodal_mask_alone():
    content = park()
    content["annotations"].append({**annotation(5, (22, 12, 6, 6), amodal=(22, 12, 6, 6), depth=4)})
    del content["annotations"][-1]["segmentation"]
    truth = GroundTruth.from_dict(content)
    assert len(truth.instances()) == 4
    whole = truth.amodal()
    assert len(whole.instances()) == 5
    levels = evaluate_results(whole, [result(0, POST)])["occlusion"]["levels"]
    assert levels["heavy"]["instances"] == 1


def test_relations_are_compared_only_where_the_results_have_them():
    truth = GroundTruth.from_dict(park())
    assert "order" not in evaluate_results(truth, [result(0, POST, related=False)])
    assert "order" in evaluate_results(truth, [result(0, POST)])
    content = park()
    for entry in content["annotations"]:
        del entry["depth"]
    assert "order" not in evaluate_results(GroundTruth.from_dict(content), [result(0, POST)])


def test_flat_metrics():
    nested = {
        "segm": {"AP": 1.0, "AP-cat": 2.0},
        "overlap": {"overlap": "iou", "images": 3},
        "x": {"classes": {"c": 1}},
    }
    assert flat_metrics(nested) == {"segm/AP": 1.0, "segm/AP-cat": 2.0, "overlap/images": 3}
