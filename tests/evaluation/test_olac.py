"""AP by COCO-OLAC's occlusion level: exact values of four images."""

import json
import math

import pytest

from bcnet.cli import main
from bcnet.evaluation import (
    GroundTruth,
    evaluate_results,
    olac_average_precision,
    read_olac_labels,
    uniform_results,
)

BOX = [10, 10, 20, 20]
MASK = [[10, 10, 30, 10, 30, 30, 10, 30]]
LABELS = {"a": "low", "b": "high", "c": "high", "elsewhere": "mid"}


def content():
    return {
        "images": [
            {"id": i, "file_name": name, "height": 50, "width": 50}
            for i, name in enumerate(["a.jpg", "folder/b.png", "c.jpg", "d.jpg"], start=1)
        ],
        "categories": [{"id": 1, "name": "cat"}],
        "annotations": [
            {"id": i, "image_id": i, "category_id": 1, "bbox": BOX, "segmentation": MASK, "area": 400, "iscrowd": 0}
            for i in (1, 2, 3, 4)
        ],
    }


def result(image_id, score=0.9):
    return {"image_id": image_id, "category_id": 1, "score": score, "bbox": BOX, "segmentation": MASK}


def test_ap_by_level():
    # Of the two images of level high one is found: recall 0.5, precision 1 up to it, i.e. 51 of 101 recall points.
    truth = GroundTruth.from_dict(content())
    report = olac_average_precision(truth, uniform_results([result(1), result(2), result(4)], truth), LABELS)
    assert report["iou_type"] == "segm"
    assert report["unlabelled"] == 1
    assert {name: level["images"] for name, level in report["levels"].items()} == {"low": 1, "mid": 0, "high": 2}
    assert report["levels"]["low"]["AP"] == pytest.approx(100)
    assert report["levels"]["high"]["AP"] == report["levels"]["high"]["AP50"] == pytest.approx(100 * 51 / 101)
    assert math.isnan(report["levels"]["mid"]["AP"])


def test_it_is_a_metric_where_labels_are_given():
    truth = GroundTruth.from_dict(content())
    assert "olac" not in evaluate_results(truth, uniform_results([result(1)], truth))
    boxes = [{k: v for k, v in result(1).items() if k != "segmentation"}]
    assert evaluate_results(truth, boxes, olac_labels=LABELS)["olac"]["iou_type"] == "bbox"


def test_the_labels_file(tmp_path):
    path = tmp_path / "labels.json"
    path.write_text(json.dumps(LABELS))
    assert read_olac_labels(path) == LABELS
    path.write_text(json.dumps({**LABELS, "e": "medium"}))
    with pytest.raises(ValueError, match=r"labels\.json: the level of 'e' is 'medium'; it must be one of"):
        read_olac_labels(path)
    path.write_text(json.dumps({"e": ["low"]}))
    with pytest.raises(ValueError, match=r"the level of 'e' is \['low'\]"):
        read_olac_labels(path)
    path.write_text("[]")
    with pytest.raises(ValueError, match=r"must hold a JSON object of occlusion levels by file name, got \[\]"):
        read_olac_labels(path)


def test_the_command(tmp_path, capsys):
    for name, value in {"truth": content(), "results": [result(1), result(2)], "labels": LABELS}.items():
        (tmp_path / f"{name}.json").write_text(json.dumps(value))
    files = ["--annotations", f"{tmp_path}/truth.json", "--results", f"{tmp_path}/results.json"]
    main(["evaluate", *files, "--olac", f"{tmp_path}/labels.json", "--output", f"{tmp_path}/metrics.json"])
    olac = json.loads((tmp_path / "metrics.json").read_text())["olac"]
    assert olac["levels"]["high"]["AP"] == pytest.approx(100 * 51 / 101)
    printed = capsys.readouterr().out
    assert "segm AP by COCO-OLAC's occlusion level of the image; 1 images without a label" in printed
