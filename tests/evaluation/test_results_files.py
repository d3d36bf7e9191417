"""Results files of any tool: every form of mask gives the same figures; what is malformed is named."""

import copy
import json
import logging

import numpy as np
import pytest
from results_samples import BOXES, HEIGHT, WIDTH, ground_truth, polygon, results, runs, write

from bcnet.cli import main
from bcnet.evaluation import GroundTruth, evaluate_files, evaluate_results, read_results, uniform_results

METRICS = ("bbox", "segm", "boundary", "occlusion", "operating_point")


@pytest.mark.parametrize("mask", [polygon, runs], ids=["polygons", "uncompressed RLE"])
def test_every_form_of_mask_gives_the_same_metrics(tmp_path, mask):
    expected = evaluate_files(*write(tmp_path, results()))
    assert {"bbox", "segm", "boundary", "occlusion", "recall"} <= expected.keys()
    assert 0 < expected["segm"]["AP"] < 100
    actual = evaluate_files(*write(tmp_path, results(mask)))
    np.testing.assert_equal(actual, expected)


@pytest.mark.parametrize("empty", [None, [], [[]], {}, ""])
def test_empty_segmentations_throughout_are_results_of_boxes(tmp_path, empty):
    expected = evaluate_files(*write(tmp_path, results(None)))
    assert "segm" not in expected and expected["bbox"]["AP"] > 0
    entries = [{**entry, "segmentation": empty} for entry in results(None)]
    np.testing.assert_equal(evaluate_files(*write(tmp_path, entries)), expected)


@pytest.mark.parametrize("empty", [None, []])
def test_an_empty_segmentation_among_masks_is_a_mask_without_pixels(tmp_path, caplog, empty):
    entries = results()
    entries[0]["segmentation"] = empty
    metrics = evaluate_files(*write(tmp_path, entries))
    assert "results.json: 1 results with an empty segmentation, taken as masks without pixels" in caplog.text
    assert metrics["bbox"]["AP50"] == pytest.approx(100)
    total = metrics["operating_point"]["total"]
    assert (total["true_positives"], total["false_positives"], total["false_negatives"]) == (2, 1, 1)
    assert np.isfinite(metrics["boundary"]["AP"])


def test_a_short_polygon_beside_others_is_dropped_and_counted(tmp_path, caplog):
    entries = results(polygon)
    entries[0]["segmentation"] = [*entries[0]["segmentation"], [1, 1, 2, 2]]
    truth = GroundTruth.from_dict(ground_truth())
    assert uniform_results(entries, truth) == uniform_results(results(polygon), truth)
    assert "1 polygons of segmentation with fewer than 3 points" in caplog.text


def test_results_are_copied_not_changed():
    entries = results(polygon)
    before = copy.deepcopy(entries)
    uniform = uniform_results(entries, GroundTruth.from_dict(ground_truth()))
    assert entries == before
    assert uniform == results()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"bbox": [float("nan"), 1, 2, 3]}, r"bbox must be four finite numbers \[x, y, width, height\], got \[nan"),
        ({"bbox": [1, 2, -3, 4]}, r"bbox has a negative size: \[1, 2, -3, 4\]"),
        ({"bbox": [1, 2, 3]}, r"bbox must be four finite numbers .*\[1, 2, 3\]"),
        ({"bbox": None}, "it has no bbox, but 2 of 3 results have one"),
        ({"score": True}, "score must be a finite number, got True"),
        ({"score": "0.9"}, "score must be a finite number, got '0.9'"),
        ({"image_id": "1"}, r"image_id '1' is not listed in .*gt\.json"),
        ({"image_id": [1]}, r"image_id \[1\] is not listed"),
        ({"category_id": {"id": 1}}, r"category_id {'id': 1} is not one of \[7, 8\]"),
        ({"segmentation": {"size": [HEIGHT, WIDTH], "counts": [5, 5]}}, "runs must sum to 40 x 50 = 2000 pixels"),
        ({"segmentation": {"size": [HEIGHT, WIDTH], "counts": [-5, 2005]}}, "none of them negative"),
        ({"segmentation": {"size": [HEIGHT, WIDTH], "counts": "oR8"}}, "runs must sum to|truncated"),
        (
            {"segmentation": {"size": [WIDTH, HEIGHT], "counts": [2000]}},
            r"is \[50, 40\], the image's is \[40, 50\]",
        ),
        ({"segmentation": {"counts": [2000]}}, "an RLE needs the keys size and counts"),
        ({"segmentation": [[1, 1, 2, 2]]}, "every polygon has fewer than 3 points"),
        ({"segmentation": [[0, 0, 1, float("nan"), 5, 5]]}, "has the coordinate nan"),
        ({"segmentation": "polygon"}, "segmentation must be a list of polygons .* or an RLE, got 'polygon'"),
        ({"occluded_by": None}, r"occluded_by must be a list of \[number, confidence\], got None"),
        ({"occluded_by": [[0, 0.5]], "number": 1}, "occluded_by comes with a depth, got None"),
    ],
)
def test_a_malformed_entry_is_one_error_that_names_file_and_entry(tmp_path, change, message):
    entries = results()
    entries[1] |= change
    with pytest.raises(ValueError, match=rf"results\.json is malformed:\n  result 1: .*{message}"):
        evaluate_files(*write(tmp_path, entries))


