"""Occlusion order as directed pairs, its baselines, and mIoU of whole and hidden parts: values computed by hand."""

import json
import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pycocotools import mask as coco_mask

from bcnet.evaluation import GroundTruth, amodal_miou, format_report, occlusion_order_accuracy
from bcnet.evaluation.matching import match_instances
from bcnet.evaluation.order import OrderCounts
from bcnet.evaluation.order_baselines import BASELINES, OrderedObject, bordering_pairs

SIDE = 60


def rle(*boxes):
    polygons = [[x, y, x + w, y, x + w, y + h, x, y + h] for x, y, w, h in boxes]
    return coco_mask.merge(coco_mask.frPyObjects(polygons, SIDE, SIDE))


def text(mask):
    return {"size": mask["size"], "counts": mask["counts"].decode()}


# A wide, low table behind a tall, narrow post, both in front of a wall between them and a far kite:
# number: (visible rectangles, whole rectangle)
SCENE = {
    1: ([(0, 30, 20, 10), (30, 30, 20, 10)], (0, 30, 50, 10)),  # table: 400 visible pixels, lower edge 40, box 50 x 10
    2: ([(20, 10, 10, 45)], (20, 10, 10, 45)),  # post: 450 pixels, lower edge 55, box 10 x 45
    3: ([(32, 5, 16, 25)], (32, 5, 16, 33)),  # wall: 400 pixels, lower edge 30, box 16 x 25
    4: ([(52, 0, 8, 8)], (52, 0, 8, 8)),  # kite
}
DEPTHS = {1: 1, 2: 0, 3: 2, 4: 3}  # occluding pairs: (1, 2) post on table, (3, 1) table on wall


def truth(scenes=(1,), amodal=True, **changes):
    annotations = [
        {
            "id": 10 * image_id + number,
            "image_id": image_id,
            "category_id": 1,
            "bbox": coco_mask.toBbox(rle(*visible)).tolist(),
            "segmentation": text(rle(*visible)),
            "area": float(coco_mask.area(rle(*visible))),
            "iscrowd": 0,
            "depth": DEPTHS[number],
            **({"amodal_segmentation": text(rle(whole))} if amodal else {}),
        }
        for image_id in scenes
        for number, (visible, whole) in SCENE.items()
    ]
    images = [{"id": i, "file_name": f"{i}.jpg", "height": SIDE, "width": SIDE} for i in scenes]
    content = {"images": images, "categories": [{"id": 1, "name": "thing"}], "annotations": annotations}
    return replace(GroundTruth.from_dict(content), **changes)


def results(occluded_by, image_id=1, numbers=(1, 2, 3, 4)):
    """Perfect detections of these objects, with confidences {(occludee, occluder): value}."""
    return [
        {
            "image_id": image_id,
            "category_id": 1,
            "score": 0.9,
            "bbox": coco_mask.toBbox(rle(*SCENE[number][0])).tolist(),
            "segmentation": text(rle(*SCENE[number][0])),
            "number": number,
            "occluded_by": [[j, value] for (i, j), value in occluded_by.items() if i == number],
            "depth": DEPTHS[number],
        }
        for number in numbers
    ]


def report(ground_truth, detected):
    return occlusion_order_accuracy(ground_truth, detected, match_instances(ground_truth, detected))


def figures(values):
    return [values[name] for name in ("accuracy", "precision", "recall", "f1")]


PERFECT = {(1, 2): 0.9, (3, 1): 0.8}


def test_a_perfect_order_is_100_and_the_reverse_0():
    perfect = report(truth(), results(PERFECT))
    assert figures(perfect) == [100, 100, 100, 100]
    assert perfect["per_image"] == {"images": 1, "precision": 100, "recall": 100, "f1": 100}
    reverse = report(truth(), results({pair[::-1]: value for pair, value in PERFECT.items()}))
    assert figures(reverse) == [0, 0, 0, 0]
    assert reverse["per_image"] == {"images": 1, "precision": 0, "recall": 0, "f1": 0}


def test_each_direction_is_a_decision_of_its_own():
    # Predicted are (1, 2), right; (2, 1) although less sure; (4, 3), of objects that do not touch. (3, 1) is missed:
    # its confidence is below the threshold of 0.3, though it tells the direction.
    values = report(truth(), results({(1, 2): 0.9, (2, 1): 0.4, (4, 3): 0.5, (3, 1): 0.2}))
    assert values["accuracy"] == 100
    assert (values["precision"], values["recall"]) == (pytest.approx(100 / 3), 50)
    assert values["f1"] == pytest.approx(40)  # 2 * 1 / (3 + 2)


