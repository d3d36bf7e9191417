"""AP by occlusion, amodal AP, counts, tables and files, on scenes small enough to know the answer."""

import json
import math
import subprocess
import sys
from pathlib import Path

import pytest
from pycocotools import mask as coco_mask

from bcnet.evaluation import (
    GroundTruth,
    evaluate_files,
    format_average_precision,
    format_report,
    hidden_shares,
    occlusion_average_precision,
    operating_point,
    subset_average_precision,
)
from bcnet.evaluation.report import format_table
from bcnet.files import write_json, write_json_list

SIDE = 60


def polygon(x, y, w, h):
    return [[x, y, x + w, y, x + w, y + h, x, y + h]]


def rle_text(x, y, w, h):
    rle = coco_mask.merge(coco_mask.frPyObjects(polygon(x, y, w, h), SIDE, SIDE))
    return {"size": rle["size"], "counts": rle["counts"].decode()}


def annotation(number, box, category_id=1, image_id=1, **more):
    return {
        "id": number,
        "image_id": image_id,
        "category_id": category_id,
        "bbox": list(box),
        "area": box[2] * box[3],
        "iscrowd": 0,
        "segmentation": polygon(*box),
        **more,
    }


def result(box, score, category_id=1, image_id=1):
    return {
        "image_id": image_id,
        "category_id": category_id,
        "bbox": list(box),
        "segmentation": rle_text(*box),
        "score": score,
    }


def truth_of(*annotations):
    return {
        "images": [{"id": 1, "height": SIDE, "width": SIDE}, {"id": 2, "height": SIDE, "width": SIDE}],
        "categories": [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}],
        "annotations": list(annotations),
    }


A, B, FREE = (0, 0, 20, 20), (30, 0, 20, 20), (0, 30, 20, 20)


def test_instances_outside_the_subset_are_ignored():
    truth = GroundTruth.from_dict(truth_of(annotation(1, A), annotation(2, B)))
    found_a, found_b, nothing = result(A, 0.9), result(B, 0.8), result(FREE, 0.95)

    def ap(results, member):
        return subset_average_precision(truth, results, member)["AP"]

    assert ap([found_a], lambda a: a["id"] == 1) == pytest.approx(100)
    assert ap([found_a], lambda a: a["id"] == 2) == 0
    assert ap([found_a, found_b], lambda a: a["id"] == 2) == pytest.approx(100)  # the one on A is not a false one
    assert ap([nothing, found_a], lambda a: a["id"] == 1) == pytest.approx(50)  # this one is
    assert math.isnan(ap([found_a], lambda a: False))


def test_levels_from_the_annotated_hidden_fraction():
    content = truth_of(
        annotation(1, A, hidden_fraction=0.0),
        annotation(2, B, hidden_fraction=0.25),
        annotation(3, FREE, hidden_fraction=1.0),
        annotation(4, (30, 30, 20, 20), iscrowd=1),
    )
    truth = GroundTruth.from_dict(content)
    report = occlusion_average_precision(truth, [result(A, 0.9), result(FREE, 0.8)])
    assert report["measure"] == "hidden_fraction"
    levels = report["levels"]
    assert {name: level["instances"] for name, level in levels.items()} == {
        "none": 1,
        "light": 1,
        "medium": 0,
        "heavy": 1,
    }
    assert levels["none"]["AP"] == levels["heavy"]["AP"] == pytest.approx(100)
    assert levels["light"]["AP"] == 0
    assert math.isnan(levels["medium"]["AP"])


def test_hidden_share_from_amodal_masks():
    content = truth_of(
        annotation(1, A, amodal_segmentation=polygon(0, 0, 40, 20)),
        annotation(2, B, amodal_segmentation=polygon(*B)),
    )
    measure, shares = hidden_shares(GroundTruth.from_dict(content))
    assert measure == "amodal"
    assert shares == {1: 0.5, 2: 0.0}


def test_hidden_share_estimated_with_the_occluder_rule():
    # The second box covers the right half of the first one's box; its mask is what is seen there.
    content = truth_of(
        annotation(1, (0, 0, 20, 20), segmentation=polygon(0, 0, 10, 20)),
        annotation(2, (10, 0, 20, 20)),
        annotation(3, FREE),
    )
    measure, shares = hidden_shares(GroundTruth.from_dict(content))
    assert measure == "occluder_share"
    assert shares[1] == pytest.approx(200 / 400)
    assert shares[3] == 0


def test_bad_hidden_fraction_is_named():
    content = truth_of(annotation(1, A, hidden_fraction=40))
    with pytest.raises(ValueError, match=r"(?s)some\.json.*annotation 1: hidden_fraction must be in 0..1, got 40"):
        GroundTruth.from_dict(content, source="some.json")