def test_a_missing_mask_is_named(tmp_path):
    entries = results()
    del entries[2]["segmentation"]
    with pytest.raises(ValueError, match="result 2: it has no segmentation, but 2 of 3 results have one"):
        evaluate_files(*write(tmp_path, entries))
    with pytest.raises(ValueError, match="result 0: it has neither bbox nor segmentation"):
        evaluate_files(*write(tmp_path, [{"image_id": 1, "category_id": 7, "score": 0.5}]))
    masks = [{key: value for key, value in entry.items() if key != "bbox"} for entry in results()]
    truth = ground_truth()
    for annotation in truth["annotations"]:
        del annotation["segmentation"]
    with pytest.raises(ValueError, match=r"gt\.json has no masks, and .*results\.json no boxes"):
        evaluate_files(*write(tmp_path, masks, truth))


@pytest.mark.parametrize("content", ["{}", "3", '{"annotations": 1}', "[1]", "[null]", "[", "\xff"])
def test_what_is_no_results_file_is_one_line(tmp_path, capsys, content):
    annotations, path = write(tmp_path, [])
    path.write_text(content, encoding="latin-1")
    with pytest.raises(SystemExit) as caught:
        main(["evaluate", "--annotations", str(annotations), "--results", str(path)])
    assert caught.value.code == 1
    message = capsys.readouterr().err
    assert message.startswith("error: ") and str(path) in message and "Traceback" not in message


def test_a_json_with_its_own_images_and_categories(tmp_path, caplog):
    """As ``bcnet predict`` writes it: images by position, categories by the model's classes."""
    new_images, new_categories = {1: 22, 2: 11}, {7: 2, 8: 1}
    content = {
        "images": [
            {"id": new_images[i], "file_name": f"/elsewhere/{i}.png", "height": HEIGHT, "width": WIDTH} for i in BOXES
        ],
        "categories": [{"id": 1, "name": "Fork"}, {"id": 2, "name": "cup"}, {"id": 3, "name": "spoon"}],
        "annotations": [
            {**e, "image_id": new_images[e["image_id"]], "category_id": new_categories[e["category_id"]]}
            for e in results()
        ],
    }
    truth = GroundTruth.from_dict(ground_truth())
    assert read_results(write(tmp_path, content)[1], truth) == uniform_results(results(), truth)
    assert "1 of 3 classes" in caplog.text and "[Fork, cup, spoon] and [cup, fork]" in caplog.text
    assert "images" not in caplog.text
    first = [entry for entry in content["annotations"] if entry["image_id"] == 22]
    read_results(write(tmp_path, {**content, "images": content["images"][:1], "annotations": first})[1], truth)
    assert "lists 1 of the 2 images of annotations: objects of the others count as not found" in caplog.text
    content["annotations"].append({**content["annotations"][0], "category_id": 3})
    caplog.clear()
    assert read_results(write(tmp_path, content)[1], truth) == uniform_results(results(), truth)
    assert "1 results of classes that annotations lacks, left out (result 3)" in caplog.text
    content["annotations"][1]["image_id"] = 5
    with pytest.raises(ValueError, match=r"results\.json is malformed:\n  result 1: the file lists no such image"):
        read_results(write(tmp_path, content)[1], truth)
    content["images"][0]["file_name"] = "other.png"
    with pytest.raises(ValueError, match=r"'other.png' belongs to 0 images of annotations"):
        read_results(write(tmp_path, content)[1], truth)