def test_without_predicted_pairs():
    values = report(truth(), results({}))
    assert math.isnan(values["precision"])
    assert (values["recall"], values["f1"], values["undecided"]) == (0, 0, 2)
    assert values["per_image"] == {"images": 1, "precision": 100, "recall": 0, "f1": 0}  # as InstaOrder counts


def test_images_without_occluding_pairs():
    # Post and kite do not occlude each other; of a single object there is no pair at all.
    values = report(truth(), results({}, numbers=(2, 4)))
    assert values["per_image"] == {"images": 1, "precision": 100, "recall": 100, "f1": 100}
    assert all(math.isnan(value) for value in figures(values))
    wrong = report(truth(), results({(2, 4): 0.9}, numbers=(2, 4)))
    assert wrong["per_image"] == {"images": 1, "precision": 0, "recall": 100, "f1": 0}
    alone = report(truth(), results({}, numbers=(2,)))
    assert alone["per_image"]["images"] == 0 and math.isnan(alone["per_image"]["f1"])
    assert all(math.isnan(value) for values in alone["baselines"].values() for value in figures(values))


def test_means_over_images_and_figures_of_all_pairs_differ():
    # Image 1 is perfect with 2 pairs; in image 2 the wall is not found, and 1 of 3 predicted pairs is right.
    second = results({(1, 2): 0.9, (2, 1): 0.4, (4, 2): 0.4}, image_id=2, numbers=(1, 2, 4))
    values = report(truth(scenes=(1, 2)), results(PERFECT) + second)
    assert values["precision"] == pytest.approx(100 * 3 / 5)
    assert values["recall"] == 100
    assert values["f1"] == pytest.approx(100 * 2 * 3 / (5 + 3))
    assert values["per_image"] == {
        "images": 2,
        "precision": pytest.approx((100 + 100 / 3) / 2),
        "recall": 100,
        "f1": pytest.approx((100 + 50) / 2),
    }


def test_baselines():
    values = report(truth(), results({}))["baselines"]
    assert list(values) == ["larger_area", "lower_edge", "larger_box", "more_pixels_in_common_box"]
    # Borders: table and post, table and wall. Post on table: 450 > 400 pixels. Table on wall: 400 = 400, a tie.
    assert figures(values["larger_area"]) == [50, 100, 50, pytest.approx(200 / 3)]
    assert values["larger_area"]["accuracy_decided"] == 100
    # Lower edges: 55 > 40 > 30, both right.
    assert figures(values["lower_edge"]) == [100, 100, 100, 100]
    # Boxes: post 450 < table 500, wrong; table 500 > wall 400, right.
    assert figures(values["larger_box"]) == [50, 50, 50, 50]
    # Common box of table and post: 10 x 10, all post; the boxes of table and wall only touch: a tie.
    assert figures(values["more_pixels_in_common_box"]) == [50, 100, 50, pytest.approx(200 / 3)]


def test_baselines_are_of_the_objects_that_were_found():
    values = report(truth(), results({(1, 2): 0.9}, numbers=(1, 2)))
    assert (values["pairs"], values["found"]) == (2, 1)
    assert figures(values) == figures(values["baselines"]["lower_edge"]) == [100, 100, 100, 100]
    assert figures(values["baselines"]["larger_box"]) == [0, 0, 0, 0]


def test_occlusion_both_ways():
    mutual = truth(annotated_occlusions=True)
    mutual.in_front = {1: [(1, 2), (2, 1), (3, 1)]}
    values = report(mutual, results({(1, 2): 0.9, (2, 1): 0.4, (3, 1): 0.8}))
    assert (values["measure"], values["pairs"], values["found"], values["mutual"]) == ("annotated occlusions", 1, 1, 1)
    assert figures(values) == [100, 100, 100, 100]
    one_way = report(mutual, results(PERFECT))
    assert figures(one_way) == [100, 100, pytest.approx(200 / 3), pytest.approx(80)]
    # A baseline says one direction: right in one of two.
    assert figures(one_way["baselines"]["lower_edge"]) == [100, 100, pytest.approx(200 / 3), pytest.approx(80)]


def test_annotated_occlusions_count_whatever_the_boxes():
    annotated = truth(amodal=False, annotated_occlusions=True)
    annotated.in_front = {1: [(4, 2)]}
    assert report(annotated, results({(4, 2): 0.9}))["pairs"] == 1
    assert report(replace(annotated, annotated_occlusions=False), results({(4, 2): 0.9}))["pairs"] == 0