def test_operating_point_counts():
    truth = GroundTruth.from_dict(
        truth_of(
            annotation(1, A),
            annotation(2, B),
            annotation(3, FREE, category_id=2),
            annotation(4, (30, 30, 30, 30), category_id=2, iscrowd=1),
        )
    )
    results = [
        result(A, 0.9),
        result(A, 0.8),  # a second one on the same instance
        result(B, 0.3),  # below the threshold
        result((30, 30, 20, 20), 0.9, category_id=2),  # on the crowd
    ]
    point = operating_point(truth, results, "segm", score_threshold=0.5)
    assert point["classes"]["cat"] == {
        "true_positives": 1,
        "false_positives": 1,
        "false_negatives": 1,
        "precision": 50.0,
        "recall": 50.0,
    }
    dog = point["classes"]["dog"]
    assert (dog["true_positives"], dog["false_positives"], dog["false_negatives"]) == (0, 0, 1)
    assert math.isnan(dog["precision"]) and dog["recall"] == 0
    assert (point["total"]["true_positives"], point["total"]["false_negatives"]) == (1, 2)
    assert operating_point(truth, results, "bbox", score_threshold=0.2)["total"]["true_positives"] == 2


def write(tmp_path, content, results):
    (tmp_path / "annotations.json").write_text(json.dumps(content))
    (tmp_path / "results.json").write_text(json.dumps(results))
    return tmp_path / "annotations.json", tmp_path / "results.json"


def test_evaluate_files_with_everything(tmp_path):
    content = truth_of(
        annotation(1, A, amodal_segmentation=polygon(*A), hidden_fraction=0.0),
        annotation(2, B, amodal_segmentation=polygon(30, 0, 30, 30), hidden_fraction=0.6),
    )
    metrics = evaluate_files(*write(tmp_path, content, [result(A, 0.9), result(B, 0.8)]))
    assert (metrics["images"], metrics["annotations"], metrics["results"]) == (2, 2, 2)
    for task in ("bbox", "segm", "boundary"):
        assert metrics[task]["AP"] == pytest.approx(100)
    # Against the amodal masks the second has an IoU of 400 / 900 only.
    assert metrics["amodal"]["AP50"] == pytest.approx(100 * 51 / 101)
    text = format_report(metrics)
    assert "heavy" in text and "cat" in text and "boundary" in text
    write_json(tmp_path / "metrics.json", metrics)
    assert json.loads((tmp_path / "metrics.json").read_text())["segm"]["AP-dog"] is None


def test_evaluate_files_without_masks_and_without_results(tmp_path):
    content = truth_of(annotation(1, A))
    boxes = [{key: value for key, value in result(A, 0.9).items() if key != "segmentation"}]
    metrics = evaluate_files(*write(tmp_path, content, boxes))
    assert metrics["bbox"]["AP"] == pytest.approx(100)
    assert "segm" not in metrics and metrics["operating_point"]["iou_type"] == "bbox"
    metrics = evaluate_files(*write(tmp_path, content, []))
    assert metrics["segm"]["AP"] == metrics["boundary"]["AP"] == 0
    assert metrics["operating_point"]["total"]["false_negatives"] == 1
    format_report(metrics)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"image_id": 3}, r"results\.json.*\n  result 1: image_id 3 is not listed in .*annotations\.json"),
        ({"category_id": 0}, r"result 1: category_id 0 is not one of \[1, 2\]"),
        ({"score": float("nan")}, "result 1: score must be a finite number, got nan"),
        (
            {"segmentation": {"size": [4, 4], "counts": "@0"}},
            r"result 1: the RLE's size \[height, width\] is \[4, 4\], the image's is \[60, 60\]",
        ),
        ({"score": None}, "result 1: it has no score"),
    ],
)
def test_bad_results_are_named(tmp_path, change, message):
    results = [result(A, 0.9), {**result(A, 0.8), **change}]
    with pytest.raises(ValueError, match=message):
        evaluate_files(*write(tmp_path, truth_of(annotation(1, A)), results))


def test_nothing_to_compare_with(tmp_path):
    with pytest.raises(ValueError, match="no annotations"):
        evaluate_files(*write(tmp_path, truth_of(), []))


def test_tables():
    assert format_table(["name", "AP"], [["a", 1.0], ["bcd ef", math.nan]]).splitlines() == [
        "name      AP",
        "------  ----",
        "a       1.00",
        "bcd ef     -",
    ]
    text = format_average_precision({"AP": 12.345, "AP50": 20.0, "AP-cat": 1.0, "AP-dog": math.nan})
    assert "12.35" in text or "12.34" in text
    assert "dog" in text and "nan" not in text


def test_files_are_replaced_in_one_step(tmp_path):
    path = tmp_path / "list.json"
    write_json_list(path, [{"a": 1}, {"b": 2}])
    assert json.loads(path.read_text()) == [{"a": 1}, {"b": 2}]
    with pytest.raises(TypeError):
        write_json_list(path, [{"c": 3}, object()])
    assert json.loads(path.read_text()) == [{"a": 1}, {"b": 2}]  # as it was
    assert [p.name for p in tmp_path.iterdir()] == ["list.json"]
    write_json_list(path, [])
    assert json.loads(path.read_text()) == []


def test_command_line(tmp_path):
    root = Path(__file__).resolve().parents[2]
    annotations, results = write(tmp_path, truth_of(annotation(1, A)), [result(A, 0.9)])
    command = [sys.executable, "tools/evaluate.py", "--annotations", str(annotations), "--results", str(results)]
    done = subprocess.run(
        [*command, "--output", str(tmp_path / "m.json")],
        cwd=root,
        env={"PYTHONPATH": str(root), "PATH": "", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "100.00" in done.stdout
    assert json.loads((tmp_path / "m.json").read_text())["bbox"]["AP"] == pytest.approx(100)