def crowded(count=120):
    """One image of `count` squares, all of them detected."""
    boxes = [(4 * (i % 12), 4 * (i // 12), 3, 3) for i in range(count)]
    truth = ground_truth() | {
        "annotations": [
            {"id": i, "image_id": 1, "category_id": 7, "bbox": list(box), "segmentation": polygon(*box)}
            for i, box in enumerate(boxes)
        ]
    }
    found = [
        {"image_id": 1, "category_id": 7, "bbox": list(box), "segmentation": polygon(*box), "score": 0.9}
        for box in boxes
    ]
    return truth, found


def test_a_cut_by_the_maximum_number_of_detections_is_reported(tmp_path, caplog, capsys):
    truth, found = crowded()
    files = [str(path) for path in write(tmp_path, found, truth)]
    output = tmp_path / "metrics.json"
    command = ["evaluate", "--annotations", files[0], "--results", files[1], "--output", str(output)]
    main(command)
    assert "20 of 120 results are ignored: more than 100 per image and class" in capsys.readouterr().out
    assert "20 of 120 results are ignored: more than 100 of a class (up to 120) in 1 image" in caplog.text
    metrics = json.loads(output.read_text())
    assert (metrics["max_detections"], metrics["results_cut"]) == (100, 20)
    assert metrics["segm"]["AP"] == pytest.approx(100 * 84 / 101)  # of 101 recall thresholds, up to 100 / 120
    caplog.clear()
    main([*command, "--max-detections", "120"])
    assert "ignored" not in capsys.readouterr().out + caplog.text
    metrics = json.loads(output.read_text())
    assert metrics["results_cut"] == 0
    assert metrics["bbox"]["AP"] == metrics["segm"]["AP"] == metrics["boundary"]["AP"] == pytest.approx(100)
    assert metrics["operating_point"]["total"]["true_positives"] == 120


@pytest.mark.parametrize("limit", [1, 5, 10, 30])
def test_any_maximum_number_of_detections(limit):
    """The evaluators sort their limits, so one below 10 must not be taken for a smaller one of three."""
    truth, found = crowded(40)
    truth = GroundTruth.from_dict(truth)
    metrics = evaluate_results(truth, uniform_results(found, truth), max_detections=limit, metrics=METRICS)
    reached = int(limit / 40 * 100) + 1
    for value in (metrics["bbox"]["AP"], metrics["segm"]["AP"], metrics["boundary"]["AP"]):
        assert value == pytest.approx(100 * reached / 101)
    assert metrics["operating_point"]["total"]["true_positives"] == limit
    assert metrics["results_cut"] == 40 - limit
    with pytest.raises(ValueError, match="max_detections must be at least 1, got 0"):
        evaluate_results(truth, [], max_detections=0)


def test_namesakes_are_all_shown(tmp_path, capsys):
    annotations, path = write(tmp_path, results(), ground_truth(("cup", "cup")))
    output = tmp_path / "metrics.json"
    main(["evaluate", "--annotations", str(annotations), "--results", str(path), "--output", str(output)])
    printed = capsys.readouterr().out
    metrics = json.loads(output.read_text())
    for task in ("bbox", "segm", "boundary"):
        by_class = [value for key, value in metrics[task].items() if key.startswith("AP-")]
        assert {key for key in metrics[task] if key.startswith("AP-")} == {"AP-cup (id 7)", "AP-cup (id 8)"}
        assert metrics[task]["AP"] == pytest.approx(sum(by_class) / 2)
    assert set(metrics["operating_point"]["classes"]) == {"cup (id 7)", "cup (id 8)"}
    assert "cup (id 7)" in printed and "cup (id 8)" in printed


def test_lists_of_occluded_objects_are_matched_by_class_name(tmp_path, caplog):
    """The lists have COCO's category ids, the annotations may have others."""
    caplog.set_level(logging.WARNING)
    truth = ground_truth()
    listed = GroundTruth.from_dict({**truth, "categories": [{"id": 7, "name": "fork"}, {"id": 8, "name": "cup"}]})
    ours = GroundTruth.from_dict(truth)
    metrics = evaluate_results(
        ours, uniform_results(results(), ours), split_lists={"occluded": listed}, metrics=["recall"]
    )
    # Objects of the list under the other class's name: none of them is detected.
    assert metrics["recall"]["occluded"] == {"instances": 3, "found": 0, "recall": 0.0}
    assert metrics["recall"]["all"]["found"] == 2