def test_objects_of_unknown_order_are_left_out():
    partly = truth(annotated_occlusions=True)
    partly.in_front = {1: [(1, 2)]}
    detected = results({(1, 2): 0.9, (3, 1): 0.8})
    assert report(partly, detected)["precision"] == 50  # the wall was compared with the table: no occlusion
    partly.annotations[2]["unordered"] = True
    assert figures(report(partly, detected)) == [100, 100, 100, 100]


@given(
    st.sets(st.tuples(st.integers(0, 3), st.integers(0, 3))), st.sets(st.tuples(st.integers(0, 3), st.integers(0, 3)))
)
def test_f1_is_the_harmonic_mean(predicted, actual):
    counts = OrderCounts()
    counts.add_image(predicted, actual)
    values = counts.figures()
    for precision, recall, f1 in (
        [values[name] for name in ("precision", "recall", "f1")],
        [values["per_image"][name] for name in ("precision", "recall", "f1")],
    ):
        if predicted and actual:
            expected = 2 * precision * recall / (precision + recall) if precision + recall else 0
            assert f1 == pytest.approx(expected)
    swapped = OrderCounts()
    swapped.add_image(actual, predicted)
    assert swapped.figures()["f1"] == pytest.approx(values["f1"], nan_ok=True)
    assert swapped.figures()["precision"] == pytest.approx(values["recall"], nan_ok=True)


def test_bordering():
    def pairs(*boxes):
        return list(bordering_pairs({n: OrderedObject.from_rle(rle(box)) for n, box in enumerate(boxes)}))

    assert pairs((0, 0, 10, 10), (10, 0, 10, 10)) == [(0, 1)]  # side by side
    assert pairs((0, 0, 10, 10), (11, 0, 10, 10)) == []  # a column between them
    assert pairs((0, 0, 10, 10), (10, 10, 10, 10)) == []  # corner to corner
    assert pairs((0, 0, 10, 10), (5, 5, 10, 10), (40, 40, 9, 9)) == [(0, 1)]


def test_cues_of_the_common_box():
    one, other = OrderedObject.from_rle(rle((0, 0, 30, 5), (0, 0, 5, 30))), OrderedObject.from_rle(rle((10, 2, 30, 30)))
    # The common box is x 10..30, y 2..30: one has 20 x 3 pixels there, the other 20 x 28.
    assert BASELINES["more_pixels_in_common_box"](one, other) == (60, 560)
    far = OrderedObject.from_rle(rle((50, 50, 5, 5)))
    assert BASELINES["more_pixels_in_common_box"](one, far) == (0, 0)


def test_the_report_has_the_baselines_in_one_table():
    ground_truth = truth()
    values = report(ground_truth, results(PERFECT))
    printed = format_report({"order": values})
    rows = [line.split() for line in printed.splitlines()]
    assert ["model", *["100.00"] * 7] in rows
    assert ["larger", "box", "50.00", "50.00", "50.00", "50.00", "50.00", "50.00", "50.00"] in rows
    assert json.loads(json.dumps(values))["baselines"]["lower_edge"]["f1"] == 100


def test_miou_of_whole_objects_and_hidden_parts():
    ground_truth = truth()
    # Found are the table, whose hidden 100 pixels are predicted as 80 of them and 20 below it, and the post exactly.
    table, post = results({}, numbers=(1, 2))
    table["amodal_segmentation"] = text(rle((0, 30, 20, 10), (30, 30, 20, 10), (20, 30, 8, 10), (0, 40, 20, 1)))
    matches = match_instances(ground_truth, [table, post])
    values = amodal_miou(ground_truth, matches)
    assert values == {
        "instances": 4,
        "found": 2,
        "full": pytest.approx(100 * (480 / 520 + 1) / 2),
        "hidden_instances": 2,  # table and wall
        "hidden_found": 1,
        "hidden": pytest.approx(100 * 80 / 120),
    }
    # Without an amodal mask of its own, the detection's mask is the whole object: none of the hidden part.
    del table["amodal_segmentation"]
    values = amodal_miou(ground_truth, match_instances(ground_truth, [table, post]))
    assert (values["full"], values["hidden"]) == (pytest.approx(100 * (400 / 500 + 1) / 2), 0)
    nothing = amodal_miou(ground_truth, {})
    assert (nothing["found"], nothing["hidden_found"]) == (0, 0)
    assert math.isnan(nothing["full"]) and math.isnan(nothing["hidden"])
    assert "mIoU hidden" in format_report({"miou": values})
